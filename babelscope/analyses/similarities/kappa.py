"""Active neurons that two prompts share beyond what mismatched prompts share, per neuron that they could share."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.active_sets import CountedSimilarity, Counts
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Kappa(CountedSimilarity):
    r""":math:`\kappa_O = (O - E) / (O_{max} - E)` of every pair of items: at most 1, on average 0 without effect.

    :math:`O = |A \cap B|` and :math:`O_{max} = \min(|A|, |B|)`. E is what mismatched items share, in proportion to what
    this pair could share: :math:`E = e \, O_{max}` with e the mean of O over mismatched items by the mean of
    :math:`O_{max}` over them (`Counts.expected_share`). Where all sets have one size, E is the mean of O over
    mismatched items. One such E for all pairs whatever their size would leave no room, or less than none, to pairs of
    small sets: there the quotient has poles, and one item decides the mean.

    NaN where either set is empty, and everywhere when mismatched items share all they could.

    References
    ----------
    Cohen (1960), Educational and Psychological Measurement 20, 37-46, for the form.
    """

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b)."""
        largest, e = counts.smaller, counts.expected_share
        with np.errstate(invalid="ignore", divide="ignore"):
            room = np.where((largest > 0) & (e < 1), largest * (1 - e), np.nan)
            return np.asarray((counts.shared - e * largest) / room)


similarity = Kappa()
