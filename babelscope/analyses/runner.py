"""`analyze`: metrics of a store, one (site, layer) block in memory at a time."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.estimates import LEVELS
from babelscope.analyses.joint import mismatched_draws
from babelscope.analyses.metric import Metric
from babelscope.analyses.pairs import SMALLEST_STRATUM
from babelscope.analyses.plan import (
    Marked,
    Mode,
    Task,
    allowed_mode,
    chosen_metrics,
    chosen_position,
    default_metrics,
    grouping,
    item_groups,
    item_strata,
    tasks,
    unmarked,
)
from babelscope.analyses.scoring import (
    JOINT_NULL_DRAWS,
    JOINT_PERMUTATIONS,
    Group,
    LayerScores,
    SiteScores,
    score_layer,
)
from babelscope.analyses.statistics import ALPHA, STABLE_SHARE, resample, stream
from babelscope.analyses.sweeps import contrast_summary, sweep_summary
from babelscope.analyses.tables import Estimates, contrast_table, tidy_table
from babelscope.errors import BabelScopeError
from babelscope.schema import Position, Result

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore

Progress = Callable[[int, int, str], None]


def analyze(
    store: "ActivationStore",
    metrics: Sequence[str | Metric] | None = None,
    *,
    sites: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    position: str | None = None,
    by: str | None = "auto",
    within: Sequence[str] = (),
    sweep: Mapping[str, Sequence[float]] | None = None,
    mode: Mode = "both",
    marked: Marked = "refuse",
    seed: int = 0,
    n_boot: int = 2000,
    n_perm: int = 2000,
    jobs: int = 1,
    progress: Progress | None = None,
) -> list[Result]:
    """Metrics of a store, every value beside its null, interval, number of items and corrected p.

    Parameters
    ----------
    store : ActivationStore
    metrics : sequence of str or Metric, optional
        Names of metrics, or metrics with parameters of their own. Default: cs and nao, as far as the sites can feed
        them; provenance says which was left out and why.
    sites : sequence of str, optional
        Site expressions such as `mlp.act@0:4`. Default: every stored site that a metric reads.
    languages : sequence of str, optional
        At least two. Default: all.
    position : str, optional
        Default: `last` where it was captured.
    by : str or None
        Item covariate that forms the groups; "auto" takes `demand` where it varies. Null, permutations and
        bootstrap stay within a group.
    within : sequence of str
        Item covariates, as `rule` or `gold`: the null and the permutations of an item are restricted to mismatched
        items of its group with the same values. Corrected definitions only.
    sweep : mapping, optional
        Parameter -> values; metrics without the parameter ignore it.
    mode : {"corrected", "paper", "both"}
        "both" gives the published definition where the store holds its site and position, and no covariate
        restricts the null.
    marked : {"refuse", "drop", "keep"}
        What happens to items that hold a value that was clipped or is not finite.
    seed : int
        With the names of groups and languages it decides every resample; neither the order of items nor `jobs` does.
    n_boot, n_perm : int
        Bootstrap resamples and permutations.
    jobs : int
        Worker processes, through joblib.
    progress : callable, optional
        Called with (done, total, what).

    Returns
    -------
    list of Result
        One per metric, named as the metric; then `contrast` where there are several groups, and `sweep_summary`
        where something was swept.

    Raises
    ------
    BabelScopeError
        For unknown names, a site that was not captured, fewer than two languages or four items, a null that is
        restricted so far that no item has one, or in "paper" mode at all.
    """
    found = estimated(
        store, metrics, sites=sites, languages=languages, position=position, by=by, within=within, sweep=sweep,
        mode=mode, marked=marked, seed=seed, n_boot=n_boot, n_perm=n_perm, jobs=jobs, progress=progress,
    )  # fmt: skip
    return _results(found)


@dataclass(frozen=True, slots=True)
class Estimated:
    """Everything that was estimated of a store, and how, before it becomes tables."""

    metrics: Mapping[str, Metric]
    estimates: Mapping[str, list[Estimates]]
    groups: tuple[Group, ...]
    provenance: Mapping[str, Any]


def estimated(
    store: "ActivationStore", metrics: Sequence[str | Metric] | None, *, sites: Sequence[str] | None,
    languages: Sequence[str] | None, position: str | None, by: str | None, within: Sequence[str],
    sweep: Mapping[str, Sequence[float]] | None, mode: Mode, marked: Marked, seed: int, n_boot: int, n_perm: int,
    jobs: int, progress: Progress | None, only: Sequence[str] | None = None,
) -> Estimated:  # fmt: skip
    """What `analyze` puts into tables; `only` names the items that may count, in their order."""
    within = tuple(dict.fromkeys(within))
    mode = allowed_mode(mode, within)
    grids = {name: tuple(float(v) for v in values) for name, values in (sweep or {}).items()}
    at = chosen_position(store, position)
    left_out: dict[str, str] = {}
    if metrics is None:
        metrics, left_out = default_metrics(store, sites, at, mode)
    chosen = chosen_metrics(metrics, grids)
    work = tasks(store, chosen, sites, at, mode)
    spoken = tuple(dict.fromkeys(languages)) if languages is not None else tuple(store.languages)
    if len(spoken) < 2:
        raise BabelScopeError("one language cannot be compared", "name at least two, as --languages en,de")
    common = store.select(str(work[0].site), languages=spoken, position=str(at)).items
    items = unmarked(store, common, spoken, marked)
    if only is not None:
        kept = set(items)
        items = tuple(item for item in only if item in kept)
    by = grouping(store, items, by)
    members = item_groups(store, items, by)
    strata = item_strata(store, members, within)
    groups, read = _groups(members, strata, spoken, seed=seed, n_boot=n_boot, n_perm=n_perm)
    found: dict[str, list[Estimates]] = {name: [] for name in chosen}
    scores = _scored(store, work, spoken, read, groups, at, grids, jobs)
    running: dict[tuple[str, str, str], SiteScores] = {}
    for done, (task, layer) in enumerate(zip(work, scores, strict=True), start=1):
        for group in layer:
            found[task.name] += group.estimates
            running.setdefault((task.name, task.site.name, group.group), SiteScores(task)).add(group, grids)
        if progress is not None:
            progress(done, len(work), f"analyze {task.name} {task.site}")
    by_name = {g.name: g for g in groups}
    for (name, _, group_name), site_scores in running.items():
        found[name] += site_scores.overall(spoken, by_name[group_name], grids)
    provenance = {
        "store": store.fingerprint, "version": version("babelscope"), "seed": seed, "n_boot": n_boot, "n_perm": n_perm,
        "languages": spoken, "groups": {g.name: len(g.rows) for g in groups}, "by": by, "within": within,
        "position": str(at), "sites": sorted({str(t.site) for t in work}), "sweep": grids, "mode": mode,
        "items_left_out": len(store.items) - len(common), "items_marked": len(common) - len(items), "marked": marked,
        "items_without_group": len(items) - len(read),
        "items_without_null": sum(len(s) for g in groups for s in g.strata or () if len(s) < SMALLEST_STRATUM),
        "metrics_left_out": left_out, **CONVENTIONS, **_restricted(within),
    }  # fmt: skip
    return Estimated(chosen, found, groups, provenance)


CONVENTIONS: Mapping[str, Any] = {
    "unit": "item",
    "interval": {mode: f"percentile bootstrap over items, {level:.0%}" for mode, level in LEVELS.items()},
    "null": "mismatched items of the same group, in the same two languages",
    "p": "items of each language shuffled, alike for all layers, sites, metrics, thresholds; add-one rule; one-sided",
    "q": "Benjamini-Hochberg within one metric, mode and threshold: means over layers and pairs over all variants, "
    "sites and groups; every other row over the layers x pairs of its variant, site and group; contrasts over all "
    "pairs of groups",
    "joint": f"{JOINT_PERMUTATIONS} shuffles and {JOINT_NULL_DRAWS} mismatched joins at most, in paper mode",
    "verdict": f"supported: q < {ALPHA} and an interval without zero; "
    f"of a sweep, on at least {STABLE_SHARE:.0%} of the grid",
    "left_out": "items_left_out: items that a language lacks; "
    "items_marked: items dropped for a value that was clipped or not finite; "
    "items_without_group: items without a value of the covariate `by`; "
    f"items_without_null: items of strata (equal values of `within`) smaller than {SMALLEST_STRATUM}",
    "n_undefined": "items with an undefined value; in rows over pairs or layers, with any undefined part",
}


def _restricted(within: Sequence[str]) -> Mapping[str, str]:
    """Conventions that read otherwise where covariates restrict the null."""
    if not within:
        return {}
    names = " and ".join(within)
    return {
        "null": f"mismatched items of the same group and {names}, in the same two languages",
        "p": f"{CONVENTIONS['p']}; shuffled among items of the same {names}",
        "n_undefined": f"{CONVENTIONS['n_undefined']}; items_without_null are among them",
    }


def _groups(
    members: Mapping[str, tuple[str, ...]], strata: Mapping[str, tuple[NDArray[np.int64], ...] | None],
    languages: tuple[str, ...], *, seed: int, n_boot: int, n_perm: int,
) -> tuple[tuple[Group, ...], tuple[str, ...]]:  # fmt: skip
    """Groups with their resamples, and the items to read, in the order of the groups."""
    groups, start = [], 0
    for name, items in members.items():
        n = len(items)
        resamples = resample(n, languages, seed=seed, group=name, n_boot=n_boot, n_perm=n_perm, strata=strata[name])
        true = np.broadcast_to(np.arange(n, dtype=np.int32), (1, len(languages), n))
        mismatched = mismatched_draws(n, len(languages), JOINT_NULL_DRAWS, stream(seed, "mismatched", name))
        draws = np.concatenate([true, mismatched, resamples.permutations[:JOINT_PERMUTATIONS]])
        groups.append(Group(name, np.arange(start, start + n), resamples, draws, strata[name]))
        start += n
    return tuple(groups), tuple(item for items in members.values() for item in items)


def _scored(
    store: "ActivationStore", work: Sequence[Task], languages: tuple[str, ...], items: tuple[str, ...],
    groups: tuple[Group, ...], position: Position, sweep: Mapping[str, tuple[float, ...]], jobs: int,
) -> Iterator[list[LayerScores]]:  # fmt: skip
    """Scores of every task in order. Blocks are read here, as many at a time as there are workers to feed."""

    def calls() -> Iterator[Any]:
        for task in work:
            block = store.select(str(task.site), languages=languages, items=items, position=str(position)).numpy()
            kept = 3 if task.metric.info.per_head else 2
            rows = block.reshape(*block.shape[:kept], math.prod(block.shape[kept:]))
            yield joblib.delayed(score_layer)(task, rows, languages, groups, sweep)

    # Threads share the blocks and release the lock where the time goes (products, sorts, look-ups); a backend chosen
    # with joblib.parallel_config takes precedence.
    parallel = joblib.Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="n_jobs", prefer="threads")
    scored: Iterator[list[LayerScores]] = parallel(calls())
    return scored


def _results(what: Estimated) -> list[Result]:
    chosen, found, groups, provenance = what.metrics, what.estimates, what.groups, what.provenance
    position, results, swept = str(provenance["position"]), list[Result](), bool(provenance["sweep"])
    for name, metric in chosen.items():
        about = {
            "metric": name, "title": metric.info.title, "units": metric.info.units, "source": metric.info.source,
            "range": [bound if math.isfinite(bound) else None for bound in (metric.info.low, metric.info.high)],
            "parameters": repr(metric),
        }  # fmt: skip
        results.append(Result(name, tidy_table(found[name], position), {**about, **provenance}))
    contrasts = None
    if len(groups) > 1:
        contrasts = contrast_table(
            [e for estimates in found.values() for e in estimates], {g.name: g.resamples.weights for g in groups},
            position=position, n_perm=int(provenance["n_perm"]), seed=int(provenance["seed"]),
        )  # fmt: skip
        about = {
            "definition": "mean gap of group_a minus mean gap of group_b, each over its own null",
            "contrast_p": "studentized permutation of group labels, two-sided, add-one rule",
        }
        results.append(Result("contrast", contrasts, {**about, **provenance}))
    if swept:
        parts = [sweep_summary(r.table) for r in results[: len(chosen)]]
        if contrasts is not None:
            parts.append(contrast_summary(contrasts))
        parts = [p for p in parts if len(p)]
        if parts:
            results.append(Result("sweep_summary", pd.concat(parts, ignore_index=True), dict(provenance)))
    return results
