"""Overlap of active neurons over all languages at once, for every threshold in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import float32_floor
from babelscope.analyses.statistics import Floats, mean_of_defined


def threshold_codes(x: NDArray[np.generic], thresholds: Sequence[float]) -> NDArray[np.unsignedinteger]:
    """How many thresholds each |activation| strictly exceeds: `|x| > thresholds[k]` exactly when the code is > k.

    Parameters
    ----------
    x : ndarray
        Any shape.
    thresholds : sequence of float
        Increasing.
    """
    grid = np.asarray(thresholds, dtype=np.float64)
    kind = np.uint8 if len(grid) < 2**8 else np.uint16
    size = np.abs(np.asarray(x, dtype=np.float32))
    codes: NDArray[np.unsignedinteger] = np.zeros(size.shape, dtype=kind)
    if len(grid) <= 32:
        for bound in np.unique(grid):
            codes += np.multiply(size > float32_floor(bound), kind(np.count_nonzero(grid == bound)), dtype=kind)
        return codes
    return np.searchsorted(grid, size.astype(np.float64), side="left").astype(kind)


def exceedances(codes: NDArray[np.unsignedinteger], n_thresholds: int) -> NDArray[np.int64]:
    """Number of units above each threshold, (..., unit) codes -> (..., threshold): one histogram for the whole grid."""
    rows = codes.reshape(-1, codes.shape[-1])
    bins = n_thresholds + 1
    offsets = np.arange(len(rows), dtype=np.int64)[:, None] * bins
    counts = np.bincount((rows + offsets).ravel(), minlength=len(rows) * bins).reshape(len(rows), bins)
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
        finite = np.isfinite(np.asarray(x, dtype=np.float64).sum(axis=-1))
        sizes[~finite] = np.nan
        shared, size = (np.empty((len(draws), x.shape[1], count)) for _ in range(2))
        for r, draw in enumerate(draws):
            smallest = codes[0][draw[0]]
            mean = sizes[0][draw[0]]
            for language in range(1, len(x)):
                np.minimum(smallest, codes[language][draw[language]], out=smallest)
                mean += sizes[language][draw[language]]
            shared[r], size[r] = exceedances(smallest, count), mean / len(x)
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
