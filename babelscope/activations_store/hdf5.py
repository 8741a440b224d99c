"""Reading and writing the HDF5 files of a store, each dataset with the digest of its bytes beside it."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import bfloat16
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan

# What h5py raises for a damaged file, depending on where the damage lies.
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError)


def put(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """Write one dataset and the sha256 of its bytes as an attribute."""
    dataset = bfloat16.write(group, name, values)
    dataset.attrs["sha256"] = np.bytes_(digest(values))
    return dataset


def put_scale(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """Write the coordinates of an axis as a dimension scale."""
    dataset = put(group, name, values)
    dataset.make_scale(name)
    return dataset


def attach(dataset: h5py.Dataset, *scales: h5py.Dataset) -> None:
    """Name the axes of a dataset, in order, by their scales."""
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)


def digest(values: NDArray[np.generic]) -> str:
    """Hex sha256 of the bytes of an array in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).view(np.uint8).data if values.size else b"").hexdigest()


def read_checked(dataset: h5py.Dataset) -> NDArray[np.generic]:
    """Read a whole dataset; ValueError if its bytes are not those that were written.

    For the small ones that say which row is which: a wrong one would misalign every number of the block.
    """
    values: NDArray[np.generic] = dataset[()]
    if digest(values).encode() != bytes(dataset.attrs["sha256"]):
        raise ValueError(f"{dataset.name} does not match its sha256")
    return values


def fixed_strings(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """UTF-8 strings padded to the longest: variable ones live in a heap that no checksum covers."""
    encoded = [text.encode("utf-8", "backslashreplace") for text in texts]
    width = max([1, *map(len, encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def strings(dataset: h5py.Dataset) -> list[str]:
    """Read what `fixed_strings` wrote."""
    return [bytes(text).decode("utf-8", "replace") for text in read_checked(dataset).tolist()]


@contextmanager
def opened(
    path: Path, plan: CapturePlan, language: str = "", block: int = -1, *, again: str = ""
) -> Iterator[h5py.File]:
    """Open a file of a store that must belong to the plan (and, if a shard, to its place). Only read inside.

    `again` says how to get the file again; by default, by resuming the capture.

    Raises
    ------
    BabelScopeError
        If the file is damaged or belongs elsewhere; whatever h5py raises inside the `with` counts as damage.
    """
    try:
        with read_only(path) as file:
            owner = {"plan_sha256": plan.fingerprint.encode()}
            if language:
                owner |= {"language": language.encode()}
            if any(bytes(file.attrs[name]) != value for name, value in owner.items()) or (
                language and int(file.attrs["block"]) != block
            ):
                raise BabelScopeError(
                    f"{path}: belongs to another capture plan, language or block", "move it out of this store"
                )
            yield file
    except DAMAGE as error:
        again = again or (
            f"run the capture again with --resume: {'its items are computed' if language else 'it is written'} again"
        )
        if not path.exists():
            raise BabelScopeError(f"{path} is missing", again) from None
        raise BabelScopeError(
            f"{path}: damaged ({type(error).__name__}: {error})", f"move it out of the store and {again}"
        ) from error


def read_only(path: Path) -> h5py.File:
    """Open a published file; OSError if it is no HDF5 file."""
    # Nobody writes to a published file, so locks protect nothing, and on some cluster disks they fail.
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking flag" not in str(error):
            raise
        return h5py.File(path, "r")  # held elsewhere in this process with locks; HDF5 refuses to mix the two
