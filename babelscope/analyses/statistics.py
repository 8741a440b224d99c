"""Resampling over items: intervals, permutation p-values, false discovery rates, group contrasts, verdicts."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

SUPPORTED = "supported"
NOT_DISTINGUISHABLE = "not distinguishable from the null"
THRESHOLD_DEPENDENT = "depends on the threshold"
EXPLAINED = "explained by template or letter"
NOT_TESTABLE = "not testable with this data"

MIN_ITEMS = 4
ALPHA = 0.05
FEWEST_VARYING = 8
STABLE_SHARE = 0.8  # of the threshold grid; fixed before looking (methods, section 4)


def share(part: NDArray[np.generic], whole: NDArray[np.generic] | int) -> Floats:
    """Quotient, NaN where the whole is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(whole) == 0, np.nan, np.true_divide(part, whole))


def mean_of_defined(values: Floats, axis: int = -1) -> Floats:
    """Mean along an axis over what is defined; NaN, without a warning, where nothing is."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0.0).sum(axis=axis), defined.sum(axis=axis))


@dataclass(frozen=True, slots=True)
class Resamples:
    """The resampled items of one group, shared by every layer, site, metric, pair and threshold.

    Parameters
    ----------
    weights : ndarray of float64
        (resample, item): how often the bootstrap drew each item.
    permutations : ndarray of int32
        (permutation, language, item): an own shuffle of the items for each language.
    """

    weights: Floats
    permutations: NDArray[np.int32]


def stream(seed: int, *names: str) -> np.random.Generator:
    """A generator of its own for each name: adding a group or a language leaves the others' numbers alone."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def resample(
    n_items: int, languages: Sequence[str], *, seed: int, group: str, n_boot: int = 2000, n_perm: int = 2000,
    strata: Sequence[NDArray[np.int64]] | None = None,
) -> Resamples:  # fmt: skip
    """Bootstrap weights and permutations of the items of a group.

    Each language is shuffled on its own, so that a pair sees a uniformly random pairing of its items and the mean
    over pairs sees a data set that could have been drawn if nothing tied the languages' items together. One pairing
    for all pairs at once would not be such a data set: a-b, b-c and a-c could not all be shifted alike.

    With `strata`, the items of each and every item once, shuffles stay within them. Bootstraps do not: how many items
    a stratum has is as random as which.
    """
    weights = bootstrap_weights(n_items, n_boot, stream(seed, "bootstrap", group))
    permutations = np.empty((n_perm, len(languages), n_items), dtype=np.int32)
    identity = np.broadcast_to(np.arange(n_items, dtype=np.int32), (n_perm, n_items))
    for k, language in enumerate(languages):
        rng = stream(seed, "permutation", group, language)
        for rows in strata or (np.arange(n_items),):
            permutations[:, k, rows] = rng.permuted(identity[:, rows], axis=1)
    return Resamples(weights, permutations)


def bootstrap_weights(n_items: int, n_boot: int, rng: np.random.Generator) -> Floats:
    """Counts of each item in `n_boot` draws with replacement, (resample, item)."""
    return rng.multinomial(n_items, np.full(n_items, 1 / n_items), size=n_boot).astype(np.float64)


def resampled_means(values: Floats, weights: Floats) -> Floats:
    """Mean over the defined items in every resample.

    Parameters
    ----------
    values : ndarray
        (..., item), NaN where undefined.
    weights : ndarray
        (resample, item).

    Returns
    -------
    ndarray
        (..., resample); NaN where a resample holds no defined item.
    """
    defined = ~np.isnan(values)
    if defined.all():
        means: Floats = values @ weights.T / weights.sum(axis=1)
        return means
    with np.errstate(invalid="ignore"):
        means = (np.where(defined, values, 0.0) @ weights.T) / (defined.astype(np.float64) @ weights.T)
    return means


