"""Similarities that belong to a whole set of items, turned into what the pair engine gives: scores per item, a null."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.estimates import Cells
from babelscope.analyses.metric import SetSimilarity
from babelscope.analyses.pairs import SMALLEST_STRATUM, language_pairs
from babelscope.analyses.statistics import MIN_ITEMS, mean_of_defined

# A set has to be compared anew under every shuffle, unlike a pair of items, whose shuffles are look-ups.
SET_PERMUTATIONS = 499


def set_cells(
    x: NDArray[np.generic], similarities: Sequence[SetSimilarity], permutations: NDArray[np.int32],
    strata: Sequence[NDArray[np.int64]] | None = None,
) -> Cells:  # fmt: skip
    """Cells of every language pair of one block.

    The part of item i in a value T is its jackknife pseudo-value, centered so that the mean over items is T itself:
    `T + (n - 1) (mean_j T_(j) - T_(i))`, where T_(i) leaves item i out. Their spread is that of T under resampling of
    items (Efron and Stein 1981, Annals of Statistics 9, 586-596), so that intervals, means over layers and contrasts
    of groups are computed as for pairs of items. The null is the mean of T under shuffled pairings.

    Items with a row that is not finite in some language, and items of strata that have no null, are left out of all
    pairs and are NaN.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    similarities : sequence of SetSimilarity
        One variant each.
    permutations : ndarray of int32
        (permutation, language, item), within the strata where these are given; the first `SET_PERMUTATIONS` serve.
    strata : sequence of ndarray of int64, optional
        Items of each stratum, every item once.
    """
    n_items = x.shape[1]
    usable = np.asarray(has_finite_rows(x).all(axis=0))
    for rows in strata or ():
        if len(rows) < SMALLEST_STRATUM:
            usable[rows] = False
    kept = np.flatnonzero(usable)
    orders = _orders(permutations[:SET_PERMUTATIONS], kept, strata or (np.arange(n_items),))
    pairs = language_pairs(len(x))
    shape = (len(similarities), len(pairs))
    scores, observed = np.full((*shape, n_items), np.nan), np.full(shape, np.nan)
    permuted = np.full((*shape, len(orders)), np.nan)
    for k, similarity in enumerate(similarities if len(kept) >= MIN_ITEMS else ()):
        prepared = [similarity.prepare(x[language][kept]) for language in range(len(x))]
        for pair, (a, b) in enumerate(pairs):
            value, without = similarity.compare(prepared[a], prepared[b])
            observed[k, pair] = value
            scores[k, pair, kept] = value + (len(kept) - 1) * (mean_of_defined(without) - without)
            permuted[k, pair] = similarity.shuffled(prepared[a], prepared[b], _beside(orders[:, a], orders[:, b]))
    gap = scores - mean_of_defined(permuted)[..., None]
    return Cells(scores, gap, ~np.isnan(gap), observed, permuted, {})


def _orders(
    permutations: NDArray[np.int32], kept: NDArray[np.int64], strata: Sequence[NDArray[np.int64]]
) -> NDArray[np.int32]:
    """Shuffles of all items as shuffles of the kept ones: those of a stratum in the order that their shuffle has."""
    place = np.full(permutations.shape[-1], -1, dtype=np.int32)
    place[kept] = np.arange(len(kept))
    orders = np.empty((*permutations.shape[:-1], len(kept)), dtype=np.int32)
    for rows in strata:
        members = rows[place[rows] >= 0]
        orders[..., place[members]] = place[members][permutations[..., members].argsort(axis=-1).argsort(axis=-1)]
    return orders


def _beside(of_a: NDArray[np.int32], of_b: NDArray[np.int32]) -> NDArray[np.int32]:
    """(permutation, item) twice -> which item of b stands beside each item of a."""
    order = np.empty_like(of_a)
    np.put_along_axis(order, of_a, of_b, axis=-1)
    return order
