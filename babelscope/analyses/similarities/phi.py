"""Correlation of the states, active or not, of all neurons in two prompts."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.active_sets import CountedSimilarity, Counts
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Phi(CountedSimilarity):
    r""":math:`(M O - |A| |B|) / \sqrt{|A| (M - |A|) |B| (M - |B|)}` over M neurons, in [-1, 1].

    Pearson's correlation of two binary vectors. It takes away what sets of these sizes share when neurons are drawn at
    random; neurons that are always on are left in, and only the null of mismatched items takes those away. NaN where
    no neuron is active, or all are.

    References
    ----------
    Yule (1912), Journal of the Royal Statistical Society 75, 579-652.
    """

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b)."""
        spread_a, spread_b = (size * (counts.units - size) for size in (counts.a, counts.b))
        product = counts.a[..., :, None] * counts.b[..., None, :]
        scale = np.sqrt(spread_a)[..., :, None] * np.sqrt(spread_b)[..., None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(scale > 0, (counts.units * counts.shared - product) / scale, np.nan)


similarity = Phi()
