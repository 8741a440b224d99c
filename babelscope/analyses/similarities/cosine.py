"""Cosine of two activation vectors, as they are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray


def unit_rows(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """Rows scaled to length 1, float64; NaN for a zero row, which points nowhere, and for a row that is not finite."""
    rows = np.asarray(x, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Scaling by the largest entry first keeps the squares of huge and tiny rows representable.
        rows = rows / np.abs(rows).max(axis=-1, keepdims=True)
        return np.asarray(rows / np.sqrt(np.einsum("...d,...d->...", rows, rows))[..., None])


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

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(unit_rows(a) @ np.swapaxes(unit_rows(b), -1, -2))


similarity = Cosine()
