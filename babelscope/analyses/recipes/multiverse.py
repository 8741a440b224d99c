"""How fragile a claim is: the share of all ways to analyze a store in which it holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from babelscope.analyses.covariates import covariates_of
from babelscope.analyses.metric import Metric
from babelscope.analyses.plan import chosen_metrics, default_metrics, tasks
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.runner import estimated
from babelscope.analyses.statistics import (
    ALPHA,
    EXPLAINED,
    MIN_ITEMS,
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    STABLE_SHARE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
    interval,
    permutation_p,
    share,
    stream,
)
from babelscope.analyses.study import Study
from babelscope.analyses.universes import ALL_ITEMS, Universe, Verdict, by_choice, curves, judged, universes
from babelscope.errors import BabelScopeError
from babelscope.schema import Position, Result

NULLS = ("template", "rule", "relation", "gold_letter")
# Of the parameters that a metric can be swept over: few values over a wide range.
GRIDS = {"threshold": (0.1, 0.2, 0.4, 0.8), "quantile": (0.5, 0.8, 0.9, 0.95), "top": (0.01, 0.05, 0.2)}


@dataclass(frozen=True, slots=True)
class Multiverse:
    """Every claim of an analysis in every universe: position, null, metric, mode, variant, threshold, site, band.

    Parameters
    ----------
    metrics : str
        Comma-separated names; "" for those that the store can feed.
    nulls : str
        Comma-separated covariates, each of which restricts the null by itself; "auto" for those of `NULLS` that vary.
    limit : int
        Most universes; of more, this many are drawn at random.
    """

    metrics: str = ""
    nulls: str = "auto"
    limit: int = 1000

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Multiverse",
        question="In which share of the possible analyses does each claim hold?",
        reads=(),
        needs_model=False,
        source="Steegen et al. 2016, Perspectives on Psychological Science 11, 702-712; specification curve: "
        "Simonsohn, Simmons and Nelson 2020, Nature Human Behaviour 4, 1208-1214",
    )

    def run(self, study: Study) -> list[Result]:
        """`multiverse` with one row per claim, then all universes as a specification curve, and shares by choice.

        Raises
        ------
        BabelScopeError
            If no metric can be fed, or the limit is not positive.
        """
        if self.limit < 1:
            raise BabelScopeError(f"limit={self.limit} leaves no universe", "give --set limit=100 or more")
        grid, chosen = self._universes(study)
        found, failed = list[Verdict](), dict[str, str]()
        calls = list(dict.fromkeys((u.position, u.null_level) for u in chosen))
        for done, (position, null) in enumerate(calls, start=1):
            wanted = [u for u in chosen if (u.position, u.null_level) == (position, null)]
            try:
                found += self._judged(study, wanted, position, null)
            except BabelScopeError as error:
                failed[f"{position}, {null}"] = error.problem
                study.note(f"multiverse at {position} over {null}: {error.problem}")
            study.progress(done, len(calls), f"multiverse {position} {null}")
        if not found:
            raise BabelScopeError(
                "no universe can be analyzed: " + "; ".join(failed.values()), "capture more items, or name other nulls"
            )
        table = pd.DataFrame([v.row for v in found])
        table["rank"] = table.groupby(["of_claim", "group"])["standardized"].rank(method="first").astype("Int64")
        about = {
            **study.provenance(), "title": self.info.title, "universes": len(grid), "universes_analyzed": len(chosen),
            "not_testable": failed, "limit": self.limit, **CONVENTIONS,
        }  # fmt: skip
        return [
            Result("multiverse", claims_table(_claims(table, found)), about),
            Result("multiverse_universes", table.sort_values(["of_claim", "group", "rank"], ignore_index=True), about),
            Result("multiverse_choices", by_choice(table), about),
        ]

    def _universes(self, study: Study) -> tuple[list[Universe], list[Universe]]:
        """All universes of the store, and those that the limit allows."""
        nulls, n_layers = [ALL_ITEMS, *self._nulls(study)], study.store.plan.model.n_layers
        grid: list[Universe] = []
        for position in (p for p in study.store.plan.positions if not p.ragged):
            metrics = self._metrics(study, position)
            work = tasks(study.store, metrics, study.sites, position, "both")
            sweep = _sweep(metrics)
            grid += universes(work, sweep, position=str(position), nulls=nulls, n_layers=n_layers)
        if len(grid) <= self.limit:
            return grid, grid
        drawn = stream(study.seed, "multiverse").choice(len(grid), self.limit, replace=False)
        return grid, [grid[k] for k in sorted(drawn)]

    def _metrics(self, study: Study, position: Position) -> dict[str, Metric]:
        names = [name.strip() for name in self.metrics.split(",") if name.strip()]
        if not names:
            names, _ = default_metrics(study.store, study.sites, position, "both")
        return chosen_metrics(names, {})

    def _nulls(self, study: Study) -> list[str]:
        if self.nulls != "auto":
            named = [name.strip() for name in self.nulls.split(",") if name.strip()]
            covariates_of(study.store, study.items, named)
            return named
        table = covariates_of(study.store, study.items, [n for n in NULLS if n in study.store.covariates])
        return [
            str(name)
            for name in table
            if any(table[name].loc[list(items)].nunique() > 1 for items in study.groups.values())
        ]

    def _judged(self, study: Study, wanted: Sequence[Universe], position: str, null: str) -> list[Verdict]:
        names = list(dict.fromkeys(u.metric for u in wanted))
        metrics = {name: m for name, m in self._metrics(study, Position.parse(position)).items() if name in names}
        found = estimated(
            study.store, list(metrics), sites=study.sites, languages=study.languages, position=position, by=study.by,
            within=[] if null == ALL_ITEMS else [null], sweep=_sweep(metrics), mode="both", marked="keep",
            seed=study.seed, n_boot=study.n_boot, n_perm=study.n_perm, jobs=study.jobs, progress=None,
            only=study.items,
        )  # fmt: skip
        weights, known = {g.name: g.resamples.weights for g in found.groups}, curves(found)
        n_layers = study.store.plan.model.n_layers
        return [
            verdict
            for u in wanted
            for verdict in judged(u, known[u.key], weights, n_layers=n_layers, n_perm=study.n_perm, seed=study.seed)
        ]


CONVENTIONS = {
    "estimate": "share of the universes in which the estimate is above zero; interval: percentile bootstrap over "
    "items, the same ones in all universes, 95%",
    "null_of_share": "0.5: a sign by chance",
    "stability": "share of the universes whose interval is above zero",
    "p": "of the median over universes of the gap in standard deviations of its shuffles, the same shuffles in all "
    "universes of a null; the largest p over the nulls",
    "verdict": f"supported: under every null at least {STABLE_SHARE:.0%} of the universes agree, and p < {ALPHA} where "
    "there is one; explained by template or letter: they do over all items alone; depends on the threshold: some agree",
}


def _sweep(metrics: Mapping[str, Metric]) -> dict[str, tuple[float, ...]]:
    known = {name for metric in metrics.values() for name in metric.info.sweepable}
    return {name: values for name, values in GRIDS.items() if name in known}


def _claims(table: pd.DataFrame, found: Sequence[Verdict]) -> list[dict[str, Any]]:
    rows = []
    for (claim, group), part in table.groupby(["of_claim", "group"], sort=False):
        testable = part[part["testable"]]
        place = {"claim": claim, "group": group, "language_a": "*", "language_b": "*", "null": 0.5}
        if testable.empty or testable["n"].max() < MIN_ITEMS:
            rows.append({**place, "n": 0, "verdict": NOT_TESTABLE})
            continue
        signs = np.stack([found[k].signs for k in testable.index])
        shares = share((signs == 1).sum(axis=0), (signs >= 0).sum(axis=0))
        low, high = interval(shares, 0.95)
        p = _curve_p(testable, found)
        rows.append(
            {**place, "n": int(testable["n"].max()), "estimate": testable["same_sign"].mean(), "low": float(low),
             "high": float(high), "p": p, "stability": testable["agrees"].mean(), "verdict": _verdict(testable, p)}
        )  # fmt: skip
    return rows


def _curve_p(part: pd.DataFrame, found: Sequence[Verdict]) -> float:
    """The largest p over the nulls of the median gap over universes; NaN for claims without shuffles."""
    values = []
    for _, universes_of in part.groupby("null_level"):
        z = [found[k].z for k in universes_of.index if len(found[k].z)]
        if not z:
            return float("nan")
        # Joint overlaps have fewer shuffles, which are the first of those of the others.
        fewest = min(map(len, z))
        median = np.nanmedian(np.stack([x[:fewest] for x in z]), axis=0)
        values.append(float(permutation_p(median[0], median[1:])))
    return max(values)


def _verdict(part: pd.DataFrame, p: float) -> str:
    agrees = part.groupby("null_level")["agrees"].mean()
    if (agrees >= STABLE_SHARE).all() and not p >= ALPHA:
        return SUPPORTED
    if agrees.get(ALL_ITEMS, 0.0) >= STABLE_SHARE:
        return EXPLAINED
    return THRESHOLD_DEPENDENT if part["agrees"].any() else NOT_DISTINGUISHABLE


recipe = Multiverse()
