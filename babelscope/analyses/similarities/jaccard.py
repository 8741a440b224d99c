"""Active neurons that two prompts share, per neuron active in either."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import Rule
from babelscope.analyses.similarities.overlap import set_sizes


@dataclass(frozen=True, slots=True)
class Jaccard:
    r""":math:`|A \cap B| / |A \cup B|`, in [0, 1]; NaN when both sets are empty.

    With Dice's coefficient D it is :math:`D / (2 - D)`: the same ranking, another scale.

    References
    ----------
    Jaccard (1912), New Phytologist 11, 37-50.
    """

    threshold: float = 0.4
    rule: Rule = "absolute"
    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, unit) twice -> (..., item, item)."""
        shared, total = set_sizes(a, b, self.threshold, self.rule)
        with np.errstate(invalid="ignore"):
            return np.asarray(shared / (total - shared))


similarity = Jaccard()
