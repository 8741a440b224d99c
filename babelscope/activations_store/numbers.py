"""Stored rows as numbers that NumPy can compute with."""

import math
import os

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import dtype_of, is_bfloat16, read_rows
from babelscope.activations_store.encoding import decoded
from babelscope.activations_store.hdf5 import read_checked, strings

_PIECE = 1 << 20  # bytes of float32


def number_dtype(group: h5py.Group) -> np.dtype[np.generic]:
    """float32 where bfloat16 or int8 is stored, the stored dtype otherwise."""
    kind = group["value"].dtype  # h5py says float32 of bfloat16
    return np.dtype(np.float32) if kind == np.int8 else kind


def stored_dtype(group: h5py.Group) -> np.dtype[np.generic]:
    """The dtype that `read_stored` gives: float32 where int8 is stored, the stored dtype otherwise."""
    kind = dtype_of(group["value"])
    return np.dtype(np.float32) if kind == np.int8 else kind


def read_stored(group: h5py.Group, layer: int, start: int, stop: int) -> NDArray[np.generic]:
    """As `read_numbers`, but bfloat16 stays what it is. int8 does not: its integers are nothing without their scale."""
    if group["value"].dtype == np.int8:
        return read_numbers(group, layer, start, stop)
    return read_rows(group["value"], layer, start, stop)


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

    Rows that stay side by side are read to where they belong; others come by way of all rows from the first to the
    last, since HDF5 picks single ones slowly.
    """
    if not rows.size:
        return
    n = len(rows)
    if rows[-1] - rows[0] == n - 1 and (np.diff(places) == 1).all():
        _read(group, layer, int(rows[0]), out[places[0] : places[0] + n])
    else:
        out[places] = read_numbers(group, layer, int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]


def will_read(group: h5py.Group, layer: int, start: int, stop: int) -> None:
    """Let the disk begin with rows `[start, stop)` of one layer of a site at a position. Nothing waits for them."""
    value = group["value"]
    offset, whole = value.id.get_offset(), math.prod(value.shape[1:]) * value.id.get_type().get_size()
    if offset is None or not hasattr(os, "posix_fadvise"):  # a compressed dataset of an importer's; macOS
        return
    row = whole // value.shape[1]
    at, length = offset + layer * whole + start * row, (stop - start) * row
    os.posix_fadvise(value.file.id.get_vfd_handle(), at, length, os.POSIX_FADV_WILLNEED)


def _read(group: h5py.Group, layer: int, start: int, out: NDArray[np.generic]) -> None:
    """Fill `out`, C-contiguous, with as many rows from `start` on."""
    if not out.size:
        return
    value = group["value"]
    if value.dtype == out.dtype and not is_bfloat16(value):
        value.read_direct(out, np.s_[layer, start : start + len(out)])
        return
    will_read(group, layer, start, start + len(out))
    # A few rows at a time, so that they are still in the cache when they are converted.
    at_once = max(1, _PIECE * len(out) // out.nbytes)
    is_int8 = value.dtype == np.int8
    ends = _block_ends(group) if is_int8 else None
    for first in range(0, len(out), at_once):
        rows = out[first : first + at_once]
        begin, end = start + first, start + first + len(rows)
        stored = read_rows(value, layer, begin, end)
        rows[...] = decoded(stored, _scales(group, layer, ends, begin, end)) if is_int8 else stored


def _block_ends(group: h5py.Group) -> NDArray[np.int64] | None:
    """Where the rows of each block of a packed file end; None in a shard, which has a scale for all of its rows."""
    value = group["value"]
    if group["scale"].ndim < value.ndim:
        return None
    blocks, name = group.parent["blocks"], str(value.name).removeprefix(f"{group.parent.name}/")
    return np.cumsum(read_checked(blocks["region"])[:, strings(blocks["dataset"]).index(name), 1], dtype=np.int64)


def _scales(
    group: h5py.Group, layer: int, ends: NDArray[np.int64] | None, start: int, stop: int
) -> NDArray[np.float32]:
    """(*unit) for the rows of a shard; (row, *unit) in a packed file, where `scale` is (block, layer, *unit)."""
    scale = group["scale"]
    if ends is None:
        own: NDArray[np.float32] = scale[layer]
        return own
    block = np.searchsorted(ends, np.arange(start, stop), side="right")
    of_rows: NDArray[np.float32] = scale[block[0] : block[-1] + 1, layer][block - block[0]]
    return of_rows
