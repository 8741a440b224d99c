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
from babelscope.analyses.stacks import similarity_stack
from babelscope.analyses.statistics import Floats, mean_of_defined, share

# The null of an item leaves out the item's own part in it, which takes two others.
SMALLEST_STRATUM = 3

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
    deviation : ndarray
        (...): standard deviation of the off-diagonal cells.
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
    deviation: Floats
    auc: Floats
    retrieval_ab: Floats
    retrieval_ba: Floats
    mexa: Floats

    @property
    def effect_size(self) -> Floats:
        """(...): mean gap per standard deviation of the off-diagonal cells."""
        return share(mean_of_defined(self.gap), self.deviation)


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
    diagonal = np.diagonal(S, axis1=-2, axis2=-1)
    rows, columns = S.sum(axis=-1), S.sum(axis=-2)
    row_cells: NDArray[np.int64] | int
    column_cells: NDArray[np.int64] | int
    if np.isfinite(rows).all():
        rows, columns = rows - diagonal, columns - diagonal
        row_cells = column_cells = n - 1
        total = np.full(S.shape[:-2], n * (n - 1))
    else:
        counted = ~np.isnan(S) & ~np.eye(n, dtype=bool)
        cells = np.where(counted, S, 0.0)
        rows, columns = cells.sum(axis=-1), cells.sum(axis=-2)
        row_cells, column_cells = counted.sum(axis=-1), counted.sum(axis=-2)
        total = counted.sum(axis=(-2, -1))
    row_means, column_means = share(rows, row_cells), share(columns, column_cells)
    half = _mean_of_two(row_means, column_means)
    counts = ~np.isnan(diagonal) & ~np.isnan(half)
    matched = np.where(counts, diagonal, np.nan)
    half = np.where(counts, half, np.nan)
    mean_null = mean_of_defined(half)[..., None]
    # The means leave out item i, so a part of the item's own level is missing from them: (n - 1) / (n - 2) restores it.
    gap = matched - mean_null - 2 * (half - mean_null) * (n - 1) / (n - 2)
    gap = gap - np.asarray(centered_in_sample)[..., None] * matched / (n - 1)
    spread = _squares_off_diagonal(S, share(rows.sum(axis=-1), total))
    ranks = _ranks(S, diagonal, counts, row_cells, column_cells)
    return PairScores(
        matched=matched,
        gap=gap,
        deviation=np.sqrt(share(spread, total)),
        **ranks,
    )


def scores_within(
    S: Floats, strata: Sequence[NDArray[np.int64]], *, centered_in_sample: bool | NDArray[np.bool_] = False
) -> PairScores:
    """Scores of similarity matrices against mismatched items of the same stratum only.

    Each stratum is scored by itself. Scores per item are put side by side; numbers per matrix are averaged over the
    items that count (`deviation` by its square). Items of strata smaller than `SMALLEST_STRATUM` have no null: they
    are NaN and count nowhere.

    In-sample centering removes the mean over all n items, not over those of the stratum, and takes 1 / n of the gap
    from every mismatched cell; of what a stratum shares it takes nothing. So the gap is scaled by 1 - 1 / n, which is
    the correction of `pair_scores` where nothing but the item is shared. It is correct to O(1 / n) of the gap: the
    lengths of the vectors shrink by up to as much, depending on how far apart the strata lie.

    Parameters
    ----------
    S : ndarray
        (..., item, item), NaN where undefined.
    strata : sequence of ndarray of int64
        Items of each stratum; together every item once. A single one gives the scores of `pair_scores`.
    centered_in_sample : bool or ndarray of bool
        Whether the similarity removed the mean of the same items, by leading index.
    """
    if len(strata) == 1:
        return pair_scores(S, centered_in_sample=centered_in_sample)
    matched, gap = np.full(S.shape[:-1], np.nan), np.full(S.shape[:-1], np.nan)
    parts: list[PairScores] = []
    # Strata of one size are scored as one more leading axis: few sizes, however many strata.
    for size in sorted({len(rows) for rows in strata} - set(range(SMALLEST_STRATUM))):
        places = np.stack([rows for rows in strata if len(rows) == size])
        part = pair_scores(S[..., places[:, :, None], places[:, None, :]])
        matched[..., places], gap[..., places] = part.matched, part.gap
        parts.append(part)
    gap *= 1 - np.asarray(centered_in_sample)[..., None] / S.shape[-1]
    if not parts:
        nothing = np.full(S.shape[:-2], np.nan)
        return PairScores(matched, gap, nothing, nothing, nothing, nothing, nothing)
    counted = np.concatenate([np.count_nonzero(~np.isnan(p.matched), axis=-1) for p in parts], axis=-1)

    def averaged(values: Sequence[Floats]) -> Floats:
        joined = np.concatenate(values, axis=-1)
        weights = np.where(np.isnan(joined), 0, counted)
        return share((np.where(np.isnan(joined), 0.0, joined) * weights).sum(axis=-1), weights.sum(axis=-1))

    return PairScores(
        matched=matched,
        gap=gap,
        deviation=np.sqrt(averaged([p.deviation**2 for p in parts])),
        auc=averaged([p.auc for p in parts]),
        retrieval_ab=averaged([p.retrieval_ab for p in parts]),
        retrieval_ba=averaged([p.retrieval_ba for p in parts]),
        mexa=averaged([p.mexa for p in parts]),
    )


