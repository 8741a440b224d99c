"""Active neurons that two prompts share, per neuron active in the average of the two."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.active_sets import CountedSimilarity, Counts
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Overlap(CountedSimilarity):
    r""":math:`|A \cap B|` over the mean of :math:`|A|` and :math:`|B|` (Dice's coefficient), in [0, 1].

    The published neuron activation overlap for two languages. NaN when both sets are empty.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 5.2.2, which takes all languages at once.
    """

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(2 * counts.shared / counts.total)


similarity = Overlap()
