"""Overlap of active neurons over all languages at once, for every threshold in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import float32_floor, has_finite_rows
from babelscope.analyses.statistics import Floats, mean_of_defined

# Rows are taken a few at a time, so that what is made of them stays in the cache of a core.
BLOCK_CELLS = 2**16

# |float32| without its last 16 bits: sign 0, 8 bits of exponent, 7 of mantissa.
HIGH_BITS = 2**15
INFINITE = 0x7F80


def threshold_codes(x: NDArray[np.generic], thresholds: Sequence[float]) -> NDArray[np.unsignedinteger]:
    """How many thresholds each |activation| strictly exceeds: `|x| > thresholds[k]` exactly when the code is > k.

    Bit patterns of positive floats are ordered as their values are. The first 16 bits of |x| leave it in an interval
    that holds few thresholds: a table says how many lie below it, and those inside are compared one by one, with bounds
    that are looked up, too. A float16 has no more than 16 bits. So the cost does not depend on the number of
    thresholds, as long as they differ by more than their last 16 bits.

    Parameters
    ----------
    x : ndarray
        Any shape.
    thresholds : sequence of float
        Increasing.
    """
    grid = np.asarray(thresholds, dtype=np.float64)
    kind = np.uint8 if len(grid) < 2**8 else np.uint16
    exact = x.dtype == np.float16
    rows = np.ascontiguousarray(x if exact else np.asarray(x, dtype=np.float32)).reshape(-1)
    codes = np.empty(rows.shape, dtype=kind)
    below, inside = _half_table(grid, kind) if exact else _float_tables(grid, kind)
    for start in range(0, len(rows), BLOCK_CELLS):
        block, code = np.abs(rows[start : start + BLOCK_CELLS]), codes[start : start + BLOCK_CELLS]
        high = block.view(np.uint16) if exact else block.view(np.uint32) >> 16
        below.take(high, out=code, mode="clip")
        for bounds in inside:
            code += block > bounds.take(high)
        if not exact and high.max(initial=0) >= INFINITE:
            code[np.isnan(block)] = 0
    return codes.reshape(x.shape)


def _half_table(grid: Floats, kind: type[np.unsignedinteger]) -> tuple[NDArray[np.unsignedinteger], list[Floats]]:
    """Code of every non-negative float16 by its bits."""
    values = np.arange(HIGH_BITS, dtype=np.uint16).view(np.float16).astype(np.float64)
    return np.where(np.isnan(values), 0, np.searchsorted(grid, values, side="left")).astype(kind), []


def _float_tables(
    grid: Floats, kind: type[np.unsignedinteger]
) -> tuple[NDArray[np.unsignedinteger], list[NDArray[np.float32]]]:
    """By the first bits of a float32: thresholds below all such numbers, and those among them, one table for each."""
    floors = np.array([float32_floor(t) for t in grid], dtype=np.float32)
    low = int(np.count_nonzero(floors < 0))  # which every |activation| exceeds
    first = (floors[low:] + np.float32(0.0)).view(np.uint32) >> 16
    below = (low + np.searchsorted(first, np.arange(HIGH_BITS), side="left")).astype(kind)
    inside: list[NDArray[np.float32]] = []
    levels = np.arange(len(first)) - np.searchsorted(first, first, side="left")
    for level in range(int(levels.max(initial=-1)) + 1):
        bounds = np.full(HIGH_BITS, np.inf, dtype=np.float32)
        bounds[first[levels == level]] = floors[low:][levels == level]
        inside.append(bounds)
    return below, inside


def exceedances(codes: NDArray[np.unsignedinteger], n_thresholds: int) -> NDArray[np.int64]:
    """Number of units above each threshold, (..., unit) codes -> (..., threshold): one histogram for the whole grid."""
    rows = codes.reshape(-1, codes.shape[-1])
    bins = n_thresholds + 1
    counts = np.empty((len(rows), bins), dtype=np.int64)
    at_once = max(1, BLOCK_CELLS // max(rows.shape[1], 1))
    offsets = np.arange(at_once, dtype=np.int64)[:, None] * bins
    for start in range(0, len(rows), at_once):
        block = rows[start : start + at_once]
        counts[start : start + at_once] = np.bincount(
            (block + offsets[: len(block)]).ravel(), minlength=len(block) * bins
        ).reshape(-1, bins)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return np.asarray(above.reshape(*codes.shape[:-1], n_thresholds))


@dataclass(frozen=True, slots=True)
class JointParts:
    """Numerator and denominator of the joint overlap at one layer, each (draw, item, threshold).

    `shared` counts neurons active in every language, `size` is the mean number active in a language.
    """

    shared: Floats
    size: Floats


@dataclass(frozen=True, slots=True)
class JointOverlap:
    r"""Neuron activation overlap as published: :math:`|\bigcap_l A_l| / \frac{1}{L}\sum_l |A_l|` over all languages.

    With L languages that fire independently at rate p it is :math:`p^{L-1}`, so values of runs with different
    languages cannot be compared.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 5.2.2 (`pooled`) and the authors' script (`macro_layer`).
    """

    thresholds: tuple[float, ...]

    def parts(self, x: NDArray[np.generic], draws: NDArray[np.int32]) -> JointParts:
        """Parts of the overlap for several ways of putting items together.

        A neuron is active in all languages exactly when its smallest |activation| over the languages exceeds the
        threshold, so a histogram of that minimum serves the whole grid.

        Parameters
        ----------
        x : ndarray
            (language, item, unit).
        draws : ndarray of int32
            (draw, language, item): row i of a draw joins these items of each language; all i gives the true items.
        """
        count = len(self.thresholds)
        codes = threshold_codes(x, self.thresholds)
        sizes = exceedances(codes, count).astype(np.float64)
        sizes[~has_finite_rows(x)] = np.nan
        shared, size = (np.empty((len(draws), x.shape[1], count)) for _ in range(2))
        at_once = max(1, BLOCK_CELLS // max(x.shape[2], 1))
        for r, draw in enumerate(draws):
            size[r] = np.mean([sizes[language][items] for language, items in enumerate(draw)], axis=0)
            for start in range(0, x.shape[1], at_once):
                rows = slice(start, start + at_once)
                smallest = codes[0][draw[0, rows]]
                for language in range(1, len(x)):
                    np.minimum(smallest, codes[language][draw[language, rows]], out=smallest)
                shared[r, rows] = exceedances(smallest, count)
        return JointParts(shared, size)

    @staticmethod
    def per_layer(parts: JointParts) -> Floats:
        """The ratio at one layer; 0 where no language activates anything, as the authors' script has it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(parts.size == 0, 0.0, parts.shared / parts.size)

    @staticmethod
    def pooled(shared: Floats, size: Floats) -> Floats:
        """The ratio of sums over layers, as the formula is printed; NaN where nothing is active anywhere."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return shared / size


def mismatched_draws(n_items: int, n_languages: int, n_draws: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Ways of joining items such that no two languages contribute the same item.

    Free shuffles of 14 languages over 100 items put some item twice into 3 of 5 joins, so their mean would hold part
    of the effect. Here a common shuffle is shifted by another amount in each language. With fewer items than
    languages that cannot be, and the shuffles are free.

    Returns
    -------
    ndarray of int32
        (draw, language, item).
    """
    draws = np.empty((n_draws, n_languages, n_items), dtype=np.int32)
    for r in range(n_draws):
        if n_items < n_languages:
            draws[r] = rng.permuted(np.tile(np.arange(n_items), (n_languages, 1)), axis=1)
            continue
        order = rng.permutation(n_items)
        shifts = rng.choice(n_items, size=n_languages, replace=False)
        draws[r] = order[(np.arange(n_items)[None, :] + shifts[:, None]) % n_items]
    return draws


