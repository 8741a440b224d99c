"""How far two values of the same items lie apart, as differences and as distributions."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.prediction import rank_biserial
from babelscope.analyses.statistics import Floats, interval, resampled_means, share


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect size, its interval over items, and what it is where the two values are exchangeable."""

    estimate: float
    low: float
    high: float
    null: float


def standardized_difference(a: Floats, b: Floats, weights: Floats, level: float = 0.95) -> Effect:
    """Mean of `b - a` per standard deviation of these differences (Cohen's d of paired values, d_z).

    Parameters
    ----------
    a, b : ndarray
        (item,), NaN where undefined: such items do not count.
    weights : ndarray
        (resample, item).

    Returns
    -------
    Effect
        NaN where the differences do not vary.
    """
    change = b - a
    ones = np.ones((1, len(change)))
    low, high = interval(_d(change, weights)[None], level)
    return Effect(float(_d(change, ones)[0]), float(low[0]), float(high[0]), 0.0)


def _d(change: Floats, weights: Floats) -> Floats:
    mean = resampled_means(change, weights)
    center = float(np.nanmean(change)) if not np.isnan(change).all() else 0.0
    n = weights @ (~np.isnan(change)).astype(np.float64)
    spread = resampled_means((change - center) ** 2, weights) - (mean - center) ** 2
    noise = 1e-24 * np.nanmax(change**2, initial=0.0)
    variance = np.where(spread > noise, spread, np.nan) * share(n, np.where(n > 1, n - 1, 0))
    return mean / np.sqrt(variance)


def exceedance(a: Floats, b: Floats, weights: Floats, level: float = 0.95) -> Effect:
    """Area under the ROC curve: how often a value of `b` is above a value of `a`, whichever their items; ties half.

    Parameters are those of `standardized_difference`; the interval resamples items, which keep both of their values.
    """
    both = ~np.isnan(a) & ~np.isnan(b)
    values = np.concatenate([np.where(both, a, np.nan), np.where(both, b, np.nan)])
    nothing = np.zeros((len(weights), len(a)))
    ones = np.ones((1, len(a)))

    def area(counts: Floats) -> Floats:
        none = nothing[: len(counts)]
        higher, lower = np.concatenate([none, counts], axis=1), np.concatenate([counts, none], axis=1)
        return (rank_biserial(values, higher, lower) + 1) / 2

    low, high = interval(area(weights)[None], level)
    return Effect(float(area(ones)[0]), float(low[0]), float(high[0]), 0.5)


def largest_distance(
    a: Floats, b: Floats, weights: Floats, *, n_perm: int, rng: np.random.Generator, level: float = 0.95
) -> Effect:
    """Kolmogorov-Smirnov distance of two distributions, the largest difference of their cumulative shares.

    It is above 0 between samples of one distribution, too: the null is its mean when the two values of each item change
    places at random. For the same reason its resamples lie above it, and the interval with them.

    Parameters are those of `standardized_difference`; n_perm exchanges are drawn.
    """
    both = ~np.isnan(a) & ~np.isnan(b)
    a, b, weights = a[both], b[both], weights[:, both]
    if not len(a):
        return Effect(np.nan, np.nan, np.nan, np.nan)
    order = np.argsort(np.concatenate([a, b]), kind="stable")
    ordered = np.concatenate([a, b])[order]
    ends = np.append(ordered[1:] > ordered[:-1], True)  # cumulative shares are compared behind ties
    sign = np.concatenate([np.ones(len(a)), -np.ones(len(b))])

    def distance(steps: Floats, totals: Floats) -> Floats:
        heights = np.cumsum(steps[:, order], axis=1)[:, ends]
        return share(np.abs(heights).max(axis=1), totals)

    doubled = np.concatenate([weights, weights], axis=1) * sign
    low, high = interval(distance(doubled, weights.sum(axis=1))[None], level)
    flips = rng.choice(np.array([-1.0, 1.0]), size=(n_perm, len(a)))
    null = distance(np.concatenate([flips, -flips], axis=1), np.full(n_perm, float(len(a)))).mean()
    found = distance(sign[None], np.array([float(len(a))]))[0]
    return Effect(float(found), float(low[0]), float(high[0]), float(null))
