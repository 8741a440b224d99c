"""Stored rows as numbers that NumPy can compute with."""

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import is_bfloat16, read_rows
from babelscope.activations_store.encoding import decoded

_PIECE = 1 << 20  # bytes of float32


def number_dtype(group: h5py.Group) -> np.dtype[np.generic]:
    """float32 where bfloat16 or int8 is stored, the stored dtype otherwise."""
    kind = group["value"].dtype  # h5py says float32 of bfloat16
    return np.dtype(np.float32) if kind == np.int8 else kind


def read_numbers(group: h5py.Group, layer: int, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
    """Rows `[start, stop)` of one layer of a site at a position: (row, *unit)."""
    shape = group["value"].shape
    rows = (shape[1] if stop is None else stop) - start
    out: NDArray[np.generic] = np.empty((rows, *shape[2:]), number_dtype(group))
    _read(group, layer, start, out)
    return out


def read_places(
    group: h5py.Group, layer: int, rows: NDArray[np.intp], out: NDArray[np.generic], places: NDArray[np.int64]
) -> None:
    """Put some rows of one layer, in ascending order, where they belong: `out[places] = values[rows]`.

    Rows that stay side by side are read to where they belong; others come by way of all rows, since HDF5 picks
    single ones slowly.
    """
    if not rows.size:
        return
    n = len(rows)
    if rows[-1] - rows[0] == n - 1 and (np.diff(places) == 1).all():
        _read(group, layer, int(rows[0]), out[places[0] : places[0] + n])
    else:
        out[places] = read_numbers(group, layer)[rows]


def _read(group: h5py.Group, layer: int, start: int, out: NDArray[np.generic]) -> None:
    """Fill `out`, C-contiguous, with as many rows from `start` on."""
    if not out.size:
        return
    value = group["value"]
    if value.dtype == out.dtype and not is_bfloat16(value):
        value.read_direct(out, np.s_[layer, start : start + len(out)])
        return
    # A few rows at a time, so that they are still in the cache when they are converted.
    at_once = max(1, _PIECE * len(out) // out.nbytes)
    for first in range(0, len(out), at_once):
        rows = out[first : first + at_once]
        stored = read_rows(value, layer, start + first, start + first + len(rows))
        rows[...] = decoded(stored, group["scale"][layer]) if stored.dtype == np.int8 else stored