def interval(means: Floats, level: float) -> tuple[Floats, Floats]:
    """Percentile interval over the last axis, NaN resamples left out; NaN where more than half of them are."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    flat = means.reshape(-1, means.shape[-1])
    bounds = np.full((2, len(flat)), np.nan)
    undefined = np.isnan(flat).mean(axis=1)
    whole = undefined == 0
    if whole.any():
        bounds[:, whole] = np.quantile(flat[whole], tails, axis=1)
    partial = ~whole & (undefined <= 0.5)
    if partial.any():
        bounds[:, partial] = np.nanquantile(flat[partial], tails, axis=1)
    low, high = bounds.reshape(2, *means.shape[:-1])
    return low, high


def permutation_p(observed: Floats, permuted: Floats) -> Floats:
    """One-sided p of a mean that is larger than under shuffled pairings, by the add-one rule.

    `p = (1 + #{T >= T_observed}) / (1 + #T)` is never 0 (Phipson and Smyth 2010, arXiv:1603.05766). A shuffle
    whose mean is undefined counts against the effect.

    Parameters
    ----------
    observed : ndarray
        (...).
    permuted : ndarray
        (..., permutation).
    """
    # Equal sums in another order differ in the last bits, and must count as ties.
    slack = 1e-12 * np.maximum(1.0, np.abs(observed))
    reached = ~(permuted < (observed - slack)[..., None])
    p = (1 + reached.sum(axis=-1)) / (1 + permuted.shape[-1])
    return np.where(np.isnan(observed), np.nan, p)


def max_t(observed: Floats, permuted: Floats) -> Floats:
    """P of each cell among all cells of a family at once, by the highest standardized cell of every shuffle.

    Each cell is standardized by the mean and deviation of its own shuffles, so that wide cells do not decide alone.
    Holds the family-wise error rate whatever the cells have in common, as the shuffles are the same for all of them
    (Westfall and Young 1993, *Resampling-Based Multiple Testing*).

    Parameters
    ----------
    observed : ndarray
        (..., cell).
    permuted : ndarray
        (..., cell, permutation).

    Returns
    -------
    ndarray
        (..., cell); NaN for an undefined cell, which takes no part, and for one whose shuffles do not vary.
    """
    mean = mean_of_defined(permuted)
    deviation = np.sqrt(mean_of_defined((permuted - mean[..., None]) ** 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(deviation > 0, (observed - mean) / deviation, np.nan)
        shuffled = np.where(deviation[..., None] > 0, (permuted - mean[..., None]) / deviation[..., None], np.nan)
    shuffled = np.where(np.isnan(t)[..., None], np.nan, shuffled)
    highest = np.where(np.isnan(shuffled), -np.inf, shuffled).max(axis=-2, keepdims=True)
    # Cells kept in float32 tie to six digits.
    reached = (highest >= t[..., None] - 1e-6 * np.maximum(1.0, np.abs(t))[..., None]).sum(axis=-1)
    return np.where(np.isnan(t), np.nan, (1 + reached) / (1 + permuted.shape[-1]))


def benjamini_hochberg(p: pd.Series) -> pd.Series:
    """Adjusted p-values of one family (Benjamini and Hochberg 1995); NaN stays NaN and does not count."""
    q = p.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    defined = ~np.isnan(q)
    if defined.any():
        q[defined] = stats.false_discovery_control(q[defined], method="bh")
    return pd.Series(q, index=p.index)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Mean of one group minus mean of another, cell by cell; all fields have the cells' shape."""

    estimate: Floats
    low: Floats
    high: Floats
    p: Floats
    n_a: NDArray[np.int64]
    n_b: NDArray[np.int64]


def contrast(
    a: Floats, b: Floats, weights_a: Floats, weights_b: Floats, *, n_perm: int, level: float, rng: np.random.Generator
) -> Contrast:
    """Difference of the mean gap of two groups of items.

    The interval resamples the items of each group on its own. The p is two-sided and permutes group labels; its
    statistic is studentized, which keeps the level when the groups differ in spread and size (Janssen 1997,
    Statistics & Probability Letters 36, 9-21) where the plain difference does not.

    Parameters
    ----------
    a, b : ndarray
        (..., item) of each group, NaN where undefined.
    weights_a, weights_b : ndarray
        (resample, item) of each group, with equally many resamples.
    """
    low, high = interval(resampled_means(a, weights_a) - resampled_means(b, weights_b), level)
    pooled = np.concatenate([a, b], axis=-1)
    labels = np.zeros((n_perm + 1, pooled.shape[-1]))
    labels[:, : a.shape[-1]] = 1.0
    labels[1:] = rng.permuted(labels[1:], axis=1)
    t = np.abs(_welch(pooled, labels))
    p = np.where(_nearly_constant(a, b), np.nan, permutation_p(t[..., 0], t[..., 1:]))
    n_a, n_b = (np.count_nonzero(~np.isnan(x), axis=-1) for x in (a, b))
    estimate = resampled_means(a, np.ones((1, a.shape[-1]))) - resampled_means(b, np.ones((1, b.shape[-1])))
    return Contrast(estimate[..., 0], low, high, p, np.asarray(n_a), np.asarray(n_b))