def _squares_off_diagonal(S: Floats, mean: Floats) -> Floats:
    """Sum over defined cells off the diagonal of their squared distance from the mean, (...)."""
    found = np.empty(mean.size)
    for k, (cells, center) in enumerate(zip(S.reshape(-1, *S.shape[-2:]), mean.reshape(-1), strict=True)):
        # Centered before squaring: the cosines of a narrow cone differ in the fourth digit.
        centered = cells - center
        np.fill_diagonal(centered, 0.0)
        found[k] = np.vdot(centered, centered)
        if np.isnan(found[k]):
            found[k] = np.nansum(centered**2)
    return found.reshape(mean.shape)


def _ranks(
    S: Floats, diagonal: Floats, counts: NDArray[np.bool_], row_cells: NDArray[np.int64] | int,
    column_cells: NDArray[np.int64] | int,
) -> dict[str, Floats]:  # fmt: skip
    """AUC, retrieval and MEXA, from how many cells of its row and column each S_ii beats or ties."""
    below, first = [], []
    for axis, own, cells in ((-1, diagonal[..., :, None], row_cells), (-2, diagonal[..., None, :], column_cells)):
        # Sums of bytes are several times as fast as count_nonzero along an axis.
        beaten = (own > S).view(np.uint8).sum(axis=axis, dtype=np.uint32).astype(np.int64)
        tied = (own == S).view(np.uint8).sum(axis=axis, dtype=np.uint32).astype(np.int64) - 1  # S_ii ties with itself
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


def score_pairs(
    x: NDArray[np.generic], measures: Sequence[PairMeasure], permutations: NDArray[np.int32],
    strata: Sequence[NDArray[np.int64]] | None = None,
) -> PairBlock:  # fmt: skip
    """Score all language pairs of one block of activations by several similarities.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    measures : sequence of PairMeasure
        The variants.
    permutations : ndarray of int32
        (permutation, language, item), within the strata where these are given.
    strata : sequence of ndarray of int64, optional
        Items of each stratum, every item once: the null of an item holds those of its own stratum only.
    """
    n_languages, n, _ = x.shape
    whole = (np.arange(n),) if strata is None else tuple(strata)
    without_null = [i for rows in whole if len(rows) < SMALLEST_STRATUM for i in rows]
    centered = np.array([m.similarity.centered_in_sample for m in measures])[:, None]
    at_once = max(1, STACK_BYTES // (8 * len(measures) * n * n))
    stack = similarity_stack(x, [m.similarity for m in measures])
    scores, permuted = [], []
    for a in range(n_languages - 1):
        for start in range(a + 1, n_languages, at_once):
            others = slice(start, min(start + at_once, n_languages))
            S = stack(a, others)
            scores.append(scores_within(S, whole, centered_in_sample=centered))
            # What has no null is not in the observed mean, and must not be in the shuffled ones.
            S[..., without_null, :] = np.nan
            permuted += [
                permuted_means(S[:, k], permutations[:, a], permutations[:, b])
                for k, b in enumerate(range(n_languages)[others])
            ]
    joined = {f.name: np.concatenate([getattr(s, f.name) for s in scores], axis=1) for f in fields(PairScores)}
    return PairBlock(PairScores(**joined), np.stack(permuted, axis=1))
