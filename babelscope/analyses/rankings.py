"""Rankings of neurons in several languages: what they have in common, beside neurons shuffled within their layers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from sklearn.linear_model import LogisticRegression

from babelscope.analyses.similarities.cosine_zscored import standardized
from babelscope.analyses.statistics import Floats, benjamini_hochberg, mean_of_defined, permutation_p


@dataclass(frozen=True, slots=True)
class Compared:
    """A number beside its mean over shuffles, and the p of the shuffles."""

    value: float
    null: float
    p: float


def top_overlap(scores: Floats, k: int) -> float:
    """Mean over language pairs of the share of the top k that two languages have in common; (language, neuron).

    By chance k / neurons, where all layers are alike. Neurons that tie for the last places share them: of weights that
    are mostly zero the order of the neurons would otherwise make the same top in every language. NaN for undefined
    scores.
    """
    if np.isnan(scores).any():
        return float("nan")
    n = scores.shape[1]
    last = np.partition(scores, n - k, axis=1)[:, n - k, None]
    above, tied = scores > last, scores == last
    places = (k - above.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
    member = np.where(above, 1.0, np.where(tied, places, 0.0))
    shared = member @ member.T / k
    return float(shared[np.triu_indices(len(scores), 1)].mean())


def rank_correlation(scores: Floats) -> float:
    """Mean over language pairs of Spearman's correlation of their scores; (language, neuron)."""
    ranks = stats.rankdata(scores, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # scores that are all equal rank nothing
        correlations: Floats = np.asarray(np.corrcoef(ranks), dtype=np.float64)
    return float(correlations[np.triu_indices(len(scores), 1)].mean())


def shuffled_within_layers(scores: Floats, width: int, rng: np.random.Generator) -> Floats:
    """Every language's neurons in an order of their own, each within its layer of `width` neurons."""
    by_layer = scores.reshape(len(scores), -1, width)
    return rng.permuted(by_layer, axis=2).reshape(scores.shape)


def against_shuffles(
    statistic: Callable[[Floats], float], scores: Floats, width: int, n: int, rng: np.random.Generator
) -> Compared:
    """A statistic of (language, neuron) scores beside neurons shuffled within layers: layers alone explain nothing."""
    value = float(statistic(scores))
    shuffled = np.array([statistic(shuffled_within_layers(scores, width, rng)) for _ in range(n)])
    return Compared(value, float(shuffled.mean()), float(permutation_p(np.array(value), shuffled)))


def neuron_table(attribution: NDArray[np.floating], top: int) -> pd.DataFrame:
    """The neurons of largest mean size, with the mean, its 95 % interval, and t tests corrected over all neurons.

    Parameters
    ----------
    attribution : ndarray
        (item, layer, neuron); rows that are undefined do not count.
    """
    n_items, _, width = attribution.shape
    values = attribution.reshape(n_items, -1).astype(np.float64)
    values = values[~np.isnan(values).any(axis=1)]
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(error > 0, 2 * stats.t.sf(np.abs(mean) / error, len(values) - 1), np.nan)
    q = benjamini_hochberg(pd.Series(p)).to_numpy()
    chosen = np.argsort(-np.abs(mean), kind="stable")[:top]
    reach = stats.t.ppf(0.975, len(values) - 1) * error
    return pd.DataFrame(
        {
            "layer": pd.array(chosen // width, dtype="Int64"), "neuron": chosen % width, "n": len(values),
            "mean": mean[chosen], "low": (mean - reach)[chosen], "high": (mean + reach)[chosen], "null": 0.0,
            "p": p[chosen], "q": q[chosen],
        }
    )  # fmt: skip


def probeless(x: NDArray[np.generic], labels: NDArray[np.int64]) -> Floats:
    """How far the means of classes lie apart in each unit, summed over pairs of classes, in deviations; (row, unit).

    Units are standardized first: the published score grows with the scale of a unit.

    References
    ----------
    Antverg and Belinkov (2022), arXiv:2110.07483, section 3.
    """
    z = standardized(x)
    means = np.stack([mean_of_defined(z[labels == c], axis=0) for c in np.unique(labels)])
    a, b = np.triu_indices(len(means), 1)
    return np.asarray(np.abs(means[a] - means[b]).sum(axis=0))


def probe_weights(x: NDArray[np.generic], labels: NDArray[np.int64]) -> Floats:
    """Mean size over classes of the weights of a linear classifier on standardized units, (row, unit) -> (unit,).

    NaN where there is one class alone.

    References
    ----------
    Dalvi et al. (2019), arXiv:1812.09355: linguistic correlation analysis, with elastic net.
    """
    if len(np.unique(labels)) < 2:
        return np.full(x.shape[1], np.nan)
    probe = LogisticRegression(C=0.1, l1_ratio=0.5, solver="saga", max_iter=200, tol=1e-2, random_state=0)
    probe.fit(standardized(x), labels)
    return np.asarray(np.abs(probe.coef_).mean(axis=0))
