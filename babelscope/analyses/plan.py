"""What an analysis will read and compare: metrics, sites, position and groups of items, checked before any work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope import plugins
from babelscope.analyses.attention import check_summaries
from babelscope.analyses.covariates import covariates_of
from babelscope.analyses.metric import Metric, Sweep
from babelscope.analyses.pairs import SMALLEST_STRATUM
from babelscope.analyses.statistics import MIN_ITEMS
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Position, Site, expand_sites

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore

Mode = Literal["corrected", "paper", "both"]

# What happens to items with a value that was clipped or not finite.
Marked = Literal["refuse", "drop", "keep"]

# What is asked of a store without being named, as far as its sites can feed it.
DEFAULT_METRICS = ("cs", "nao")

# The contrast of the question, so that a positive number means what one expects it to mean.
FIRST_GROUP = "knowledge-free"


@dataclass(frozen=True, slots=True)
class Task:
    """One metric at one site and layer, in the modes that apply there."""

    name: str
    metric: Metric
    site: Site
    corrected: bool
    paper: bool


def chosen_metrics(metrics: Sequence[str | Metric], sweep: Sweep) -> dict[str, Metric]:
    """Metrics by name; BabelScopeError for an unknown one, or for a sweep that none of them understands."""
    if not metrics:
        raise BabelScopeError("no metric was named", "add --metric cs")
    found: dict[str, Metric] = {}
    for entry in metrics:
        if isinstance(entry, str):
            found[entry.replace("_", "-")] = plugins.load("metric", entry)
        else:
            found[type(entry).__module__.rpartition(".")[2].replace("_", "-")] = entry
    known = {name for metric in found.values() for name in metric.info.sweepable}
    for name, values in sweep.items():
        if name not in known:
            raise unknown_name(f"parameter to sweep in {' and '.join(found)}", name, known)
        if not len(values):
            raise BabelScopeError(f"the sweep of {name} has no values", f"write {name}=0.1:0.9:0.05")
    return found


def chosen_position(store: "ActivationStore", position: str | None) -> Position:
    """The position to read: the one asked for, else `last`, else the only one with one row per item."""
    stored = store.plan.positions
    if position is not None:
        asked = Position.parse(position)
        if asked not in stored:
            raise BabelScopeError(
                f"{store.path} holds no position {asked}",
                f"read --position {stored[0]}, or capture with --position {asked}",
            )
        chosen = [asked]
    else:
        last = Position("last")
        chosen = [last] if last in stored else [p for p in stored if not p.ragged]
    if not chosen or chosen[0].ragged:
        raise BabelScopeError(
            f"{store.path}: position all has many rows per item, and metrics compare one",
            "capture with --position last or --position mean",
        )
    return chosen[0]


def default_metrics(
    store: "ActivationStore", sites: Sequence[str] | None, position: Position, mode: Mode
) -> tuple[list[str], dict[str, str]]:
    """The metrics of `DEFAULT_METRICS` that can read the chosen sites, and why the others cannot.

    Raises
    ------
    BabelScopeError
        That of the first metric, if none of them can.
    """
    fitting, problems = [], {}
    for name in DEFAULT_METRICS:
        try:
            tasks(store, {name: plugins.load("metric", name)}, sites, position, mode)
        except BabelScopeError as error:
            problems[name] = error
        else:
            fitting.append(name)
    if not fitting:
        raise problems[DEFAULT_METRICS[0]]
    return fitting, {name: error.problem for name, error in problems.items()}


def tasks(
    store: "ActivationStore", metrics: Mapping[str, Metric], sites: Sequence[str] | None, position: Position, mode: Mode
) -> list[Task]:
    """Every (metric, site, layer) to score.

    Raises
    ------
    BabelScopeError
        If a metric can read none of the chosen sites, or `mode` is "paper" and none is the published one.
    """
    found: list[Task] = []
    for name, metric in metrics.items():
        reads = metric.info.reads
        chosen = _stored_sites(store, sites, reads)
        if not chosen:
            where = "the chosen sites" if sites else str(store.path)
            wanted = metric.info.paper_site or min(reads)
            raise BabelScopeError(
                f"metric {name} reads {', '.join(sorted(reads))}; {where} hold none of them",
                f"capture again with --site {wanted}, or leave out --metric {name}",
            )
        if any("summary" in s.axes for s in chosen):
            check_summaries(store)
        published = [s.kind == metric.info.paper_site and str(position) == metric.info.paper_position for s in chosen]
        if mode == "paper" and not metric.info.paper_site:
            raise BabelScopeError(f"metric {name} has no published definition", "use --mode corrected")
        if mode == "paper" and not any(published):
            raise BabelScopeError(
                f"the published definition of {name} reads {metric.info.paper_site} at {metric.info.paper_position}",
                f"capture with --site {metric.info.paper_site} --position {metric.info.paper_position}, "
                "or use --mode corrected",
            )
        for site, fits in zip(chosen, published, strict=True):
            task = Task(name, metric, site, corrected=mode != "paper", paper=fits and mode != "corrected")
            if task.corrected or task.paper:
                found.append(task)
    return found


def _stored_sites(store: "ActivationStore", sites: Sequence[str] | None, reads: frozenset[str]) -> list[Site]:
    stored = list(store.plan.sites)
    if sites is not None:
        names = {s.name for s in stored}
        wanted: dict[Site, None] = {}
        for text in sites:
            name = text.split("@")[0]
            if name not in names:
                raise BabelScopeError(
                    f"{store.path} holds no site {name}",
                    f"it holds {', '.join(sorted(names))}; capture again with --site {name}",
                )
            expanded = [s for s in stored if s.name == name]
            if "@" in text:
                expanded = list(expand_sites([text], store.plan.model.depths))
            missing = [str(s) for s in expanded if s not in stored]
            if missing:
                layers = ", ".join(str(s.layer) for s in stored if s.name == name)
                raise BabelScopeError(
                    f"{store.path} holds no site {missing[0]}",
                    f"its layers are {layers}; capture again with --site {missing[0]}",
                )
            wanted |= dict.fromkeys(expanded)
        stored = list(wanted)
    return [s for s in stored if s.kind in reads]


def unmarked(
    store: "ActivationStore", items: tuple[str, ...], languages: Sequence[str], marked: Marked
) -> tuple[str, ...]:
    """Items without a value that was clipped or not finite, in any of the languages; all of them for "keep".

    Raises
    ------
    BabelScopeError
        If there are such values and nobody said what to do about them.
    """
    if marked not in ("refuse", "drop", "keep"):
        raise unknown_name("way to treat marked items", str(marked), ("refuse", "drop", "keep"))
    found = store.marked
    found = found[found["language"].isin(list(languages)) & found["item"].isin(list(items))]
    if marked == "keep" or found.empty:
        return items
    bad = set(found["item"])
    if marked == "refuse":
        first = found.iloc[0]
        raise BabelScopeError(
            f"{len(bad)} of {len(items)} items hold values that were clipped or are not finite, as "
            f"{first['item']!r} in {first['language']!r} ({first['status']})",
            "--marked drop leaves them out, --marked keep takes the values as they are",
        )
    return tuple(item for item in items if item not in bad)


def grouping(store: "ActivationStore", items: Sequence[str], by: str | None) -> str | None:
    """The covariate that "auto" stands for: `demand` where it has more than one value; any other as it is."""
    if by != "auto":
        return by
    covariates = store.covariates
    return "demand" if "demand" in covariates and covariates["demand"].loc[list(items)].nunique() > 1 else None


def item_groups(store: "ActivationStore", items: Sequence[str], by: str | None) -> dict[str, tuple[str, ...]]:
    """Items of every group, each in alphabetical order, so that no number depends on the order of the store.

    Items without a value of the covariate are left out.

    Raises
    ------
    BabelScopeError
        If the covariate is unknown, or a group has fewer than 4 items.
    """
    covariates = store.covariates
    groups: dict[str, list[str]] = {}
    if by is None:
        groups["all"] = list(items)
    else:
        if by not in covariates:
            raise unknown_name(f"covariate of the items in {store.path}", by, map(str, covariates.columns))
        for item, value in covariates[by].loc[list(items)].items():
            if not pd.isna(value):
                groups.setdefault(str(value), []).append(str(item))
    if not groups:
        raise BabelScopeError(f"no item of {store.path} has a value of {by}", "use another covariate, or --by none")
    for name, members in groups.items():
        if len(members) < MIN_ITEMS:
            raise BabelScopeError(
                f"group {name!r} has {len(members)} items in all languages, fewer than {MIN_ITEMS}",
                "capture more items"
                if by is None
                else "capture more items, or put all items in one group with --by none",
            )
    order = sorted(groups, key=lambda name: (name != FIRST_GROUP, name))
    return {name: tuple(sorted(groups[name])) for name in order}


def allowed_mode(mode: Mode, within: Sequence[str]) -> Mode:
    """The mode of an analysis: what was published has no restricted null, so "both" means "corrected" then."""
    if not within:
        return mode
    if mode == "paper":
        raise BabelScopeError(
            f"the published definitions have no null within {' and '.join(within)}",
            "use --mode corrected, or leave out --within",
        )
    return "corrected"


def item_strata(
    store: "ActivationStore", members: Mapping[str, tuple[str, ...]], within: Sequence[str]
) -> dict[str, tuple[NDArray[np.int64], ...] | None]:
    """Group -> places of its items by equal values of the covariates `within`; None without covariates.

    Strata stand in the order of their first items, so that no number depends on what the values are called. An item
    that lacks a value is a stratum of its own.

    Raises
    ------
    BabelScopeError
        If a covariate is unknown, or no stratum of a group has the items that a null takes.
    """
    if not within:
        return dict.fromkeys(members)
    covariates = covariates_of(store, [item for items in members.values() for item in items], within)
    found: dict[str, tuple[NDArray[np.int64], ...] | None] = {}
    for group, items in members.items():
        strata: dict[object, list[int]] = {}
        for place, values in enumerate(covariates.loc[list(items)].itertuples(index=False, name=None)):
            strata.setdefault(place if any(map(pd.isna, values)) else values, []).append(place)
        if max(map(len, strata.values())) < SMALLEST_STRATUM:
            raise BabelScopeError(
                f"no {SMALLEST_STRATUM} items of group {group!r} share {' and '.join(within)}, so none has a null",
                "capture more items, or name fewer or coarser covariates with --within",
            )
        found[group] = tuple(np.array(places, dtype=np.int64) for places in strata.values())
    return found
