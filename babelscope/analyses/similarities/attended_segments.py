"""How alike two prompts divide the attention of a head among their segments."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.attention import jensen_shannon, segment_distribution


@dataclass(frozen=True, slots=True)
class AttendedSegments:
    """1 minus the Jensen-Shannon divergence (base 2) of how mass is divided among segments, in [0, 1].

    NaN between prompts that do not have the same segments.

    Parameters
    ----------
    over_even : bool
        Compare mass over its even share rather than mass.
    """

    over_even: bool = True
    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> NDArray[np.float64]:
        """(..., item, summary) twice -> (..., item, item)."""
        p, q = (segment_distribution(x, over_even=self.over_even) for x in (a, b))
        return 1 - jensen_shannon(p, q)


similarity = AttendedSegments()
