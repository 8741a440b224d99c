"""Neurons on which answers of one kind rest more than those of another: which, and whether languages share them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.statistics import Floats, share

N_FOLDS = 10
NEIGHBORS = 20


def relative_attribution(activation: NDArray[np.floating], gradient: NDArray[np.floating]) -> NDArray[np.float32]:
    """What putting each neuron at its mean takes from an answer, to first order, as a share of all neurons' together.

    `(a - mean a) dy/da` over the sum of its sizes over the neurons of the prompt, so that prompts with a steep answer
    do not decide for the others. The mean is over these prompts, as in the ablation that follows.

    Parameters
    ----------
    activation, gradient : ndarray
        (prompt, layer, neuron).

    Returns
    -------
    ndarray of float32
        (prompt, layer x neuron), signed; NaN where no neuron of a prompt counts.
    """
    part = (gradient * (activation - activation.mean(axis=0))).reshape(len(activation), -1)
    return share(part, np.abs(part).sum(axis=1, keepdims=True)).astype(np.float32)


def folds(n_items: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A fold of `N_FOLDS` for each item, at random and as equal as can be."""
    return rng.permutation(np.arange(n_items) % N_FOLDS)


@dataclass(frozen=True, slots=True, eq=False)
class Selectivity:
    """How much more of an answer of one kind each neuron carries than of the other.

    Parameters
    ----------
    t : ndarray
        (neuron,) of the coefficient of the kind, other covariates held equal; NaN for a neuron that never counts.
    p : ndarray
        (neuron,) two-sided.
    """

    t: Floats
    p: Floats


def selectivity(attribution: NDArray[np.floating], kind: NDArray[np.bool_], covariates: Floats) -> Selectivity:
    """Ordinary least squares of each neuron's attribution on the kind of the item and its covariates.

    Parameters
    ----------
    attribution : ndarray
        (item, neuron).
    kind : ndarray of bool
        (item,).
    covariates : ndarray
        (item, covariate); those that the others determine are left out.
    """
    design = np.column_stack([np.ones(len(kind)), kind, *covariates.T])
    kept = [0, 1]
    for column in range(2, design.shape[1]):
        if np.linalg.matrix_rank(design[:, [*kept, column]]) == len(kept) + 1:
            kept.append(column)
    X, Y = design[:, kept], np.asarray(attribution, dtype=np.float64)
    inverse = np.linalg.inv(X.T @ X)
    beta = inverse @ X.T @ Y
    free = len(X) - len(kept)
    variance = ((Y - X @ beta) ** 2).sum(axis=0) / free if free > 0 else np.full(Y.shape[1], np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(variance > 0, beta[1] / np.sqrt(variance * inverse[1, 1]), np.nan)
    return Selectivity(t, 2 * stats.t.sf(np.abs(t), max(free, 1)))


def corrected_correlation(
    sums: NDArray[np.floating], counts: NDArray[np.integer], left_out: int | None = None
) -> float:
    """Mean correlation of the neurons' importance between languages, corrected for its reliability.

    Each language's importance is estimated from two halves of the items. Between languages different halves are
    correlated, since the same items share their noise; divided by the root of the two languages' own split-half
    correlations (Spearman 1904, American Journal of Psychology 15, 72-101), sampling noise does not count as
    difference. Square roots of importances, whose spread is even.

    Parameters
    ----------
    sums : ndarray
        (language, fold, neuron) summed importance; the first half of the folds is the first half of the items.
    counts : ndarray of int
        (fold,) items.
    left_out : int, optional
        A fold that is not there, for a jackknife.

    Returns
    -------
    float
        NaN where a language's halves do not correlate, so that nothing can be corrected.
    """
    chosen = [f for f in range(len(counts)) if f != left_out]
    halves = [[f for f in chosen if (f < len(counts) // 2) == first] for first in (True, False)]
    if any(counts[half].sum() == 0 for half in halves):
        return float("nan")
    means = np.stack([np.sqrt(sums[:, half].sum(axis=1) / counts[half].sum()) for half in halves])
    centered = means - means.mean(axis=-1, keepdims=True)
    length = np.sqrt((centered**2).sum(axis=-1, keepdims=True))
    unit = np.divide(centered, length, out=np.full_like(centered, np.nan), where=length > 0)
    across = np.einsum("an,bn->ab", unit[0], unit[1])
    reliability = np.diagonal(across)
    if not (reliability > 0).all():
        return float("nan")
    corrected = (across + across.T) / 2 / np.sqrt(np.outer(reliability, reliability))
    return float(corrected[np.triu_indices(len(sums), 1)].mean())


@dataclass(frozen=True, slots=True)
class Jackknife:
    """An estimate with its interval and two-sided p from leaving out folds."""

    estimate: float
    low: float
    high: float
    p: float


def jackknifed(estimate: float, without: Sequence[float]) -> Jackknife:
    """Delete-a-group jackknife with the t distribution (Kott 2001, Journal of Official Statistics 17, 521-526)."""
    values = np.asarray(without, dtype=np.float64)
    if np.isnan(estimate) or np.isnan(values).any():
        return Jackknife(estimate, float("nan"), float("nan"), float("nan"))
    n = len(values)
    error = float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))
    if error == 0:
        return Jackknife(estimate, estimate, estimate, float("nan"))
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    return Jackknife(estimate, estimate - reach, estimate + reach, float(2 * stats.t.sf(abs(estimate) / error, n - 1)))


def matched_neurons(
    chosen: NDArray[np.int64], size: Floats, width: int, avoid: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each neuron another one of its layer that is about as active, each taken once.

    Parameters
    ----------
    chosen : ndarray of int64
        Places in (layer, neuron), flattened.
    size : ndarray
        (layer x neuron,) mean |activation|.
    width : int
        Neurons of a layer.
    avoid : ndarray of int64
        Neurons that may not be drawn.
    """
    taken = set(map(int, chosen)) | set(map(int, avoid))
    found = []
    for place in chosen:
        start = place // width * width
        order = start + np.argsort(np.abs(size[start : start + width] - size[place]))
        free = [int(k) for k in order if int(k) not in taken][:NEIGHBORS]
        if free:
            found.append(free[int(rng.integers(len(free)))])
            taken.add(found[-1])
    return np.array(found, dtype=np.int64)
