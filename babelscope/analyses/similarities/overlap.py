"""Active neurons that two prompts share, per neuron active in the average of the two."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import Rule, active_neurons, has_finite_rows


def set_sizes(
    a: NDArray[np.generic], b: NDArray[np.generic], threshold: float, rule: Rule
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size of every intersection, (..., item, item), and sum of the two sets' sizes; NaN for non-finite rows."""
    active_a, active_b = (active_neurons(x, threshold, rule).astype(np.float32) for x in (a, b))
    # float32 counts exactly up to 2^24 neurons, here and below.
    shared = (active_a @ np.swapaxes(active_b, -1, -2)).astype(np.float64)
    size_a, size_b = (
        np.where(has_finite_rows(x), active.sum(axis=-1), np.nan).astype(np.float64)
        for x, active in ((a, active_a), (b, active_b))
    )
    return shared, size_a[..., :, None] + size_b[..., None, :]


@dataclass(frozen=True, slots=True)
class Overlap:
    r""":math:`|A \cap B|` over the mean of :math:`|A|` and :math:`|B|` (Dice's coefficient), in [0, 1].

    The published neuron activation overlap for two languages. NaN when both sets are empty.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 5.2.2, which takes all languages at once.
    """

    threshold: float = 0.4
    rule: Rule = "absolute"
    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        shared, total = set_sizes(a, b, self.threshold, self.rule)
        with np.errstate(invalid="ignore"):
            return np.asarray(2 * shared / total)


similarity = Overlap()
