"""How many times as many active neurons two prompts share as mismatched prompts do, in doublings."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from babelscope.analyses.active_sets import CountedSimilarity, Counts
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Lift(CountedSimilarity):
    r""":math:`\log_2 \frac{O + 1/2}{E + 1/2}` with O and E as in `Kappa`.

    The halves keep pairs that share nothing, whose logarithm would be infinite, in the mean (Haldane 1956, Annals of
    Human Genetics 20, 309-311). It has no highest value: the smaller E, the more doublings fit above it. NaN where
    either set is empty.
    """

    highest: ClassVar[float] = float("nan")

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b)."""
        largest = counts.smaller
        expected = np.where(largest > 0, counts.expected_share * largest, np.nan)
        return np.asarray(np.log2((counts.shared + 0.5) / (expected + 0.5)))


similarity = Lift()
