"""Soft overlap: activation that two prompts share, neuron by neuron, without a threshold."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Ruzicka:
    r""":math:`\sum_k \min(a_k, b_k) / \sum_k \max(a_k, b_k)` of scaled activations, in [0, 1].

    Signed activations are split into a positive and a negative part, so that opposite signs share nothing. Both forms
    follow from the distance :math:`d = \sum_k |a_k - b_k|`, since
    :math:`2 \sum \min = |a|_1 + |b|_1 - d` and :math:`2 \sum \max = |a|_1 + |b|_1 + d`.

    Parameters
    ----------
    scale : {"l1", "rms"}
        What each row is divided by: the sum of its |activations|, or their root mean square.
    signed : bool
        Without it, |activations| are compared.

    Notes
    -----
    No matrix product gives a minimum: one distance costs about 0.4 ns per neuron, where a product costs 0.03.

    References
    ----------
    Ružička (1958), Biológia (Bratislava) 13, 647-661.
    """

    scale: Literal["l1", "rms"] = "l1"
    signed: bool = True
    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> Floats:
        """(..., item, unit) twice -> (..., item, item); NaN for rows of zeros and rows that are not finite."""
        rows_a, rows_b = self._rows(a), self._rows(b)
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        pairs = (
            rows.reshape(-1, *rows.shape[-2:])
            for rows in (np.broadcast_to(r, (*lead, *r.shape[-2:])) for r in (rows_a, rows_b))
        )
        S = [_shared(one, other) for one, other in zip(*pairs, strict=True)]
        return np.reshape(S, (*lead, a.shape[-2], b.shape[-2]))

    def _rows(self, x: NDArray[np.generic]) -> Floats:
        rows = np.asarray(x, dtype=np.float64)
        rows = rows if self.signed else np.abs(rows)
        with np.errstate(invalid="ignore", divide="ignore"):
            # The largest entry first: the sum of huge entries and the squares of tiny ones are not representable.
            rows = rows / np.abs(rows).max(axis=-1, keepdims=True)
            length = np.abs(rows).sum(axis=-1) if self.scale == "l1" else np.sqrt(np.square(rows).mean(axis=-1))
            return np.asarray(rows / length[..., None])


def _shared(a: Floats, b: Floats) -> Floats:
    distance = cdist(a, b, "cityblock")
    total = np.abs(a).sum(axis=-1)[:, None] + np.abs(b).sum(axis=-1)[None, :]
    return np.asarray((total - distance) / (total + distance))


similarity = Ruzicka()
