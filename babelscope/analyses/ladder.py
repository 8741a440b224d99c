"""A contrast of two groups on a ladder of nulls that share more and more with the item, and what it loses there."""

from dataclasses import dataclass

import numpy as np

from babelscope.analyses.statistics import (
    ALPHA,
    EXPLAINED,
    NOT_DISTINGUISHABLE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
    Contrast,
    Floats,
    contrast,
    interval,
    mean_of_defined,
    resampled_means,
)


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps of the items of two groups under one null, each (threshold, item), NaN where an item has none."""

    a: Floats
    b: Floats


@dataclass(frozen=True, slots=True)
class Part:
    """What a contrast loses from one null to a narrower one, over the items that have a gap under both.

    Parameters
    ----------
    loss : Contrast
        Contrast under the first null minus that under the other, with the interval of paired resamples of items.
    share, share_low, share_high : float
        The same as a share of the contrast under the first null; NaN where the interval of that holds zero.
    """

    loss: Contrast
    share: float
    share_low: float
    share_high: float


def grid_contrast(
    gaps: Gaps, weights: tuple[Floats, Floats], *, n_perm: int, rng: np.random.Generator
) -> tuple[Contrast, float]:
    """Contrast of the gaps averaged over a grid of thresholds, and its conclusion stability.

    Returns
    -------
    tuple
        The contrast, and the share of the grid on which it has the sign of this mean and its interval excludes zero;
        NaN for a single threshold.
    """
    level = 1 - ALPHA
    found = contrast(_over_grid(gaps.a), _over_grid(gaps.b), *weights, n_perm=n_perm, level=level, rng=rng)
    if len(gaps.a) < 2:
        return found, float("nan")
    low, high = interval(resampled_means(gaps.a, weights[0]) - resampled_means(gaps.b, weights[1]), level)
    agrees = low > 0 if found.estimate > 0 else high < 0
    return found, float(agrees.mean())


def part_explained(
    first: Gaps, then: Gaps, weights: tuple[Floats, Floats], *, n_perm: int, rng: np.random.Generator
) -> Part:
    """What the contrast of two groups loses when the null is narrowed."""
    before_a, before_b, after_a, after_b = map(_over_grid, (first.a, first.b, then.a, then.b))
    lost_a, lost_b = before_a - after_a, before_b - after_b
    loss = contrast(lost_a, lost_b, *weights, n_perm=n_perm, level=1 - ALPHA, rng=rng)
    both = [np.where(np.isnan(lost), np.nan, before) for lost, before in ((lost_a, before_a), (lost_b, before_b))]
    whole = resampled_means(both[0], weights[0]) - resampled_means(both[1], weights[1])
    lost = resampled_means(lost_a, weights[0]) - resampled_means(lost_b, weights[1])
    low, high = interval(whole, 1 - ALPHA)
    if not (low > 0 or high < 0):
        return Part(loss, *[float("nan")] * 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        share_low, share_high = interval(lost / whole, 1 - ALPHA)
    estimate = loss.estimate / (mean_of_defined(both[0]) - mean_of_defined(both[1]))
    return Part(loss, float(estimate), float(share_low), float(share_high))


def verdict_on_ladder(first: str, found: Contrast, verdict: str, part: Part) -> str:
    """The verdict of a contrast under a narrower null, given that under the first one.

    A contrast that is no longer supported may have lost its cause or only its items: "explained" takes both a contrast
    that was supported and is not any more, or has turned around, and a loss whose interval lies on the side of the
    contrast that was there.
    """
    before = found.estimate + part.loss.estimate
    lost = part.loss.low > 0 if before > 0 else part.loss.high < 0
    turned = verdict in (SUPPORTED, THRESHOLD_DEPENDENT) and bool(np.sign(found.estimate) != np.sign(before))
    if first == SUPPORTED and lost and (verdict == NOT_DISTINGUISHABLE or turned):
        return EXPLAINED
    return verdict


def _over_grid(gaps: Floats) -> Floats:
    return mean_of_defined(gaps, axis=0)
