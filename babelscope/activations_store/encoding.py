"""How captured rows become stored numbers: as they are, clipped to float16, or as int8 with a scale for each unit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16

DTYPES = {
    "float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": BFLOAT16, "int8": np.dtype(np.int8),
}  # fmt: skip

# What `rows/status` says of an item, in the order of its numbers: the worst of its rows.
STATUS = ("ok", "clipped", "non-finite")

# int8 runs from -127 to 127; what is left stands for values that are not finite.
LEVELS = 127
NOT_FINITE = -128

# Largest float16 as float32. Rounding to nearest takes what is below 65520 to it, and what is not is clipped.
_LARGEST = np.float32(np.finfo(np.float16).max)
BEYOND_FLOAT16 = np.float32(65520)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as they are stored, and what is stored beside them.

    Parameters
    ----------
    values : ndarray
        (layer, row, *unit) in the stored dtype.
    absmax : ndarray of float32
        (layer, row): largest finite |value|, before anything was clipped or rounded.
    nonfinite : ndarray of uint32
        (layer, row): values that were NaN or infinite in the model.
    clipped : ndarray of bool
        (row,): whether a finite value of any layer did not fit.
    scale : ndarray of float32 or None
        (layer, *unit), for int8: the value is the stored integer times it.
    """

    values: NDArray[np.generic]
    absmax: NDArray[np.float32]
    nonfinite: NDArray[np.uint32]
    clipped: NDArray[np.bool_]
    scale: NDArray[np.float32] | None = None


def encode(values: NDArray[np.generic], dtype: str) -> Encoded:
    """Rows (layer, row, *unit) of a block in a stored dtype.

    float32 becomes int8, or float16 with finite values beyond it clipped; rows that have the dtype stay as they are.
    """
    absmax, nonfinite = extremes(values)
    clipped = np.zeros(values.shape[1], bool)
    if values.dtype == DTYPES[dtype]:
        return Encoded(values, absmax, nonfinite, clipped)
    stored = np.empty(values.shape, DTYPES[dtype])
    if dtype == "int8":
        scale = np.empty((len(values), *values.shape[2:]), np.float32)
        for layer, rows in enumerate(values):
            stored[layer], scale[layer] = _quantized(np.asarray(rows, np.float32))
        return Encoded(stored, absmax, nonfinite, clipped, scale)
    for layer, rows in enumerate(values):
        beyond = absmax[layer] > _LARGEST
        with np.errstate(over="ignore"):
            stored[layer] = rows
        if beyond.any():
            lost = np.isinf(stored[layer]) & np.isfinite(rows)
            stored[layer][lost] = np.copysign(_LARGEST, rows[lost])
            clipped |= lost.reshape(len(lost), -1).any(axis=1)
    return Encoded(stored, absmax, nonfinite, clipped)


def decoded(values: NDArray[np.generic], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (row, *unit) that were stored as int8, as float32; NaN where the model gave no finite value.

    `scale` is (*unit), or (row, *unit) where rows have scales of their own.
    """
    found = values.astype(np.float32)
    found *= scale
    found[values == NOT_FINITE] = np.nan
    return found


def extremes(values: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Largest finite |value| and number of non-finite values, both (layer, row).

    Without its sign bit a floating-point number orders as the integer of the same bits, and everything from
    infinity on is not finite; so one pass over integers is enough for every dtype.
    """
    info = np.dtype(f"u{values.itemsize}")
    magnitude_bits = info.type(np.iinfo(info).max >> 1)
    infinity = np.array(np.inf, values.dtype).view(info)[()]
    absmax, nonfinite = np.zeros(values.shape[:2], values.dtype), np.zeros(values.shape[:2], np.uint32)
    unit = tuple(range(1, values.ndim - 1))
    for layer, rows in enumerate(values):
        bits = rows.view(info) & magnitude_bits
        largest = bits.max(axis=unit, initial=0)
        if largest.size and largest.max() >= infinity:
            nonfinite[layer] = np.count_nonzero(bits >= infinity, axis=unit)
            largest = bits.max(axis=unit, initial=0, where=bits < infinity)
        absmax[layer] = largest.view(values.dtype)
    return absmax.astype(np.float32), nonfinite


def _quantized(rows: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """One layer: integers (row, *unit) and scales (*unit,). A scale for each row would lose the ordinary units.

    One unit of a row can be a thousand times the others (massive activations); across rows it is alike.
    """
    finite = np.isfinite(rows)
    scale = np.abs(rows).max(axis=0, initial=0, where=finite) / np.float32(LEVELS)
    whole = np.divide(rows, scale, out=np.zeros_like(rows), where=finite & (scale > 0))
    np.rint(whole, out=whole)
    np.clip(whole, -LEVELS, LEVELS, out=whole)  # a scale below the normal numbers is coarse
    whole[~finite] = NOT_FINITE
    return whole.astype(np.int8), scale
