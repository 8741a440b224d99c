"""The slope of accuracy, and of transfer, along a dial, in every language."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.curves import FEWEST_VALUES, dial_of, spoken
from babelscope.analyses.behavior.scorings import scored
from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    permutation_p,
    share,
    stream,
    verdicts,
)
from babelscope.schema import Result

# Covariate that names the items which are one question at several values of a dial.
QUESTION = "question"

TREND_COLUMNS = (
    "dial", "measure", "language", "source", "n", "n_questions", "n_values", "slope", "low", "high", "null",
    "spearman", "spearman_low", "spearman_high", "p", "q", "verdict",
)  # fmt: skip


def trend(
    store: ActivationStore,
    dial: str,
    source: str = "en",
    *,
    languages: Sequence[str] | None = None,
    scoring: str = "labels",
    n_boot: int = 2000,
    n_perm: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """How accuracy, and the excess of XLTR, change with a dial: the slope in every language.

    The slope is that of least squares over items, in units of the measure per unit of the dial; that of the excess is
    weighted by the items of each value. Where items are one question at several values (the covariate `question`),
    the interval resamples questions, each with all its items, and p shuffles the values within questions; elsewhere
    items are resampled and values shuffled between all of them. All languages and measures share the draws.

    Returns
    -------
    Result
        One row per measure (`accuracy`, `excess`) and language. `spearman` is the rank correlation of the measure's
        values with those of the dial, 1 where it rises from each to the next, with an interval from the same
        resamples. p is that of the slope, two-sided by the add-one rule, q Benjamini-Hochberg over the languages of a
        measure. Slopes need three values; NaN where a value of the measure is undefined.

    Raises
    ------
    BabelScopeError
        As `dial_of` and `accuracy` do.
    """
    values = dial_of(store, dial)
    answers = spoken(scored(store, scoring), source, languages)
    correct = answers.pivot(index="language", columns="item", values="correct")
    items = [i for i in correct.columns if not np.isnan(values.get(i, np.nan))]
    correct = correct.reindex([g for g in store.languages if g in correct.index])[items]
    blocks = _questions(store, items)
    draws = dial_draws(np.asarray(values[items], dtype=np.float64), blocks, n_boot, n_perm, stream(seed, "trend", dial))
    each = dict(zip(correct.index, correct.to_numpy(float), strict=True))
    chance = float((1 / answers.drop_duplicates("item").set_index("item")["n_options"].reindex(items)).mean())
    rows = []
    for measure in ("accuracy", "excess"):
        for language, right in each.items():
            if measure == "excess" and (source not in each or language == source):
                continue
            other = None if measure == "accuracy" else each[source]
            known = ~np.isnan(right) & (True if other is None else ~np.isnan(other))
            place = {"dial": dial, "measure": measure, "language": language, "source": source, "null": 0.0}
            counts = {"n": int(known.sum()), "n_questions": len(np.unique(blocks[known]))}
            rows.append({**place, **counts, **slope_cells(right, other, chance, draws, level)})
    table = pd.DataFrame(rows)
    table["q"] = table.groupby("measure")["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["slope"], table["low"], table["high"], table["q"], table["n_questions"])
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "dial": dial, "source": source,
        "scoring": scoring, "seed": seed, "n_boot": n_boot, "n_perm": n_perm, "linked": draws.linked,
        "unit": "question" if draws.linked else "item", "null": "0: no change along the dial",
        "interval": f"bootstrap over {'questions' if draws.linked else 'items'}, {100 * level:g} %",
        "p": f"values of the dial shuffled {'within questions' if draws.linked else 'between items'}, two-sided",
        "q": "Benjamini-Hochberg over the languages of a measure",
    }  # fmt: skip
    return Result("trend", table[list(TREND_COLUMNS)], about)


class DialDraws(NamedTuple):
    """Observed, resampled and relabeled items: indicators are (value, draw or 1, item)."""

    levels: Floats
    observed: Floats
    resampled: Floats  # (draw, item)
    shuffled: NDArray[np.int64]  # (permutation, item): place of the value that an item gets
    linked: bool


def _questions(store: ActivationStore, items: list[str]) -> NDArray[np.int64]:
    """Number of the question of each item; every item its own without the covariate."""
    if QUESTION not in store.covariates:
        return np.arange(len(items))
    named = store.covariates[QUESTION].reindex(items)
    names = named.astype(object).where(named.notna(), pd.Series(items, index=items))
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def dial_draws(
    values: Floats, blocks: NDArray[np.int64], n_boot: int, n_perm: int, rng: np.random.Generator
) -> DialDraws:
    """Resamples of questions, and shuffles of the dial within them, for the items of a dial.

    Parameters
    ----------
    values : ndarray
        (item,): value of the dial.
    blocks : ndarray of int64
        (item,): number of the question of each item, from 0. Where no question has two values, items are shuffled
        among all.
    """
    levels, places = np.unique(values, return_inverse=True)
    n_blocks = int(blocks.max()) + 1
    members = [np.flatnonzero(blocks == k) for k in range(n_blocks)]
    linked = any(len(np.unique(places[m])) > 1 for m in members)
    resampled = bootstrap_weights(n_blocks, n_boot, rng)[:, blocks]
    shuffled = np.broadcast_to(places, (n_perm, len(places))).copy()
    for m in members if linked else [np.arange(len(places))]:
        if len(m) > 1:
            shuffled[:, m] = rng.permuted(shuffled[:, m], axis=1)
    observed = (places == np.arange(len(levels))[:, None]).astype(np.float64)
    return DialDraws(levels, observed, resampled, shuffled, linked)


def slope_cells(right: Floats, other: Floats | None, chance: float, draws: DialDraws, level: float) -> dict[str, Any]:
    """Slope of being right, (item,) with NaN where unknown, or with `other` of the excess of XLTR from it."""

    def sums(of: Floats) -> tuple[Floats, Floats, Floats]:
        """Of `of` (item,) over the items of each value: observed, resampled and shuffled, (value, draw)."""
        shuffled = np.stack([(draws.shuffled == v) @ of for v in range(len(draws.levels))])
        return draws.observed @ of[:, None], draws.observed @ (draws.resampled * of).T, shuffled

    known = ~np.isnan(right) & (True if other is None else ~np.isnan(other))
    b = np.where(known, right, 0.0)
    counts, hits = sums(known.astype(np.float64)), sums(b)
    if other is None:
        found = [share(h, n) for h, n in zip(hits, counts, strict=True)]
    else:
        a = np.where(known, other, 0.0)
        # The terms of chance cancel in XLTR minus its null, up to the factor.
        found = [
            (share(ab, of_a) - share(h, n)) / (1 - chance)
            for ab, of_a, h, n in zip(sums(a * b), sums(a), hits, counts, strict=True)
        ]
    observed, resampled, shuffled = (weighted_slope(draws.levels, y, n) for y, n in zip(found, counts, strict=True))
    low, high = interval(resampled[None], level)
    slope = float(observed[0])
    orders = [_monotonicity(draws.levels, y) for y in found[:2]]
    (first,), (last,) = interval(orders[1][None], level)
    return {
        "n_values": len(draws.levels), "slope": slope, "low": float(low[0]), "high": float(high[0]),
        "spearman": float(orders[0][0]), "spearman_low": float(first), "spearman_high": float(last),
        "p": float(permutation_p(np.array(abs(slope)), np.abs(shuffled))),
    }  # fmt: skip


def weighted_slope(levels: Floats, y: Floats, weights: Floats) -> Floats:
    """Slope of y over levels by least squares with weights, y and weights (level, draw).

    With the number of items as weights and their mean as y, it is the slope over items. NaN where a y that has weight
    is undefined, and below three levels with weight.
    """
    weights = np.broadcast_to(weights, y.shape)
    total = weights.sum(axis=0)
    center = share((weights * levels[:, None]).sum(axis=0), total)
    away = levels[:, None] - center
    filled = np.where(weights > 0, y, 0.0)
    slope = share((weights * away * filled).sum(axis=0), (weights * away**2).sum(axis=0))
    return np.where((weights > 0).sum(axis=0) < FEWEST_VALUES, np.nan, slope)


def _monotonicity(levels: Floats, y: Floats) -> Floats:
    """Spearman's correlation of levels and y (level, draw), (draw,); NaN where a y is undefined or all are equal."""
    ranks = stats.rankdata(y, axis=0)
    away, of_levels = ranks - ranks.mean(axis=0), stats.rankdata(levels) - (len(levels) + 1) / 2
    found = share(of_levels @ away, np.sqrt((of_levels**2).sum() * (away**2).sum(axis=0)))
    return np.where(np.isnan(y).any(axis=0), np.nan, found)
