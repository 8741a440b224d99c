"""Which neurons are of a language: LAPE, ranks of languages, and how many languages a neuron fires in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.statistics import Floats, share


def entropies(rates: Floats) -> Floats:
    """Entropy over languages of each neuron's rates, nats; NaN where it never fires.

    (neuron, language) -> (neuron,).
    """
    shares = share(rates, rates.sum(axis=1, keepdims=True))
    terms = np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0)
    return np.asarray(np.where(np.isnan(shares).any(axis=1), np.nan, -terms.sum(axis=1)))


def lape(rates: Floats, top_rate: float = 0.01, percentile: float = 95.0) -> NDArray[np.bool_]:
    """Neurons of each language by language activation probability entropy.

    Of neurons whose rate in some language reaches the percentile of all rates, those of lowest entropy over
    languages, `top_rate` of all neurons at most; each belongs to the languages in which it fires that often.

    A fixed share of the neurons is always found, whatever they do: compare with permuted labels. The published code
    gives a neuron that never fires the lowest entropy of all, 0; here it has none and is not chosen. It also counts
    languages with a `bincount` that forgets the last ones where they have no neuron. The code asks for rates above the
    percentile; over items, neurons that always fire reach it and none is above it, so that reaching it counts here.

    Parameters
    ----------
    rates : ndarray
        (neuron, language) share of rows in which the neuron is above 0.

    Returns
    -------
    ndarray of bool
        (neuron, language).

    References
    ----------
    Tang et al. (2024), arXiv:2402.16438, section 2.2, and the authors' code.
    """
    bound = np.percentile(rates, percentile)
    often = (rates >= bound) & (rates > 0)
    entropy = np.where(often.any(axis=1), np.nan_to_num(entropies(rates), nan=np.inf), np.inf)
    chosen = np.argsort(entropy, kind="stable")[: max(1, round(top_rate * len(rates)))]
    found = np.zeros_like(often)
    found[chosen] = often[chosen] & np.isfinite(entropy[chosen])[:, None]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Detectors:
    """How well each neuron tells a language from the others, (language, neuron).

    Parameters
    ----------
    auroc : ndarray
        Chance that a row of the language is above one of another language, ties counting half.
    average_precision : ndarray
        Mean precision at the rows of the language, from the highest activation down; by chance about 1 / languages.
        Equal activations are passed together, as scikit-learn does: in any order of their own, the languages read first
        would win wherever neurons are silent.
    z, p : ndarray
        Of the mean rank of the language among all languages of the same item, two-sided: languages of one item are
        exchangeable where a neuron does not care about language (Friedman 1937, JASA 32, 675-701).
    """

    auroc: Floats
    average_precision: Floats
    z: Floats
    p: Floats


def detectors(x: NDArray[np.generic]) -> Detectors:
    """Of a block (language, item, neuron) of finite activations; constant neurons have no p."""
    n_languages, n_items, n_neurons = x.shape
    flat = np.asarray(x, dtype=np.float64).reshape(-1, n_neurons)
    ranks = stats.rankdata(flat, axis=0).reshape(n_languages, n_items, n_neurons)
    own, others = n_items, (n_languages - 1) * n_items
    auroc = (ranks.sum(axis=1) - own * (own + 1) / 2) / (own * others)
    within = stats.rankdata(x, axis=0)
    mean = within.mean(axis=1) - (n_languages + 1) / 2
    # Ties lower the variance of ranks within an item, so it is taken from the ranks themselves.
    spread = np.sqrt((within.var(axis=0)).sum(axis=0)) / n_items
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(spread > 0, mean / spread, np.nan)
    return Detectors(auroc, _average_precision(flat, n_languages), z, 2 * stats.norm.sf(np.abs(z)))


def _average_precision(flat: Floats, n_languages: int) -> Floats:
    order = np.argsort(-flat, axis=0, kind="stable")
    language = order // (len(flat) // n_languages)
    ordered = np.take_along_axis(flat, order, axis=0)
    is_last = np.vstack([ordered[:-1] != ordered[1:], np.ones((1, flat.shape[1]), dtype=bool)])
    last = np.where(is_last, np.arange(len(flat))[:, None], len(flat))
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    found = []
    for own in range(n_languages):
        hit = language == own
        precision = np.take_along_axis(np.cumsum(hit, axis=0), last, axis=0) / (last + 1)
        found.append(np.where(hit, precision, 0.0).sum(axis=0) / hit.sum(axis=0))
    return np.array(found)


KINDS = ("none", "specific", "partial", "all-shared")


def shared_counts(firing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Neurons of each kind of `KINDS` per item, firing in no language, one, several, all.

    (language, item, neuron) -> (kind, item).
    """
    n_languages = len(firing)
    n_firing = firing.sum(axis=0)
    kinds = (n_firing == 0, n_firing == 1, (n_firing > 1) & (n_firing < n_languages), n_firing == n_languages)
    return np.array([kind.sum(axis=1) for kind in kinds])


def expected_counts(rates: Floats) -> Floats:
    """Neurons of each kind where languages fire independently of each other, at the rates of each neuron.

    The number of languages in which a neuron fires is Poisson-binomial; (language, neuron) -> (kind,).
    """
    none, every = np.prod(1 - rates, axis=0), np.prod(rates, axis=0)
    one = np.zeros(rates.shape[1])
    for own in range(len(rates)):
        one += rates[own] * np.prod(np.delete(1 - rates, own, axis=0), axis=0)
    if len(rates) == 1:
        one = np.zeros_like(one)  # one language is all of them
    return np.array([none.sum(), one.sum(), (1 - none - one - every).sum(), every.sum()])


def script_contrast(
    chosen: NDArray[np.bool_], scripts: Sequence[str], n_perm: int, rng: np.random.Generator
) -> tuple[float, float, float] | None:
    """Overlap of the neurons of two languages of one script minus that of two scripts; None without such pairs.

    Jaccard of the sets of pairs of languages. p relabels languages, two-sided, by the add-one rule: pairs share
    languages and are no sample.

    Parameters
    ----------
    chosen : ndarray of bool
        (neuron, language).

    Returns
    -------
    tuple of float
        Difference, its mean over relabelings, p.
    """
    n = chosen.shape[1]
    counts = chosen.T.astype(np.float64) @ chosen.astype(np.float64)
    sizes = np.diagonal(counts)
    overlap = share(counts, sizes[:, None] + sizes[None, :] - counts)
    same = np.array([[a == b for b in scripts] for a in scripts])
    upper = np.triu_indices(n, 1)
    if not same[upper].any() or same[upper].all():
        return None

    def difference(order: NDArray[np.int64]) -> float:
        is_same, values = same[np.ix_(order, order)][upper], overlap[upper]
        parts = [values[is_same], values[~is_same]]
        if not all(np.isfinite(part).any() for part in parts):
            return float("nan")
        return float(np.nanmean(parts[0]) - np.nanmean(parts[1]))

    observed = difference(np.arange(n))
    shuffled = np.array([difference(rng.permutation(n)) for _ in range(n_perm)])
    if np.isnan(observed):
        return None
    reached = ~(np.abs(shuffled) < abs(observed) - 1e-12)
    return observed, float(np.nanmean(shuffled)), float((1 + reached.sum()) / (1 + n_perm))
