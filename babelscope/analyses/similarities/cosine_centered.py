"""Cosine after removing each language's mean: what is left once the language itself is subtracted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.similarities.cosine import products, unit_rows


@dataclass(frozen=True, slots=True)
class CenteredCosine:
    r"""Cosine of the deviations of two items from the mean item of their own language, in [-1, 1].

    The mean comes from the same Q items. Deviations sum to zero, so the dot products of an item with all mismatched
    ones average exactly :math:`-S_{ii} / (Q - 1)` where independent data would give 0: the null sinks, and the gap
    grows by the factor :math:`Q / (Q - 1)` (at Q = 100, 1 %). Splitting the items into folds does not cure it,
    because the means of two languages over the same fold share its items. The pair engine therefore adds
    :math:`S_{ii} / (Q - 1)` back to the null of item i, which is exact for dot products and correct to
    O(1/Q^2) for cosines of vectors of comparable length. Permutation p-values need no correction: the mean of a
    language does not depend on the order of its items.

    References
    ----------
    Libovický et al. (2020), arXiv:2004.05160, for centering by language.
    """

    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = True

    def prepare(self, x: NDArray[np.generic], /) -> Callable[[int, slice], NDArray[np.float64]]:
        """Directions of the deviations of (language, item, unit), computed once."""
        return products(_deviations(x))

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(_deviations(a) @ np.swapaxes(_deviations(b), -1, -2))


def _deviations(x: NDArray[np.generic]) -> NDArray[np.float64]:
    rows = np.asarray(x, dtype=np.float64)
    finite = np.isfinite(rows.sum(axis=-1, keepdims=True))
    count = np.maximum(finite.sum(axis=-2, keepdims=True), 1)
    mean = np.where(finite, rows, 0.0).sum(axis=-2, keepdims=True) / count
    deviations = rows - mean
    # A row equal to the mean leaves rounding noise, which has no direction either.
    with np.errstate(invalid="ignore"):
        scale = np.abs(rows).max(axis=-1, keepdims=True)
        noise = np.abs(deviations).max(axis=-1, keepdims=True) <= 1e-12 * scale
    return unit_rows(np.where(noise, 0.0, deviations))


similarity = CenteredCosine()
