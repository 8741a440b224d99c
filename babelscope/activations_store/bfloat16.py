"""bfloat16 as a real HDF5 floating-point type, so that every HDF5 reader shows the right numbers.

h5py, given `ml_dtypes.bfloat16`, silently writes an opaque type that reads back as void.
"""

from typing import Any

import h5py
import ml_dtypes
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from numpy.typing import NDArray

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def hdf5_type() -> h5t.TypeFloatID:
    """IEEE single precision cut to its upper two bytes: 1 sign, 8 exponent, 7 mantissa bits."""
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    return kind


def create(group: h5py.Group, name: str, like: NDArray[np.generic]) -> h5py.Dataset:
    """Make a dataset for an array of any dtype. Its bytes get their room when they are written."""
    if like.dtype != BFLOAT16:
        return group.create_dataset(name, shape=like.shape, dtype=like.dtype)
    options = h5p.create(h5p.DATASET_CREATE)
    # The C library stamps the time on datasets by default; a resumed shard would then differ in its bytes.
    options.set_obj_track_times(False)
    h5d.create(group.id, name.encode(), hdf5_type(), h5s.create_simple(like.shape), options)
    return group[name]


def fill(dataset: h5py.Dataset, values: NDArray[np.generic]) -> None:
    """Write the bytes of a whole dataset; bfloat16 without conversion, bit by bit."""
    values = np.ascontiguousarray(values)
    if not values.size:
        return
    if values.dtype == BFLOAT16:
        dataset.id.write(h5s.ALL, h5s.ALL, values.view(np.uint16), mtype=hdf5_type())
    else:
        dataset.id.write(h5s.ALL, h5s.ALL, values)


def allocate(group: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> h5py.Dataset:
    """A dataset whose room in the file is set aside and never written: `dataset.id.get_offset()` says where it is."""
    options = h5p.create(h5p.DATASET_CREATE)
    options.set_obj_track_times(False)
    options.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    options.set_fill_time(h5d.FILL_TIME_NEVER)
    kind = hdf5_type() if dtype == BFLOAT16 else h5t.py_create(dtype)
    h5d.create(group.id, name.encode(), kind, h5s.create_simple(shape), options)
    return group[name]


def is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds bfloat16 (h5py reports float32 for it)."""
    kind = dataset.id.get_type()
    return isinstance(kind, h5t.TypeFloatID) and kind.get_size() == 2 and kind.get_ebias() == 127


def dtype_of(dataset: h5py.Dataset) -> np.dtype[Any]:
    """The stored dtype of the values."""
    found: np.dtype[Any] = BFLOAT16 if is_bfloat16(dataset) else dataset.dtype
    return found


def read_rows(dataset: h5py.Dataset, layer: int, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
    """Rows `[start, stop)` of one layer: (row, *unit), in the stored dtype.

    Read raw for bfloat16: HDF5's own conversion to float32 runs at 18 MB/s.
    """
    stop = dataset.shape[1] if stop is None else stop
    if not is_bfloat16(dataset):
        found: NDArray[np.generic] = dataset[layer, start:stop]
        return found
    unit = dataset.shape[2:]
    raw = np.empty((stop - start, *unit), np.uint16)
    if raw.size:
        space = dataset.id.get_space()
        space.select_hyperslab((layer, start, *(0 for _ in unit)), (1, *raw.shape))
        dataset.id.read(h5s.create_simple(raw.shape), space, raw, mtype=hdf5_type())
    return raw.view(ml_dtypes.bfloat16)
