"""What an HDF5 file may consist of before any of it is read: HDF5 itself follows a file wherever it points.

External storage and links read any file of the user, a dataset of a kilobyte can declare petabytes, and a filter that
is not built in is code loaded from a folder. Files of a store have none of these, so a file that has is not read.
"""

import os
import re
import struct
from math import prod

import h5py
from h5py import h5a, h5d, h5g, h5l, h5o, h5p, h5pl, h5t, h5z

from babelscope.errors import BabelScopeError

MOST_OBJECTS = 200_000
DEEPEST = 8
LARGEST_CHUNK = 2**28
LARGEST_ATTRIBUTE = 2**20
MOST_ATTRIBUTES = 200
# Bytes that a dataset may declare per byte stored; small ones may be all fill value.
EXPANSION, SMALL = 200, 2**20

_NAME = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._+-]*\Z")
_FILTERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32})
_CLASSES = frozenset({h5t.INTEGER, h5t.FLOAT, h5t.ENUM, h5t.STRING})
_LINKS = {h5l.TYPE_EXTERNAL: "an external link", h5l.TYPE_SOFT: "a soft link"}
# Where a superblock of each version holds the address at which the file ends.
_END = {0: 40, 1: 44, 2: 28, 3: 28}

# Published files never change, so each is examined once in a process.
_admitted: set[tuple[int, ...]] = set()


class _RefusedError(Exception):
    """Why a file is not read."""


def admit(file: h5py.File) -> None:
    """Refuse an open file that reaches outside of itself, can exhaust memory, or asks for foreign code.

    No element is read and no link followed. From the first call on, HDF5 loads no filter from any plugin folder in
    this process; filters that a library has registered itself (`import hdf5plugin`) stay.

    Raises
    ------
    BabelScopeError
        Naming the object and what it has that a file of a store has not.
    OSError, RuntimeError, KeyError, ValueError
        Where the file is damaged: from h5py, or since bytes stand before or behind its HDF5 data.
    """
    while h5pl.size():
        h5pl.remove(0)
    about = os.fstat(file.id.get_vfd_handle())
    identity = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
    if identity in _admitted:
        return
    _check_end(file.id.get_vfd_handle(), about.st_size)
    try:
        _check_objects(file, about.st_size)
    except _RefusedError as reason:
        raise BabelScopeError(
            f"{file.filename}: not read: {reason}",
            "no file of a store has that; docs/stores-you-did-not-make.md says what is refused and why",
        ) from None
    _admitted.add(identity)


def _check_end(handle: int, size: int) -> None:
    """Raise ValueError for what stands before or behind the HDF5 data: every check of HDF5 passes over it."""
    head = os.pread(handle, 64, 0)
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ValueError("not read: its HDF5 data does not begin at the first byte")
    at = _END.get(head[8])
    end = struct.unpack_from("<Q", head, at)[0] if at else None
    if end != size:
        raise ValueError(f"not read: it has {size} bytes, and says that it has {end}")


def _check_objects(file: h5py.File, size: int) -> None:
    root = h5g.open(file.id, b"/")
    seen = {h5o.get_info(root).addr}
    stored = 0
    todo = [(root, "", 0)]
    while todo:
        group, path, depth = todo.pop()
        _check_attributes(group, path or "/")
        if depth > DEEPEST:
            raise _RefusedError(f"{path} is nested deeper than {DEEPEST} groups")
        for name, address in _links(group, path, MOST_OBJECTS - len(seen)):
            here = f"{path}/{name.decode()}"
            if address in seen:
                raise _RefusedError(f"{here} is an object of two names")
            seen.add(address)
            thing = h5o.open(group, name)
            match thing:
                case h5g.GroupID():
                    todo.append((thing, here, depth + 1))
                case h5d.DatasetID():
                    _check_attributes(thing, here)
                    stored += _check_dataset(thing, here)
                case _:
                    raise _RefusedError(f"{here} is a named datatype")
    if stored > size:
        raise _RefusedError(f"its datasets claim {stored} bytes of a file of {size}")


def _links(group: h5g.GroupID, path: str, most: int) -> list[tuple[bytes, int]]:
    """Name and address of each object in a group; nothing but objects of this file under plain names."""
    found: list[tuple[bytes, int, int]] = []

    def collect(name: bytes, link: h5l.LinkInfo) -> bool:
        found.append((name, link.type, link.u))
        return len(found) > most  # whatever is true ends the iteration

    group.links.iterate(collect, info=True)
    if len(found) > most:
        raise _RefusedError(f"it has more than {MOST_OBJECTS} objects")
    for name, kind, _ in found:
        if kind != h5l.TYPE_HARD:
            raise _RefusedError(f"{path}/{_shown(name)} is {_LINKS.get(kind, 'a user-defined link')}")
        if not _NAME.match(name):
            raise _RefusedError(f"{_shown(name)!r} in {path or '/'} is no name")
    return [(name, address) for name, _, address in found]


def _check_dataset(dataset: h5d.DatasetID, path: str) -> int:
    """Refuse a dataset that is more than numbers or short strings of this file; the bytes it takes there."""
    kind = dataset.get_type()
    if kind.get_class() not in _CLASSES or (kind.get_class() == h5t.STRING and kind.is_variable_str()):
        raise _RefusedError(f"{path} has a type other than numbers and strings of fixed length")
    width: int = kind.get_size()
    # Only what lies in this file, unfiltered and in one piece has an offset: no need to ask how it is stored.
    if dataset.get_offset() is None:
        _check_layout(dataset.get_create_plist(), width, path)
    stored: int = dataset.get_storage_size()
    declared = width * int(dataset.get_space().get_simple_extent_npoints())
    if declared > max(SMALL, EXPANSION * stored):
        raise _RefusedError(f"{path} declares {declared} bytes and holds {stored}")
    return stored


def _check_layout(how: h5p.PropDCID, width: int, path: str) -> None:
    layout = how.get_layout()
    if layout == h5d.VIRTUAL:
        raise _RefusedError(f"{path} is a virtual dataset")
    if how.get_external_count():
        raise _RefusedError(f"{path} is stored in another file, {_shown(how.get_external(0)[0])!r}")
    for i in range(how.get_nfilters()):
        if (number := how.get_filter(i)[0]) not in _FILTERS:
            raise _RefusedError(f"{path} needs the filter {number}, which may be foreign code")
    if layout == h5d.CHUNKED and (chunk := width * prod(how.get_chunk())) > LARGEST_CHUNK:
        raise _RefusedError(f"{path} has chunks of {chunk} bytes")


def _check_attributes(thing: h5g.GroupID | h5d.DatasetID, path: str) -> None:
    count = h5a.get_num_attrs(thing)
    if count > MOST_ATTRIBUTES:
        raise _RefusedError(f"{path} has {count} attributes")
    for i in range(count):
        if (size := h5a.get_info(thing, index=i).data_size) > LARGEST_ATTRIBUTE:
            raise _RefusedError(f"{path} has an attribute of {size} bytes")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
