"""Agreement of soft states: each neuron is on with a probability that its activation gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class SoftState:
    r"""Mean over neurons of :math:`p q + (1 - p)(1 - q)` with :math:`p = \sigma(a_k / s)`, :math:`q = \sigma(b_k / s)`.

    The probability that two neurons drawn in these states agree; `Agreement` of signs is its limit for small s. It is
    :math:`\frac12 + \frac1{2M} \sum_k \tanh(a_k / 2s) \tanh(b_k / 2s)`, a matrix product. It stays below 1 also for
    identical rows, whose soft states are uncertain: 1 is its bound.

    The scale s is the root mean square of the activations in finite rows: of all languages of the block in the pair
    engine, of both arguments where the similarity is called by itself. NaN for rows that are not finite, and where
    all activations are 0.
    """

    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def prepare(self, x: NDArray[np.generic], /) -> Callable[[int, slice], Floats]:
        """States of (language, item, unit) on the scale of all of them."""
        states = _states(x, _root_mean_square([x]))
        return lambda a, others: _agreement(states[a], states[others])

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> Floats:
        """(..., item, unit) twice -> (..., item, item)."""
        scale = _root_mean_square([a, b])
        return _agreement(_states(a, scale), _states(b, scale))


def _root_mean_square(blocks: list[NDArray[np.generic]]) -> float:
    rows = [x[has_finite_rows(x)].astype(np.float64) for x in blocks]
    count = sum(r.size for r in rows)
    return float(np.sqrt(sum(np.square(r).sum() for r in rows) / count)) if count else float("nan")


def _states(x: NDArray[np.generic], scale: float) -> Floats:
    if not scale > 0:
        return np.full(x.shape, np.nan)
    states = np.tanh(np.asarray(x, dtype=np.float64) / (2 * scale))
    return np.where(has_finite_rows(x)[..., None], states, np.nan)


def _agreement(a: Floats, b: Floats) -> Floats:
    return np.asarray(0.5 + (a @ np.swapaxes(b, -1, -2)) / (2 * a.shape[-1]))


similarity = SoftState()
