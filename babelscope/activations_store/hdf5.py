"""Reading and writing the HDF5 files of a store, each dataset with the digest of its bytes beside it."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import bfloat16, guard
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan

# What h5py raises for a damaged file, depending on where the damage lies.
DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError)

# A file system that has no locks: ENOLCK, ENOSYS, EOPNOTSUPP, and 524, by which NFS says the same.
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524)


class DamagedFileError(BabelScopeError):
    """A file of a store that is not what was written, or that belongs elsewhere; reading it again will not help."""


def put(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """Write one dataset and the sha256 of its bytes as an attribute."""
    dataset = announce(group, name, values)
    bfloat16.fill(dataset, values)
    return dataset


def announce(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """As `put`, but for the bytes, which `bfloat16.fill` writes later."""
    dataset = bfloat16.create(group, name, values)
    dataset.attrs["sha256"] = np.bytes_(digest(values))
    return dataset


def put_scale(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    """Write the coordinates of an axis as a dimension scale."""
    dataset = put(group, name, values)
    dataset.make_scale(name)
    return dataset


def attach(dataset: h5py.Dataset, *scales: h5py.Dataset) -> h5py.Dataset:
    """Name the axes of a dataset, in order, by their scales, and give it back."""
    for axis, scale in enumerate(scales):
        dataset.dims[axis].attach_scale(scale)
    return dataset


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
        As `damage_told`, and where the file has what `guard.admit` refuses.
    """
    with (
        damage_told(path, shard=bool(language), again=again),
        open_checked(path, plan, language, block) as file,
    ):
        yield file


@contextmanager
def damage_told(path: Path, *, shard: bool = False, again: str = "") -> Iterator[None]:
    """Turn whatever h5py raises about a file into an error that names it, and says how to get it `again`.

    Raises
    ------
    BabelScopeError
        If the file is damaged or belongs elsewhere (`DamagedFileError`), is missing, or if the disk cannot be read.
    """
    again = again or (
        f"run the capture again with --resume: {'its items are computed' if shard else 'it is written'} again"
    )
    try:
        yield
    except DAMAGE as error:
        if not path.exists():
            raise BabelScopeError(f"{path} is missing", again) from None
        if isinstance(error, OSError) and error.errno is not None:  # h5py has no number for bytes that make no sense
            raise BabelScopeError(f"{path} cannot be read: {os.strerror(error.errno)}", "try again") from error
        raise DamagedFileError(
            f"{path}: damaged ({type(error).__name__}: {error})", f"move it out of the store and {again}"
        ) from error


def open_checked(path: Path, plan: CapturePlan, language: str = "", block: int = -1) -> h5py.File:
    """Open a file that must belong to the plan and to its place; what h5py raises is for `damage_told`."""
    file = read_only(path)
    try:
        if not belongs(file, plan, language, block):
            raise DamagedFileError(
                f"{path}: belongs to another capture plan, language or block", "move it out of this store"
            )
    except BaseException:
        file.close()
        raise
    return file


def belongs(file: h5py.File, plan: CapturePlan, language: str = "", block: int = -1) -> bool:
    """Whether an open file belongs to the plan and, if a shard, to its place."""
    fits = bytes(file.attrs["plan_sha256"]) == plan.fingerprint.encode()
    if language:
        fits &= bytes(file.attrs["language"]) == language.encode() and int(file.attrs["block"]) == block
    return fits


def read_only(path: Path) -> h5py.File:
    """Open a file that `guard.admit` has nothing against, with the locks that HDF5 takes by default.

    OSError if it is no HDF5 file; BabelScopeError for one that is refused.
    """
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise BabelScopeError(f"{path}: not read: it is no regular file", "move it out of this store")
    file = _locked_if_possible(path)
    try:
        guard.admit(file)
    except BaseException:
        file.close()
        raise
    return file


def _locked_if_possible(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        # Without locks where there are none, since nobody writes. And HDF5 refuses to mix the two in one process, so
        # too where somebody else here has the file open without them.
        if error.errno not in LOCKLESS and "locking flag" not in str(error):
            raise
        return h5py.File(path, "r", locking=False)
