"""bfloat16 as a real HDF5 floating-point type, so that every HDF5 reader shows the right numbers.

h5py, given `ml_dtypes.bfloat16`, silently writes an opaque type that reads back as void.
"""

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


def is_bfloat16(dataset: h5py.Dataset) -> bool:
    """Whether a dataset holds bfloat16 (h5py reports float32 for it)."""
    kind = dataset.id.get_type()
    return isinstance(kind, h5t.TypeFloatID) and kind.get_size() == 2 and kind.get_ebias() == 127