def paired(
    a: Floats, b: Floats, weights: Floats, *, n_perm: int, level: float, rng: np.random.Generator,
    groups: NDArray[np.int64] | None = None,
) -> Contrast:  # fmt: skip
    """Mean of `b` minus `a` over the same items, as before and after.

    The interval resamples items, which keep both of their values. The p is two-sided and flips the signs of the
    differences, item by item: without a change, before and after are interchangeable.

    Parameters
    ----------
    a, b : ndarray
        (..., item), NaN where undefined; an item counts where both are defined.
    weights : ndarray
        (resample, item).
    groups : ndarray of int64, optional
        (item,): items that belong together, whose signs flip together.
    """
    change = b - a
    low, high = interval(resampled_means(change, weights), level)
    place = np.arange(change.shape[-1]) if groups is None else np.unique(groups, return_inverse=True)[1]
    signs = rng.choice(np.array([-1.0, 1.0]), size=(n_perm, int(place.max(initial=-1)) + 1))[:, place]
    defined = ~np.isnan(change)
    n = np.asarray(np.count_nonzero(defined, axis=-1))
    flipped = share(np.where(defined, change, 0.0) @ signs.T, n[..., None])
    estimate = mean_of_defined(change)
    return Contrast(estimate, low, high, permutation_p(np.abs(estimate), np.abs(flipped)), n, n)


def _nearly_constant(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Whether most items of both groups have one value, and fewer than `FEWEST_VARYING` of all have another.

    As where hardly an item is found in another language. The nulls of two groups then differ by less than one such
    item, always along the labels and in no permutation, and that alone makes the observed labels the most extreme ones.
    """
    varying, mostly = np.zeros(a.shape[:-1], dtype=np.int64), np.ones(a.shape[:-1], dtype=bool)
    for values in (a, b):
        defined = ~np.isnan(values)
        median = np.array([np.median(v[d]) if d.any() else np.nan for v, d in zip(
            values.reshape(-1, values.shape[-1]), defined.reshape(-1, values.shape[-1]), strict=True
        )]).reshape(values.shape[:-1])  # fmt: skip
        other = defined & (np.abs(values - median[..., None]) > 1e-9)
        varying += other.sum(axis=-1)
        mostly &= other.sum(axis=-1) < defined.sum(axis=-1) / 2
    return np.asarray(mostly & (varying < FEWEST_VARYING))


def _welch(values: Floats, labels: Floats) -> Floats:
    """Welch's t of the items labeled 1 against those labeled 0, (..., labeling); NaN where neither side varies."""
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    # Shifting by a constant changes no variance and avoids cancellation in the sums of squares.
    center = filled.sum(axis=-1, keepdims=True) / np.maximum(defined.sum(axis=-1, keepdims=True), 1)
    filled = np.where(defined, filled - center, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means, errors = [], []
        for side in (labels, 1 - labels):
            n = defined.astype(np.float64) @ side.T
            mean = (filled @ side.T) / n
            variance = ((filled**2) @ side.T - n * mean**2) / (n - 1)
            means.append(mean)
            errors.append(np.maximum(variance, 0.0) / n)
        # Two constants differ for sure or not at all: nothing says how much by chance. What is left is rounding.
        noise = 1e-12 * (filled**2).max(axis=-1, keepdims=True)
        error = np.where(errors[0] + errors[1] > noise, errors[0] + errors[1], np.nan)
        t: Floats = (means[0] - means[1]) / np.sqrt(error)
    return t


def verdicts(gap: pd.Series, low: pd.Series, high: pd.Series, q: pd.Series, n: pd.Series) -> pd.Series:
    """The fixed words for each row: supported means q < 0.05 and an interval that excludes zero."""
    excludes_zero = (low > 0) | (high < 0)
    words = pd.Series(NOT_DISTINGUISHABLE, index=gap.index, dtype="str")
    words[(q < ALPHA) & excludes_zero] = SUPPORTED
    words[(n < MIN_ITEMS) | gap.isna() | q.isna()] = NOT_TESTABLE
    return words
