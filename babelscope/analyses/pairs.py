"""The pair engine: everything that one (item, item) similarity matrix says about two languages.

`S[..., i, j]` is the similarity of item i in one language to item j in another; leading axes are language pairs,
thresholds, variants. The diagonal holds matched items, all else is the null: the same languages, prompts of the same
kind, another question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from babelscope.analyses.metric import PairMeasure
from babelscope.analyses.statistics import Floats, mean_of_defined, share

# A stack of similarity matrices is built for as many language pairs as fit here.
STACK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class PairScores:
    """Scores of a similarity matrix; the first two per item, the others one number per matrix.

    Parameters
    ----------
    matched : ndarray
        (..., item): S_ii; NaN for items that do not count.
    gap : ndarray
        (..., item): S_ii - n - c (row mean_i - n) - c (column mean_i - n), where n is the mean of mismatched cells
        and c = (items - 1) / (items - 2). Its mean is the mean of the diagonal minus the mean off it, and its spread
        is that of this difference under resampling of items: n is a mean over pairs of items, in which each item
        counts as row and as column (a U-statistic; Arvesen 1969, Annals of Mathematical Statistics 40, 2076-2100).
        What makes an item similar to everything, such as the size of its active set, cancels. S_ii minus half a row
        mean and half a column mean has the same mean, but leaves half of that in, and its intervals are too wide.
    effect_size : ndarray
        (...): mean gap per standard deviation of the off-diagonal cells.
    auc : ndarray
        (...): share of mismatched cells of the same row or column that lie below S_ii, ties counting half.
    retrieval_ab, retrieval_ba : ndarray
        (...): share of items whose S_ii is strictly the highest of its row, of its column; chance 1 / items.
    mexa : ndarray
        (...): share of items for which both hold (Kargaran et al. 2024, arXiv:2410.05873); chance
        1 / (2 items - 1).
    """

    matched: Floats
    gap: Floats
    effect_size: Floats
    auc: Floats
    retrieval_ab: Floats
    retrieval_ba: Floats
    mexa: Floats


def pair_scores(S: Floats, *, centered_in_sample: bool | NDArray[np.bool_] = False) -> PairScores:
    """Scores of similarity matrices.

    Parameters
    ----------
    S : ndarray
        (..., item, item) with at least three items, NaN where undefined. An item counts when S_ii and at least one
        mismatched cell of its row or column are defined.
    centered_in_sample : bool or ndarray of bool
        Whether the similarity removed the mean of the same items, by leading index; S_ii / (items - 1) is then
        added back to the null, which in-sample centering has pushed down by that much.

    Returns
    -------
    PairScores
    """
    n = S.shape[-1]
    off = ~np.eye(n, dtype=bool)
    defined = ~np.isnan(S)
    diagonal = np.diagonal(S, axis1=-2, axis2=-1)
    cells = np.where(defined & off, S, 0.0)
    counted = None if defined.all() else defined & off
    rows, row_cells = cells.sum(axis=-1), (n - 1 if counted is None else counted.sum(axis=-1))
    columns, column_cells = cells.sum(axis=-2), (n - 1 if counted is None else counted.sum(axis=-2))
    row_means, column_means = share(rows, row_cells), share(columns, column_cells)
    half = _mean_of_two(row_means, column_means)
    counts = ~np.isnan(diagonal) & ~np.isnan(half)
    matched = np.where(counts, diagonal, np.nan)
    half = np.where(counts, half, np.nan)
    mean_null = mean_of_defined(half)[..., None]
    # The means leave out item i, so a part of the item's own level is missing from them: (n - 1) / (n - 2) restores it.
    gap = matched - mean_null - 2 * (half - mean_null) * (n - 1) / (n - 2)
    gap = gap - np.asarray(centered_in_sample)[..., None] * matched / (n - 1)
    total = np.full(S.shape[:-2], n * (n - 1)) if counted is None else counted.sum(axis=(-2, -1))
    mean = share(rows.sum(axis=-1), total)
    # Centered before squaring: the cosines of a narrow cone differ in the fourth digit.
    spread = np.einsum("...ij,...ij->...", *([np.where(defined & off, S - mean[..., None, None], 0.0)] * 2))
    ranks = _ranks(S, diagonal, counts, row_cells, column_cells)
    return PairScores(
        matched=matched,
        gap=gap,
        effect_size=share(mean_of_defined(gap), np.sqrt(share(spread, total))),
        **ranks,
    )


def _ranks(
    S: Floats, diagonal: Floats, counts: NDArray[np.bool_], row_cells: NDArray[np.int64] | int,
    column_cells: NDArray[np.int64] | int,
) -> dict[str, Floats]:  # fmt: skip
    """AUC, retrieval and MEXA, from how many cells of its row and column each S_ii beats or ties."""
    below, first = [], []
    for axis, own, cells in ((-1, diagonal[..., :, None], row_cells), (-2, diagonal[..., None, :], column_cells)):
        beaten = np.count_nonzero(own > S, axis=axis)
        tied = np.count_nonzero(own == S, axis=axis) - 1  # S_ii ties with itself
        below.append(share(beaten + 0.5 * tied, cells))
        first.append(np.where(counts, beaten == cells, np.nan))
    return {
        "auc": mean_of_defined(np.where(counts, _mean_of_two(*below), np.nan)),
        "retrieval_ab": mean_of_defined(first[0]),
        "retrieval_ba": mean_of_defined(first[1]),
        "mexa": mean_of_defined(first[0] * first[1]),
    }


def _mean_of_two(a: Floats, b: Floats) -> Floats:
    """Mean of two arrays, the defined one where only one is."""
    return np.where(np.isnan(a), b, np.where(np.isnan(b), a, (a + b) / 2))


def permuted_means(S: Floats, of_a: NDArray[np.int32], of_b: NDArray[np.int32]) -> Floats:
    """Mean similarity when the items of each language are shuffled.

    Parameters
    ----------
    S : ndarray
        (variant, item, item) of one language pair.
    of_a, of_b : ndarray of int32
        (permutation, item).

    Returns
    -------
    ndarray
        (variant, permutation), over defined cells.
    """
    variants, n, _ = S.shape
    # One sparse row per permutation: cells of all variants lie side by side, so each look-up serves them all.
    cells = (of_a * n + of_b).ravel()
    picks = sparse.csr_matrix((np.ones(cells.size), cells, np.arange(0, cells.size + 1, n)), shape=(len(of_a), n * n))
    flat = np.ascontiguousarray(S.reshape(variants, n * n).T)
    defined = ~np.isnan(flat)
    if defined.all():
        return np.asarray((picks @ flat).T / n)
    return share(picks @ np.where(defined, flat, 0.0), picks @ defined.astype(np.float64)).T


@dataclass(frozen=True, slots=True)
class PairBlock:
    """Scores of every language pair at one site and layer, (variant, pair, ...), and their permuted means.

    `permuted` is (variant, pair, permutation).
    """

    scores: PairScores
    permuted: Floats


def language_pairs(n_languages: int) -> list[tuple[int, int]]:
    """Unordered pairs of languages by index, in the order of `PairBlock`."""
    return [(a, b) for a in range(n_languages) for b in range(a + 1, n_languages)]


def score_pairs(x: NDArray[np.generic], measures: Sequence[PairMeasure], permutations: NDArray[np.int32]) -> PairBlock:
    """Score all language pairs of one block of activations by several similarities.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    measures : sequence of PairMeasure
        The variants.
    permutations : ndarray of int32
        (permutation, language, item).
    """
    n_languages, n, _ = x.shape
    centered = np.array([m.similarity.centered_in_sample for m in measures])[:, None]
    at_once = max(1, STACK_BYTES // (8 * len(measures) * n * n))
    scores, permuted = [], []
    for a in range(n_languages - 1):
        for start in range(a + 1, n_languages, at_once):
            others = slice(start, min(start + at_once, n_languages))
            S = np.stack([m.similarity(x[a], x[others]) for m in measures])
            scores.append(pair_scores(S, centered_in_sample=centered))
            permuted += [
                permuted_means(S[:, k], permutations[:, a], permutations[:, b])
                for k, b in enumerate(range(n_languages)[others])
            ]
    joined = {f.name: np.concatenate([getattr(s, f.name) for s in scores], axis=1) for f in fields(PairScores)}
    return PairBlock(PairScores(**joined), np.stack(permuted, axis=1))
