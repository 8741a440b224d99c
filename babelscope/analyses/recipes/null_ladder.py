"""How much of a similarity is the prompt: its gap over nulls that come closer and closer to the item."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from babelscope.analyses.covariates import LENGTH_BIN, covariates_of
from babelscope.analyses.pairs import SMALLEST_STRATUM
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.runner import Estimated, estimated
from babelscope.analyses.statistics import (
    EXPLAINED,
    NOT_TESTABLE,
    SUPPORTED,
    Floats,
    benjamini_hochberg,
    interval,
    mean_of_defined,
    resampled_means,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.analyses.tables import Estimates
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

# From the outside to the inside: what the instruction is, which rule or relation is asked for, the letter, the length.
LADDER = ("template", "task", "relation", "rule", "gold_letter", LENGTH_BIN)
FREE = "all items"


@dataclass(frozen=True, slots=True)
class NullLadder:
    """The gap of every metric over mismatched items of the group, then of those that share more and more covariates.

    Parameters
    ----------
    metrics : str
        Comma-separated names; "" for those that the store can feed.
    within : str
        Comma-separated covariates in the order in which the rungs add them; "auto" for those of `LADDER` that vary.
    """

    metrics: str = ""
    within: str = "auto"

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Null ladder",
        question="How much of a similarity is left over items of the same template, rule, letter and length?",
        reads=(),
        needs_model=False,
        source="restricted permutation nulls, as in docs/metrics/cs.md",
    )

    def run(self, study: Study) -> list[Result]:
        """`null_ladder`: for every metric, variant, site and group a row per rung, and a row for what it explains."""
        rungs = self._rungs(study)
        found: dict[str, Estimated | str] = {}
        for number in range(len(rungs) + 1):
            name = " + ".join(rungs[:number]) or FREE
            try:
                found[name] = self._estimated(study, rungs[:number])
            except BabelScopeError as error:
                if not number:
                    raise
                found[name] = error.problem
                study.note(f"rung {name}: {error.problem}")
        rows = list(_rows(found))
        table = claims_table(rows)
        about = {
            **study.provenance(), "title": self.info.title, "rungs": list(found),
            "not_testable": {name: why for name, why in found.items() if isinstance(why, str)},
            "null": "mismatched items of the same group and equal values of the covariates of the rung",
            "explained": "1 - gap of the rung / gap over all items, over the items that have a null in both; interval: "
            "percentile bootstrap over items, 95%",
            "q": "Benjamini-Hochberg over all metrics, sites and groups of a rung",
        }  # fmt: skip
        return [Result("null_ladder", table, about)]

    def _rungs(self, study: Study) -> list[str]:
        if self.within != "auto":
            rungs = [name.strip() for name in self.within.split(",") if name.strip()]
            covariates_of(study.store, study.items, rungs)
            return rungs
        known = [name for name in LADDER if name in {*study.store.covariates, LENGTH_BIN}]
        table = covariates_of(study.store, study.items, known)
        varying = [
            name for name in known if any(table.loc[list(items), name].nunique() > 1 for items in study.groups.values())
        ]
        # Two covariates that sort the items alike make one rung.
        return [n for k, n in enumerate(varying) if not any(_same(table[n], table[m]) for m in varying[:k])]

    def _estimated(self, study: Study, within: list[str]) -> Estimated:
        metrics = [name.strip() for name in self.metrics.split(",") if name.strip()] or None
        return estimated(
            study.store, metrics, sites=study.sites, languages=study.languages, position=str(study.position),
            by=study.by, within=within, sweep=None, mode="corrected", marked="keep", seed=study.seed,
            n_boot=study.n_boot, n_perm=study.n_perm, jobs=study.jobs, progress=study.progress, only=study.items,
        )  # fmt: skip


def _same(a: pd.Series, b: pd.Series) -> bool:
    return bool((a.groupby(b).nunique() <= 1).all() and (b.groupby(a).nunique() <= 1).all())


def _rows(found: Mapping[str, Estimated | str]) -> Iterator[dict[str, Any]]:
    free = found[FREE]
    assert not isinstance(free, str), "the first rung raises"
    base = {_key(e): e for estimates in free.estimates.values() for e in estimates if e.layer is None}
    weights = {group.name: group.resamples.weights for group in free.groups}
    established = {}
    parts: list[dict[str, Any]] = []
    for name, rung in found.items():
        if isinstance(rung, str):
            yield from ({**_place(e, k, f"gap over {name}"), "n": 0, "verdict": NOT_TESTABLE} for e, k in _cells(base))
            continue
        own = {_key(e): e for estimates in rung.estimates.values() for e in estimates if e.layer is None}
        rows = pd.DataFrame([_gap(e, k, f"gap over {name}") for e, k in _cells(own)])
        rows["q"] = benjamini_hochberg(rows["p"])
        rows["verdict"] = verdicts(rows["estimate"], rows["low"], rows["high"], rows["q"], rows["n"])
        is_first = name == FREE
        if is_first:
            established = dict(zip(_cells_named(own), rows["verdict"], strict=True))
        else:
            before = pd.Series([established[cell] for cell in _cells_named(own)], index=rows.index)
            parts = [_explained(base[_key(e)], e, k, weights[e.group], f"explained by {name}") for e, k in _cells(own)]
            lost = (before == SUPPORTED) & ~rows["verdict"].isin([SUPPORTED, NOT_TESTABLE])
            # A gap that is as large as before over fewer items has lost its items and nothing else.
            lost &= np.array([part["low"] > 0 for part in parts])
            rows.loc[lost, "verdict"] = EXPLAINED
        yield from ({str(c): v for c, v in row.items()} for row in rows.to_dict("records"))
        if not is_first:
            yield from parts


def _key(e: Estimates) -> tuple[object, ...]:
    return e.metric, e.site, e.group, e.measured


def _cells(estimates: Mapping[tuple[object, ...], Estimates]) -> Iterator[tuple[Estimates, int]]:
    return ((e, k) for e in estimates.values() for k in range(len(e.variants)))


def _cells_named(estimates: Mapping[tuple[object, ...], Estimates]) -> list[tuple[object, ...]]:
    return [(*_key(e), k) for e, k in _cells(estimates)]


def _place(e: Estimates, k: int, claim: str) -> dict[str, Any]:
    variant, threshold = e.variants[k]
    named = f"{e.metric} {variant}" + ("" if np.isnan(threshold) else f" {threshold:g}")
    return {"claim": f"{named}: {claim}", "group": e.group, "site": e.site, "language_a": "*", "language_b": "*"}


def _gap(e: Estimates, k: int, claim: str) -> dict[str, Any]:
    own = {name: e.columns[name][k, -1] for name in ("n", "gap", "gap_low", "gap_high", "p")}
    return {
        **_place(e, k, claim), "n": own["n"], "estimate": own["gap"], "low": own["gap_low"], "high": own["gap_high"],
        "null": 0.0, "p": own["p"],
    }  # fmt: skip


def _explained(base: Estimates, rung: Estimates, k: int, weights: Floats, claim: str) -> dict[str, Any]:
    inside = rung.gap_items[k]
    outside = np.where(np.isnan(inside), np.nan, base.gap_items[k])
    inside = np.where(np.isnan(outside), np.nan, inside)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = 1 - resampled_means(inside, weights) / resampled_means(outside, weights)
        explained = 1 - mean_of_defined(inside) / mean_of_defined(outside)
    low, high = interval(drawn, 0.95)
    n = int(np.count_nonzero(~np.isnan(inside)))
    enough = n >= SMALLEST_STRATUM and base.columns["gap_low"][k, -1] > 0
    # A share of a gap that may be zero says nothing.
    values = (explained, low, high) if enough else (np.nan, np.nan, np.nan)
    return {
        **_place(rung, k, claim), "n": n, **dict(zip(("estimate", "low", "high"), map(float, values), strict=True)),
        "null": 0.0, "verdict": "" if enough else NOT_TESTABLE,
    }  # fmt: skip


recipe = NullLadder()
