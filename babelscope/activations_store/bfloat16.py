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


def write(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """Write an array of any dtype; bfloat16 without conversion, bit by bit."""
    values = np.ascontiguousarray(values)
    if values.dtype != BFLOAT16:
        return group.create_dataset(name, data=values, dtype=values.dtype)
    options = h5p.create(h5p.DATASET_CREATE)
    # The C library stamps the time on datasets by default; a resumed shard would then differ in its bytes.
    options.set_obj_track_times(False)
    dataset = h5d.create(group.id, name.encode(), hdf5_type(), h5s.create_simple(values.shape), options)
    if values.size:
        dataset.write(h5s.ALL, h5s.ALL, values.view(np.uint16), mtype=hdf5_type())
    return group[name]


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
    """The dtype of the values as they were captured."""
    found: np.dtype[Any] = BFLOAT16 if is_bfloat16(dataset) else dataset.dtype
    return found


def read_rows(dataset: h5py.Dataset, layer: int, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
    """Rows `[start, stop)` of one layer: (row, *unit), in the dtype that was captured.

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
