"""Which neurons count as active: rules that bound |activation| for all languages, a language, a prompt or a neuron."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from babelscope.errors import BabelScopeError

Rule = Literal["absolute", "quantile", "language_quantile", "top", "z", "language_z", "signed"]
RULES: tuple[Rule, ...] = ("absolute", "quantile", "language_quantile", "top", "z", "language_z", "signed")

# Rules whose bounds rest on all languages, so that two blocks have to be put together before they can be compared.
POOLED: frozenset[Rule] = frozenset({"quantile", "z"})

SHARES: frozenset[Rule] = frozenset({"quantile", "language_quantile", "top"})


def active_neurons(x: NDArray[np.generic], threshold: float, rule: Rule = "absolute") -> NDArray[np.bool_]:
    """Neurons whose |activation| lies strictly above a bound.

    Parameters
    ----------
    x : ndarray
        (..., item, unit); leading axes are languages.
    threshold : float
        What `rule` makes of it, always over rows that are finite:

        - `absolute`: the bound itself;
        - `quantile`: the share of the |activations| of all languages at or below one bound for the whole block;
        - `language_quantile`: the same with a bound for each language;
        - `top`: the share of a prompt's neurons that may be active;
        - `z`: distance from the neuron's mean over items and languages, in standard deviations (n, not n - 1);
        - `language_z`: the same with mean and deviation of each language;
        - `signed`: the bound of the activation itself, so that 0 splits neurons by sign.
    rule : str
        One of `RULES`.

    Returns
    -------
    ndarray of bool
        Shape of `x`. Under `top`, neurons tied at the bound are inactive, so zeros never count. Under `z` and
        `language_z`, neurons that never change have no deviation and are inactive. Without a finite row there is no
        bound, and nothing is active.
    """
    blocks = x.reshape(-1, *x.shape[-2:])
    active = np.zeros(blocks.shape, dtype=bool)
    for language, (size, bounds) in enumerate(sizes_and_bounds(blocks, [threshold], rule)):
        active[language] = size > bounds[0]
    return active.reshape(x.shape)


def strictness(thresholds: Sequence[float], rule: Rule) -> list[int]:
    """Places of the thresholds from the one that leaves most neurons active to the one that leaves fewest."""
    values = np.asarray(thresholds, dtype=np.float64)
    return [int(k) for k in np.argsort(-values if rule == "top" else values, kind="stable")]


def sizes_and_bounds(
    x: NDArray[np.generic], thresholds: Sequence[float], rule: Rule
) -> Iterator[tuple[NDArray[np.floating], list[NDArray[np.floating]]]]:
    """What a rule compares, language by language.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    thresholds : sequence of float
    rule : str

    Yields
    ------
    tuple
        (item, unit) of one language, and for each threshold a bound that broadcasts against it. A neuron is active
        where the former exceeds the latter.
    """
    if rule in ("z", "language_z"):
        pooled = _mean_and_deviation(x) if rule == "z" else None
        for block in x:
            mean, deviation = pooled or _mean_and_deviation(block[None])
            with np.errstate(invalid="ignore"):
                yield np.abs(block - mean), [threshold * deviation for threshold in thresholds]
        return
    pooled_bounds = _quantiles(x, thresholds) if rule == "quantile" else None
    for block in x:
        size = np.asarray(block, dtype=np.float32)
        if rule == "signed":
            yield size, _scalars(thresholds)
            continue
        size = np.abs(size)
        if rule == "top":
            yield size, _top_bounds(size, thresholds)
        elif rule == "absolute":
            yield size, _scalars(thresholds)
        else:
            bounds = _quantiles(block[None], thresholds) if pooled_bounds is None else pooled_bounds
            yield size, list(bounds)


def _scalars(thresholds: Sequence[float]) -> list[NDArray[np.floating]]:
    return [np.asarray(float32_floor(threshold)) for threshold in thresholds]


def _top_bounds(size: NDArray[np.float32], shares: Sequence[float]) -> list[NDArray[np.floating]]:
    """(item, 1) for each share: the largest |activation| that is not among the share of its row."""
    units = size.shape[-1]
    last = [units - max(1, round(share * units)) - 1 for share in shares]
    inside = sorted({k for k in last if k >= 0})
    ordered = np.partition(size, inside, axis=-1) if inside else size
    nothing = np.zeros((len(size), 1), dtype=np.float32)
    return [ordered[:, k, None] if k >= 0 else nothing for k in last]


def _quantiles(x: NDArray[np.generic], shares: Sequence[float]) -> NDArray[np.float32]:
    """Quantiles of |activation| over finite rows, (threshold,); NaN, which nothing exceeds, without any."""
    # np.quantile of a block with one NaN is NaN: one overflow in one prompt would silence the whole block.
    rows = [np.abs(np.asarray(block[has_finite_rows(block)], dtype=np.float32)).ravel() for block in x]
    size = np.concatenate(rows)
    if not size.size:
        return np.full(len(shares), np.nan, dtype=np.float32)
    return np.asarray(np.quantile(size, np.asarray(shares), method="inverted_cdf", overwrite_input=True), np.float32)


def _mean_and_deviation(x: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every neuron over finite rows, each (unit,); NaN for neurons that never change."""
    rows = [block[has_finite_rows(block)] for block in x]
    count, units = sum(map(len, rows)), x.shape[-1]
    if not count:
        return np.full(units, np.nan), np.full(units, np.nan)
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in rows) / count
    squares = sum(np.square(part - mean).sum(axis=0) for part in rows)
    low = np.min([part.min(axis=0) for part in rows if len(part)], axis=0)
    high = np.max([part.max(axis=0) for part in rows if len(part)], axis=0)
    # The mean of equal numbers is off by a rounding, and that would be their deviation.
    return np.asarray(mean), np.where(low == high, np.nan, np.sqrt(squares / count))


def float32_floor(threshold: float) -> np.float32:
    """The largest float32 not above a real threshold.

    For every float32 v, `v > float32_floor(t)` is `v > t` in the real numbers; rounding t to nearest would call
    the activation that rounds to it inactive or active by the direction of rounding.
    """
    nearest = np.float32(threshold)
    return nearest if float(nearest) <= threshold else np.float32(np.nextafter(nearest, np.float32(-np.inf)))


def has_finite_rows(x: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Whether a row of activations is free of NaN and infinity, (..., item)."""
    return np.asarray(np.isfinite(x).all(axis=-1))


def check_thresholds(values: Sequence[float], rule: Rule) -> tuple[float, ...]:
    """The values, or a BabelScopeError if one makes no sense under the rule."""
    for value in values:
        if rule in SHARES and not 0 < value < 1:
            raise BabelScopeError(f"{rule} {value:g} is not a share between 0 and 1", f"write {rule}=0.5,0.9,0.95")
        if rule in ("z", "language_z") and not value >= 0:
            raise BabelScopeError(f"{rule} {value:g} is negative", "distances from a mean are compared: use 0 or more")
        if rule == "absolute" and not value >= 0:
            raise BabelScopeError(f"threshold {value:g} is negative", "|activation| is compared: use 0 or more")
    return tuple(values)
