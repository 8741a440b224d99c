"""How much of an answer some neurons keep, or take with them, beside other neurons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.dissociation import matched_neurons
from babelscope.analyses.rankings import shuffled_within_layers
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    Floats,
    interval,
    paired,
    resampled_means,
)
from babelscope.errors import BabelScopeError

LEVEL = 0.95

# Nats by which log-probabilities in float32 differ when the same numbers are added in another order.
RESOLUTION = 1e-5


def set_sizes(shares: str, n_neurons: int) -> list[int]:
    """Sizes of sets of neurons, ascending and each once, from percentages of all, comma-separated.

    Raises
    ------
    BabelScopeError
        If these are no percentages.
    """
    try:
        percent = [float(part) for part in shares.split(",")]
    except ValueError:
        percent = []
    if not percent or not all(0 < p < 100 for p in percent):
        raise BabelScopeError(f"shares={shares!r} are no percentages of neurons", "write shares=0.2,1,5,20")
    return sorted({min(max(1, round(p * n_neurons / 100)), n_neurons - 1) for p in percent})


def log_weights(sizes: Sequence[int]) -> Floats:
    """Weights, of sum 1, by which values at some sizes average to the area under their curve over log size.

    The trapezoidal rule, divided by the range of the logarithms; a single size is its own average.
    """
    if len(sizes) == 1:
        return np.ones(1)
    steps = np.diff(np.log(np.asarray(sizes, dtype=np.float64)))
    return np.asarray((np.append(steps, 0.0) + np.append(0.0, steps)) / 2 / steps.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What the whole model answers and what is left without any of its neurons, (item,) margins in nats each."""

    full: Floats
    none: Floats

    def kept(self, margin: Floats) -> Floats:
        """What there is beyond the model without neurons, (..., item)."""
        return margin - self.none

    def taken(self, margin: Floats) -> Floats:
        """What there is less than in the whole model, (..., item)."""
        return self.full - margin


@dataclass(frozen=True, slots=True)
class Ratio:
    """A mean over items per mean of what there is to keep, with its interval."""

    estimate: float
    low: float
    high: float


def ratio(part: Floats, frame: Frame, weights: Floats) -> Ratio:
    """Mean of the parts of items over the mean of `full - none`, both resampled together.

    NaN where the neurons carry nothing: where the interval of `full - none` reaches zero.

    Parameters
    ----------
    part : ndarray
        (item,).
    weights : ndarray
        (resample, item).
    """
    whole = frame.full - frame.none
    below = resampled_means(whole, weights)
    if not float(np.quantile(below, 0.025)) > 0 or np.isnan(part).any():
        return Ratio(float("nan"), float("nan"), float("nan"))
    low, high = interval((resampled_means(part, weights) / below)[None], LEVEL)
    return Ratio(float(part.mean() / whole.mean()), float(low[0]), float(high[0]))


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much more of an answer some neurons keep or take than others, in nats of the answer margin.

    Parameters
    ----------
    estimate, null : float
        Of the ones and of the others.
    low, high : float
        Interval of the difference, drawn around the null.
    p : float
        Two-sided, by swapping the two item by item.
    stability : float
        Share of the sizes at which the interval of the difference is above zero; NaN for a single size.
    n : int
        Items.
    """

    estimate: float
    low: float
    high: float
    null: float
    p: float
    stability: float
    n: int


def advantage(
    part: Floats, other: Floats, sizes: Sequence[int], weights: Floats, n_perm: int, rng: np.random.Generator
) -> Advantage:
    """Compare what two sets of neurons of the same sizes keep or take, by the areas under their curves.

    In nats, and not as a share of what there is to keep: where that is next to nothing, shares are next to anything.
    Differences below `RESOLUTION` count as none.

    Parameters
    ----------
    part, other : ndarray
        (size, item) of either set, from `Frame.kept` or `Frame.taken`; NaN where there is no such set.
    weights : ndarray
        (resample, item).
    """
    # What the order of sums decides is no difference, however regular it is.
    part = np.where(np.abs(part - other) < RESOLUTION, other, part)
    area = log_weights(sizes)
    own, beside = area @ part, area @ other
    found = paired(beside, own, weights, n_perm=n_perm, level=LEVEL, rng=rng)
    by_size = interval(resampled_means(part - other, weights), LEVEL)[0]
    null, n = float(beside.mean()), int(found.n_a)
    return Advantage(
        float(own.mean()), null + float(found.low), null + float(found.high), null,
        float(found.p) if n >= MIN_ITEMS else float("nan"),
        float(np.mean(by_size > 0)) if len(sizes) > 1 and n else float("nan"), n,
    )  # fmt: skip


def replaced_units(chosen: NDArray[np.int64], keep: bool, n_layers: int, width: int) -> list[NDArray[np.int64]]:
    """Neurons of each layer that lose their values when the chosen ones are kept, or when they are removed.

    Parameters
    ----------
    chosen : ndarray of int64
        Places in (layer, neuron), flattened.
    """
    is_chosen = np.zeros(n_layers * width, dtype=bool)
    is_chosen[chosen] = True
    return [np.flatnonzero(layer != keep) for layer in is_chosen.reshape(n_layers, width)]


def control_sets(
    score: Floats, activity: Floats, size: int, width: int, n_draws: int, rng: np.random.Generator
) -> dict[str, list[NDArray[np.int64]]]:
    """The neurons of highest score, and draws of control sets with as many neurons of each layer.

    Parameters
    ----------
    score, activity : ndarray
        (layer x neuron,): by which neurons are chosen, and mean |activation|, by which others are matched.
    width : int
        Neurons of a layer.

    Returns
    -------
    dict of list of ndarray of int64
        `chosen` (once), `random` and `matched`; places in (layer, neuron), flattened. A matched set is smaller where a
        layer has too few other neurons.
    """
    chosen = _top(score, size)
    # Scores shuffled within layers have as many neurons of each layer on top.
    shuffled = [shuffled_within_layers(score[None], width, rng)[0] for _ in range(n_draws)]
    return {
        "chosen": [chosen],
        "random": [_top(other, size) for other in shuffled],
        "matched": [matched_neurons(chosen, activity, width, chosen, rng) for _ in range(n_draws)],
    }


def _top(score: Floats, size: int) -> NDArray[np.int64]:
    return np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")[:size]
