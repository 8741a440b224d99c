"""Which neurons count as active: by absolute size, by a quantile of the language, or the top share of a prompt."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from babelscope.errors import BabelScopeError

Rule = Literal["absolute", "quantile", "top"]
RULES: tuple[Rule, ...] = ("absolute", "quantile", "top")


def active_neurons(x: NDArray[np.generic], threshold: float, rule: Rule = "absolute") -> NDArray[np.bool_]:
    """Neurons whose |activation| lies strictly above a bound.

    Parameters
    ----------
    x : ndarray
        (..., item, unit) activations of one language (quantiles are taken over the last two axes).
    threshold : float
        For `absolute` the bound itself; for `quantile` the share of the language's |activations|, in rows that are
        finite, at or below the bound; for `top` the share of a prompt's neurons that may be active.
    rule : {"absolute", "quantile", "top"}

    Returns
    -------
    ndarray of bool
        Shape of `x`. Under `top`, neurons tied at the bound are inactive, so zeros never count.
    """
    size = np.abs(np.asarray(x, dtype=np.float32))
    if rule == "absolute":
        return np.asarray(size > float32_floor(threshold))
    if rule == "quantile":
        return np.asarray(size > _quantiles(size, threshold)[..., None, None])
    units = size.shape[-1]
    kept = max(1, round(threshold * units))
    if kept >= units:
        return np.asarray(size > 0)
    bound = np.partition(size, units - kept - 1, axis=-1)[..., units - kept - 1, None]
    return np.asarray(size > bound)


def _quantiles(size: NDArray[np.float32], q: float) -> NDArray[np.float32]:
    """Quantile of each (item, unit) block over its finite rows, (...); NaN, which nothing exceeds, without any."""
    blocks = size.reshape(-1, *size.shape[-2:])
    # np.quantile of a block with one NaN is NaN: one overflow in one prompt would silence the whole language.
    kept = (block[has_finite_rows(block)] for block in blocks)
    bounds = [np.quantile(rows, q, method="inverted_cdf") if rows.size else np.nan for rows in kept]
    return np.array(bounds, dtype=np.float32).reshape(size.shape[:-2])


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
        if rule == "absolute" and not value >= 0:
            raise BabelScopeError(f"threshold {value:g} is negative", "|activation| is compared: use 0 or more")
        if rule != "absolute" and not 0 < value < 1:
            raise BabelScopeError(f"{rule} {value:g} is not a share between 0 and 1", f"write {rule}=0.5,0.9,0.95")
    return tuple(values)