def gap_by_item(matched: Floats, values: Floats, draws: NDArray[np.int32]) -> Floats:
    """Per-item gap over mismatched joins, as `PairScores.gap` for joins of many languages.

    The mean over joins counts every item once in each of L languages, so an item's part in it is L times the mean of
    its joins less the overall mean.

    Parameters
    ----------
    matched : ndarray
        (item, threshold): value of the true join.
    values : ndarray
        (draw, item, threshold): values of mismatched joins.
    draws : ndarray of int32
        (draw, language, item).

    Returns
    -------
    ndarray
        (threshold, item). Its mean is the mean of the true joins minus the mean of the mismatched ones.
    """
    n_draws, n_languages, n_items = draws.shape
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    total, count = np.zeros(matched.shape), np.zeros(matched.shape)
    for r in range(n_draws):
        for language in range(n_languages):
            total[draws[r, language]] += filled[r]
            count[draws[r, language]] += defined[r]
    with np.errstate(invalid="ignore"):
        own = np.where(np.isnan(matched), np.nan, total / count)
    overall = mean_of_defined(own, axis=0)
    # As in `pair_scores`: joins leave the item out of the other languages, which hides part of its level. With few
    # items the factor would only amplify the noise of the draws.
    scale = n_languages * (n_items - 1) / max(n_items - n_languages, n_items / 2)
    return np.asarray((matched - overall - scale * (own - overall)).T)
