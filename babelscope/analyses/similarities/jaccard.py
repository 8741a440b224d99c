"""Active neurons that two prompts share, per neuron active in either."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.active_sets import CountedSimilarity, Counts
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Jaccard(CountedSimilarity):
    r""":math:`|A \cap B| / |A \cup B|`, in [0, 1]; NaN when both sets are empty.

    With Dice's coefficient D it is :math:`D / (2 - D)`: the same ranking, another scale.

    References
    ----------
    Jaccard (1912), New Phytologist 11, 37-50.
    """

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b)."""
        with np.errstate(invalid="ignore"):
            return np.asarray(counts.shared / (counts.total - counts.shared))


similarity = Jaccard()
