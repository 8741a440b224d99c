"""Cosine of two activation vectors, as they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


def unit_rows(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """Rows scaled to length 1, float64; NaN for a zero row, which points nowhere, and for a row that is not finite."""
    rows = np.array(x, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Scaling by the largest entry first keeps the squares of huge and tiny rows representable.
        rows /= np.maximum(rows.max(axis=-1, keepdims=True), -rows.min(axis=-1, keepdims=True))
        rows /= np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None]
    return rows


def products(rows: NDArray[np.float64]) -> Callable[[int, slice], NDArray[np.float64]]:
    """From (language, item, unit), the products of the rows of one language with those of others."""

    def between(a: int, others: slice) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.asarray(rows[a] @ np.swapaxes(rows[others], -1, -2))

    return between


@dataclass(frozen=True, slots=True)
class Cosine:
    r"""Raw cosine, :math:`\langle x, y \rangle / (|x| |y|)`, in [-1, 1].

    Hidden states share large common directions, so mismatched items often reach 0.4 to 0.9: read it beside its
    null or not at all.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 5.2.1.
    """

    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def prepare(self, x: NDArray[np.generic], /) -> Callable[[int, slice], NDArray[np.float64]]:
        """Directions of (language, item, unit), computed once."""
        return products(unit_rows(x))

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(unit_rows(a) @ np.swapaxes(unit_rows(b), -1, -2))


similarity = Cosine()
