"""Files that exist whole or not at all.

Each step of `publish` is there because leaving it out lost committed data in a crash test: libhdf5 never calls
fsync, a rename can overwrite, a new name is not durable before its folder is, and `h5py.File(p, "w")` empties a
writable file before it raises.
"""

import errno
import glob
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import h5py

from babelscope.errors import BabelScopeError

# What "full" means, and what helps.
FULL = {
    errno.ENOSPC: ("{free:.1f} MB are free", "free some room"),
    errno.EDQUOT: ("your quota is used up", "delete some of your files, or ask for a larger quota"),
    errno.EFBIG: ("this process may write no file of that size", "raise the limit (ulimit -f)"),
}
# EPERM is what Linux says of FAT and of many FUSE mounts.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
HOST = re.sub(r"[^A-Za-z0-9-]", "_", platform.node()) or "unknown"
# Name, inside of a hidden folder that is being built, of what it replaces.
OLD = ".old"
_TEMPORARY = re.compile(r"\..+\.([A-Za-z0-9_-]+)\.(\d+)\.[0-9a-f]{8}\.tmp\Z")
_DAY_S = 86_400
_HEAD = 1 << 17  # all of a shard but its values, up to a few hundred sites


class NoLinksError(OSError):
    """The file system knows no hard links: FAT, exFAT, some shares and mounted object stores."""


class StoreFullError(BabelScopeError):
    """The disk, a quota or a limit of this process leaves no room for what is to be written."""


def publish(path: Path, data: bytes | memoryview) -> bool:
    """Write a new read-only file: temporary name, write, fsync, link, fsync of the folder.

    Returns
    -------
    bool
        False if `path` existed already; it is then left as it was.

    Raises
    ------
    BabelScopeError
        If the disk (or a quota or size limit) is full, or the folder cannot be written. Nothing committed is
        harmed, nothing half-written stays.
    """
    temporary = temporary_name(path)
    with reported(path, len(data)):
        try:
            _write(temporary, memoryview(data))
            try:
                os.link(temporary, path)
                new = True
            except FileExistsError:
                new = False
            except OSError as error:
                if error.errno in NO_LINKS:
                    raise NoLinksError(error.errno, error.strerror) from error
                raise
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return new


def temporary_name(path: Path) -> Path:
    """Make up a hidden name beside `path` that says which process of which host owns it."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def is_abandoned(temporary: Path) -> bool:
    """Whether nobody writes a temporary file any more: its process on this host is dead, or it is a day old."""
    if _TEMPORARY.match(temporary.name) is None:
        return False
    try:
        return is_of_the_dead(temporary) or time.time() - temporary.stat().st_mtime > _DAY_S
    except FileNotFoundError:
        return False


def is_of_the_dead(temporary: Path) -> bool:
    """Whether a temporary name was made by a process of this host that has ended."""
    named = _TEMPORARY.match(temporary.name)
    if named is None or named[1] != HOST:
        return False
    try:
        os.kill(int(named[2]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def sweep(target: Path) -> None:
    """Remove the hidden folders that killed processes of this host left beside `target`, as `discard` does."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.{HOST}.*.tmp"):
        if is_of_the_dead(left):
            discard(left, target)


def discard(building: Path, target: Path) -> None:
    """Remove the hidden folder in which `target` was built; what it was to replace returns if nothing took its place.

    Raises
    ------
    OSError
        If that cannot be put back; it is then still in the hidden folder.
    """
    old = building / OLD
    if old.exists() and not os.path.lexists(target):
        with suppress(FileNotFoundError):  # another process has just done the same
            old.rename(target)
    shutil.rmtree(building, ignore_errors=True)


@contextmanager
def reported(
    path: Path, size: int = 0, again: str = "run the same command with --resume; everything committed is unharmed"
) -> Iterator[None]:
    """Turn an OSError met while writing `path` (of `size` bytes) into one problem and one hint."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NoLinksError):
            raise BabelScopeError(
                f"{path} cannot be written: the file system of {path.absolute().parent} makes no hard links "
                f"({error.strerror}), and only with them a shard appears whole and never replaces another",
                "name a path on another disk, and copy the store, or `cli.py pack` it, to where it belongs",
            ) from error
        if error.errno not in FULL:
            raise BabelScopeError(
                f"{path} cannot be written: {error.strerror or error}", "check the folder and its permissions"
            ) from error
        folder = next(p for p in path.absolute().parents if p.is_dir())
        why, remedy = FULL[error.errno]
        why = why.format(free=shutil.disk_usage(folder).free / 1e6)
        raise StoreFullError(
            f"{path}: no room for {size / 1e6:.1f} MB, {why} ({error.strerror})", f"{remedy}, then {again}"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def will_read(paths: Iterable[Path]) -> None:
    """Tell the kernel that the beginnings of files will be wanted, so that their waits overlap. Never fails."""
    if not hasattr(os, "posix_fadvise"):  # macOS, Windows
        return
    for path in paths:
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would be waited for
            try:
                os.posix_fadvise(handle, 0, _HEAD, os.POSIX_FADV_WILLNEED)
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
    # Read-only from birth; this handle may still write. The umask stays in force for private data.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
