"""Inference where items alone are not the sample: languages as a sample, pairs that share one, and no difference."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.statistics import Floats, mean_of_defined, permutation_p, share
from babelscope.errors import BabelScopeError

Correlate = Callable[[Floats, Floats], Floats]

# A language left out of three leaves one pair, which has no correlation.
MIN_LANGUAGES = 4


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Whether a mean is within (-smallest, smallest); all fields have the cells' shape.

    `low` and `high` bound the mean at level 1 - 2 alpha: `p < alpha` exactly where that interval is within the bounds.
    """

    estimate: Floats
    low: Floats
    high: Floats
    p: Floats
    n: NDArray[np.int64]


def equivalence(a: Floats, smallest: float, b: Floats | None = None, *, alpha: float = 0.05) -> Equivalence:
    """Two one-sided t tests that a mean, or a difference of two means, is smaller in size than an effect that matters.

    p is that of the weaker of the two tests (Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15,
    657-680). A large p says nothing: it is no evidence of a difference.

    Parameters
    ----------
    a : ndarray
        (..., item), as gaps per item; NaN where undefined.
    smallest : float
        The smallest size of effect that would matter, in the units of the values; stated before looking.
    b : ndarray, optional
        (..., item) of another group of items, whose mean is subtracted (Welch's error and degrees of freedom). For
        two values of the same items give their differences as `a`.
    alpha : float

    Raises
    ------
    BabelScopeError
        If `smallest` is not positive.
    """
    if not smallest > 0:
        raise BabelScopeError(f"the smallest effect that matters is {smallest}", "state a positive one")
    estimate, variance, n = _mean_and_variance(a)
    freedom = n - 1.0
    if b is not None:
        other, other_variance, n_b = _mean_and_variance(b)
        total = variance + other_variance
        freedom = share(total**2, share(variance**2, n - 1) + share(other_variance**2, n_b - 1))
        estimate, variance, n = estimate - other, total, n + n_b
    error = np.sqrt(variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = (estimate + smallest) / error, (smallest - estimate) / error
    # Values without spread are known exactly, and t is infinite.
    freedom = np.where(variance == 0, np.inf, freedom)
    p = np.maximum(stats.t.sf(above, freedom), stats.t.sf(below, freedom))
    half = stats.t.ppf(1 - alpha, freedom) * error
    return Equivalence(estimate, estimate - half, estimate + half, p, np.asarray(n))


def _mean_and_variance(values: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean of what is defined, variance of that mean, and how many: NaN below two values."""
    n = np.count_nonzero(~np.isnan(values), axis=-1)
    mean = mean_of_defined(values)
    squares = np.where(np.isnan(values), 0.0, values - mean[..., None]) ** 2
    return mean, share(squares.sum(axis=-1), np.where(n < 2, 0, (n - 1) * n)), np.asarray(n)


def pigeonhole_means(values: Floats, item_weights: Floats, language_weights: Floats) -> Floats:
    """Means over items and languages that are resampled independently of each other.

    Holds for claims about languages of the kind and items of the kind. Its variance is slightly too large rather than
    too small (Owen 2007, *The pigeonhole bootstrap*, Annals of Applied Statistics 1, 386-411); that of items alone is
    too small there.

    Parameters
    ----------
    values : ndarray
        (..., item, language), NaN where undefined.
    item_weights : ndarray
        (resample, item): how often each was drawn, as of `statistics.bootstrap_weights`.
    language_weights : ndarray
        (resample, language); for values of language pairs (resample, pair), from `pair_weights`.

    Returns
    -------
    ndarray
        (..., resample); NaN where a resample holds no defined value.
    """
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    sums, counts = (
        np.einsum("...il,bi,bl->...b", x, item_weights, language_weights, optimize=True)
        for x in (filled, defined.astype(np.float64))
    )
    return share(sums, counts)


def pair_weights(language_weights: Floats, pairs: Sequence[tuple[int, int]]) -> Floats:
    """How often a pair is in a resample of languages: the product of its two counts, (resample, pair).

    A language drawn twice makes no pair with itself.
    """
    a, b = np.array(pairs).T
    weights: Floats = language_weights[:, a] * language_weights[:, b]
    return weights


@dataclass(frozen=True, slots=True)
class PairCorrelation:
    """A correlation over language pairs, whose sample is the languages; undefined below four of them.

    `without` is (language,): the correlation without the pairs of each language. `n_languages` counts those that are
    in a defined pair.
    """

    estimate: float
    low: float
    high: float
    p: float
    without: Floats
    n_pairs: int
    n_languages: int


def pair_correlation(
    x: Floats, y: Floats, pairs: Sequence[tuple[int, int]], *, n_perm: int, rng: np.random.Generator,
    correlate: Correlate | None = None, level: float = 0.95,
) -> PairCorrelation:  # fmt: skip
    """Correlation of two values of language pairs, where pairs that share a language are not independent.

    The interval leaves out one language with all its pairs at a time, `variance = (L - 1) / L * sum((r_l - mean)^2)`
    with Student's t of L - 1 (Frank and Snijders 1994, Journal of Official Statistics 10, 53-67). Where pairs depend on
    each other through their languages it is right; were they independent, its variance would be twice too large.

    The p is two-sided and relabels the languages of `y` as a whole, so that what pairs share stays shared (Mantel 1967,
    Cancer Research 27, 209-220); of four languages it cannot fall below about 1/24.

    Parameters
    ----------
    x, y : ndarray
        (pair,), NaN where undefined.
    pairs : sequence of (int, int)
        Unordered pairs of languages by index.
    n_perm : int
    rng : Generator
    correlate : callable, optional
        Correlation over the last axis of arrays of equal shape (default: `pearson`; `spearman` for ranks).
    """
    correlate = correlate or pearson
    a, b = np.array(pairs).T
    counts = ~np.isnan(x) & ~np.isnan(y)
    languages = np.unique(np.concatenate([a[counts], b[counts]]))
    x = np.where(counts, x, np.nan)
    # Of three languages three points remain, which lie on a line too easily to be shown.
    estimate = float(correlate(x, y)) if len(languages) >= MIN_LANGUAGES else float("nan")
    without = np.full(int(max(a.max(), b.max())) + 1, np.nan)
    for language in languages:
        kept = (a != language) & (b != language)
        without[language] = correlate(x[kept], y[kept])
    low, high = jackknife_interval(estimate, without[languages], level)
    matrix = np.full((len(without), len(without)), np.nan)
    matrix[a, b] = matrix[b, a] = y
    # Languages without any value keep their place: moving them would change what is compared.
    relabeled = np.broadcast_to(np.arange(len(without)), (n_perm, len(without))).copy()
    relabeled[:, languages] = rng.permuted(relabeled[:, languages], axis=1)
    shuffled = matrix[relabeled[:, a], relabeled[:, b]]
    p = permutation_p(np.array(abs(estimate)), np.abs(correlate(np.broadcast_to(x, shuffled.shape), shuffled)))
    return PairCorrelation(estimate, low, high, float(p), without, int(counts.sum()), len(languages))


def jackknife_interval(estimate: float, without: Floats, level: float) -> tuple[float, float]:
    """Interval of a correlation from its values without each of the languages; NaN below four of them.

    A correlation that is undefined without some language has no interval: its error cannot be known.
    """
    n = len(without)
    if n < MIN_LANGUAGES or np.isnan(without).any():
        return np.nan, np.nan
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * error)
    return max(estimate - half, -1.0), min(estimate + half, 1.0)


def pearson(x: Floats, y: Floats) -> Floats:
    """Correlation over the last axis, where both are defined; NaN below three values, and without spread."""
    defined = ~np.isnan(x) & ~np.isnan(y)
    n = defined.sum(axis=-1)
    u, v = (np.where(defined, z - mean_of_defined(np.where(defined, z, np.nan))[..., None], 0.0) for z in (x, y))
    spread = (u**2).sum(axis=-1) * (v**2).sum(axis=-1)
    # Rounding leaves a spread of the order of the squared values' last digits.
    scale = np.prod([np.where(defined, z**2, 0.0).sum(axis=-1) for z in (x, y)], axis=0)
    return np.clip(
        share((u * v).sum(axis=-1), np.sqrt(np.where((n < 3) | (spread <= 1e-24 * scale), 0, spread))), -1, 1
    )


def spearman(x: Floats, y: Floats) -> Floats:
    """Rank correlation over the last axis, ties at their mean rank, where both are defined."""
    undefined = np.isnan(x) | np.isnan(y)
    ranks = [stats.rankdata(np.where(undefined, np.nan, z), axis=-1, nan_policy="omit") for z in (x, y)]
    return pearson(*ranks)


def benjamini_yekutieli(p: pd.Series) -> pd.Series:
    """Adjusted p-values of one family, whatever their dependence; NaN stays NaN and does not count.

    Benjamini and Yekutieli (2001), Annals of Statistics 29, 1165-1188: those of Benjamini-Hochberg times
    1 + 1/2 + ... + 1/m.
    """
    q = pd.Series(np.nan, index=p.index, dtype="float64")
    defined = p.notna()
    if defined.any():
        q[defined] = stats.false_discovery_control(p[defined].to_numpy(dtype=np.float64), method="by")
    return q


def mcnemar(a: Floats, b: Floats) -> float:
    """Two-sided exact p that as many items are right in `a` alone as in `b` alone; 1 where no item is in one alone.

    McNemar (1947), Psychometrika 12, 153-157, by the binomial distribution.

    Parameters
    ----------
    a, b : ndarray
        (item,) of 0 and 1.
    """
    only_a, only_b = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
