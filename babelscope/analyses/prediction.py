"""How well a number per item predicts whether the item is answered correctly, within a language and across pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.statistics import MIN_ITEMS, Floats, interval, mean_of_defined, permutation_p, share

LEVEL = 0.95


def rank_biserial(values: Floats, right: Floats, wrong: Floats) -> Floats:
    """How often an item that is right has the higher value than one that is wrong, minus how often the lower one.

    Cureton (1956), Psychometrika 21, 287-290; twice the area under the ROC curve, minus one. Ties count for neither.

    Parameters
    ----------
    values : ndarray
        (item,), NaN where undefined: such items do not count.
    right, wrong : ndarray
        (draw, item): how often each item counts as right, and as wrong.

    Returns
    -------
    ndarray
        (draw,); NaN where nothing is right or nothing is wrong.
    """
    defined = np.flatnonzero(~np.isnan(values))
    order = defined[np.argsort(values[defined], kind="stable")]
    ordered, right, wrong = values[order], right[:, order], wrong[:, order]
    # (draw, item + 1): wrong items before each place in the order, where ties begin and end alike.
    before = np.concatenate([np.zeros((len(wrong), 1)), np.cumsum(wrong, axis=1)], axis=1)
    starts, ends = (np.searchsorted(ordered, ordered, side=side) for side in ("left", "right"))
    total = before[:, -1]
    higher = before[:, starts] - (total[:, None] - before[:, ends])
    return share((right * higher).sum(axis=1), right.sum(axis=1) * total)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The correlation within each language, and their mean.

    Parameters
    ----------
    each, each_low, each_high : ndarray
        (language,): rank-biserial correlation and its interval over items; NaN below four items that are right, or
        wrong.
    n, n_right : ndarray of int64
        (language,): items with a value and an answer, and those of them that are right.
    estimate, low, high, p : float
        Of the mean over languages.
    permuted : ndarray
        (permutation,): the mean when outcomes are shuffled.
    """

    each: Floats
    each_low: Floats
    each_high: Floats
    n: NDArray[np.int64]
    n_right: NDArray[np.int64]
    estimate: float
    low: float
    high: float
    p: float
    permuted: Floats


def predicted(values: Floats, outcome: Floats, weights: Floats, order: NDArray[np.int32]) -> Prediction:
    """Rank-biserial correlation of values and outcomes over the items of each language, averaged over languages.

    What is different between languages cancels. Bootstraps and shuffles take whole items, in all languages at once: an
    item that is hard in one language is hard in the next, so languages are no independent repetitions. p is two-sided.

    Parameters
    ----------
    values, outcome : ndarray
        (language, item); outcomes are 1, 0, or NaN where unknown.
    weights : ndarray
        (resample, item).
    order : ndarray of int32
        (permutation, item): whose outcomes each item gets.
    """
    counts = ~np.isnan(values) & ~np.isnan(outcome)
    right = np.where(counts & (outcome == 1), 1.0, 0.0)
    wrong = np.where(counts & (outcome == 0), 1.0, 0.0)
    n_right, n_wrong = right.sum(axis=1), wrong.sum(axis=1)
    # Known outcomes are shuffled as they are, those of items without a value included.
    known = [np.where(outcome == side, 1.0, 0.0) for side in (1, 0)]
    languages = np.flatnonzero((n_right >= MIN_ITEMS) & (n_wrong >= MIN_ITEMS))
    each = np.full(len(values), np.nan)
    drawn, shuffled = (np.full((len(values), len(x)), np.nan) for x in (weights, order))
    for k in languages:
        each[k] = rank_biserial(values[k], right[k][None], wrong[k][None])[0]
        drawn[k] = rank_biserial(values[k], weights * right[k], weights * wrong[k])
        shuffled[k] = rank_biserial(values[k], known[0][k][order], known[1][k][order])
    each_low, each_high = interval(drawn, LEVEL)
    low, high = interval(mean_of_defined(drawn, axis=0), LEVEL)
    permuted = mean_of_defined(shuffled, axis=0)
    estimate = float(mean_of_defined(each))
    p = float(permutation_p(np.array(abs(estimate)), np.abs(permuted)))
    return Prediction(
        each, each_low, each_high, counts.sum(axis=1), n_right.astype(np.int64), estimate, float(low), float(high), p,
        permuted,
    )  # fmt: skip


def outcomes(correct: Floats, source: int | None) -> tuple[Floats, NDArray[np.int64]]:
    """What is to be predicted, (language, item), and the items on which it is known.

    Parameters
    ----------
    correct : ndarray
        (language, item): 1, 0, or NaN.
    source : int or None
        Transfer from this language: only its right items count, and the language itself is unknown. None for plain
        correctness.
    """
    if source is None:
        return correct, np.arange(correct.shape[1])
    items = np.flatnonzero(correct[source] == 1)
    found = correct[:, items].copy()
    found[source] = np.nan
    return found, items


def pair_outcomes(correct: Floats, pairs: Sequence[tuple[int, int]], *, transfer: bool) -> Floats:
    """Behavior of language pairs, (pair,): mean accuracy, or the mean over both directions of P(right | right there).

    NaN where a language has no answers, or nothing right to transfer.
    """
    found = np.full(len(pairs), np.nan)
    for k, (a, b) in enumerate(pairs):
        both = ~np.isnan(correct[a]) & ~np.isnan(correct[b])
        x, y = correct[a, both], correct[b, both]
        if transfer:
            found[k] = share((x * y).sum(), x.sum()) / 2 + share((x * y).sum(), y.sum()) / 2
        else:
            found[k] = mean_of_defined(np.concatenate([x, y]))
    return found
