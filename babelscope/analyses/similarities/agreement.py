"""Share of neurons that are in the same state, active or not, in two prompts."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.active_sets import CountedSimilarity, Counts
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Agreement(CountedSimilarity):
    r""":math:`(|A \cap B| + |\bar A \cap \bar B|) / M` over M neurons, in [0, 1] (simple matching).

    With `Agreement(0.0, "signed")` the share of equal signs, where zero counts with the negative ones. Neurons that
    fire at rates p and q by chance agree in p q + (1 - p)(1 - q) of the prompts. NaN for rows that are not finite.

    References
    ----------
    Sokal and Michener (1958), University of Kansas Science Bulletin 38, 1409-1438.
    """

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b)."""
        return np.asarray((counts.units - counts.total + 2 * counts.shared) / counts.units)


similarity = Agreement()
