"""Cosine after every unit is standardized over the items of its language: no few dimensions carry it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.similarities.cosine import products, unit_rows


@dataclass(frozen=True, slots=True)
class ZscoredCosine:
    r"""Cosine of two items whose units have mean 0 and variance 1 over the items of their own language, in [-1, 1].

    In trained models one to three dimensions of huge variance carry most of a raw cosine; standardizing them is the
    remedy that Timkey and van Schijndel recommend. A unit that is constant in a language tells its items nothing and
    counts as 0 there. The mean of the same items is removed, so the null is corrected as for `CenteredCosine`.

    References
    ----------
    Timkey and van Schijndel (2021), arXiv:2109.04404, section 5.
    """

    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = True

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(unit_rows(standardized(a)) @ np.swapaxes(unit_rows(standardized(b)), -1, -2))

    def prepare(self, x: NDArray[np.generic], /) -> Callable[[int, slice], NDArray[np.float64]]:
        """Rows of a whole block, standardized and scaled once for all pairs."""
        return products(unit_rows(standardized(x)))


def standardized(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """(..., item, unit) with mean 0 and variance 1 over items; 0 for constant units, NaN in rows not finite."""
    rows = np.asarray(x, dtype=np.float64)
    finite = np.isfinite(rows).all(axis=-1, keepdims=True)
    count = np.maximum(finite.sum(axis=-2, keepdims=True), 1)
    kept = np.where(finite, rows, 0.0)
    mean = kept.sum(axis=-2, keepdims=True) / count
    deviations = np.where(finite, kept - mean, 0.0)
    spread = np.sqrt((deviations**2).sum(axis=-2, keepdims=True) / count)
    # What a constant unit leaves is rounding noise.
    moving = spread > 1e-12 * np.abs(kept).max(axis=-2, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite, np.where(moving, deviations / spread, 0.0), np.nan)


similarity = ZscoredCosine()
