"""Files that exist whole or not at all.

Each step of `publish` is there because leaving it out lost committed data in a crash test: libhdf5 never calls
fsync, a rename can overwrite, a new name is not durable before its folder is, and `h5py.File(p, "w")` empties a
writable file before it raises.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import h5py

from babelscope.errors import BabelScopeError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def publish(path: Path, data: bytes | memoryview) -> bool:
    """Write a new read-only file: temporary name, write, fsync, link, fsync of the folder.

    Returns
    -------
    bool
        False if `path` existed already; it is then left as it was.

    Raises
    ------
    BabelScopeError
        If the disk (or a quota or size limit) is full. Nothing committed is harmed, nothing half-written stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        _write(temporary, memoryview(data))
        try:
            os.link(temporary, path)
            new = True
        except FileExistsError:
            new = False
    except OSError as error:
        if error.errno not in FULL:
            raise
        free = shutil.disk_usage(path.parent).free / 1e6
        raise BabelScopeError(
            f"{path}: no room for {len(data) / 1e6:.1f} MB, {free:.1f} MB are free ({error.strerror}); "
            "everything committed is unharmed",
            "free some room, then run the same command with --resume",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return new


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def hdf5_image(build: Callable[[h5py.File], None]) -> memoryview:
    """Bytes of an HDF5 file built in memory, where a full disk cannot crash libhdf5.

    Version 1.8 of the format: the newest whose metadata every HDF5 since 2008 reads, with checksums.
    """
    buffer = BytesIO()
    with h5py.File(buffer, "w", libver=("v108", "v108")) as file:
        build(file)
    return buffer.getbuffer()


def _write(path: Path, data: memoryview) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fchmod(handle, 0o444)
        os.fsync(handle)
    finally:
        os.close(handle)
