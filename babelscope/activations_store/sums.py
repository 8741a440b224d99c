"""`SHA256SUMS`: the digest of every file of a store, for `sha256sum -c` and for `verify`.

Derived: it can be made again from the files at any time. It is the only thing that covers what no checksum inside of
a file does: provenance, records of runs, and the few bytes of HDF5 that HDF5 itself does not check.
"""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from babelscope.activations_store.disk import publish, reported, sync_folder, temporary_name

NAME = "SHA256SUMS"
_PART = "[A-Za-z0-9][A-Za-z0-9._+-]*"
_FILE = re.compile(rf"{_PART}(?:/{_PART})*\Z")
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_FILE.pattern})")
_PIECE = 1 << 20

# (done, total, file): called before each file that is read.
Progress = Callable[[int, int, str], None]


def covered(store: Path) -> list[str]:
    """Names, relative to the store, of the files that `SHA256SUMS` speaks of."""
    files = [store / "store.json", store / "items.h5", store / "packed.h5"]
    files += [*store.glob("shards/l-*/*.h5"), *store.glob("runs/*.json")]
    names = {p.relative_to(store).as_posix() for p in files if p.is_file()}
    return sorted(name for name in names if _FILE.match(name))


def file_digest(path: Path) -> str:
    """Hex sha256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def read_sums(store: Path) -> tuple[dict[str, str], list[str]]:
    """What `SHA256SUMS` says: digests by file name, and its lines that say nothing; both empty where it is missing."""
    try:
        lines = (store / NAME).read_bytes().decode("utf-8", "backslashreplace").split("\n")
    except FileNotFoundError:
        return {}, []
    sums: dict[str, str] = {}
    unread = [] if lines.pop() == "" else ["no line end at the end"]
    for line in lines:
        match = _LINE.match(line)
        if match is None or match[2] in sums:
            unread.append(line)
        else:
            sums[match[2]] = match[1]
    return sums, unread


def write_sums(store: Path, known: Mapping[str, str] | None = None, progress: Progress = lambda *_: None) -> None:
    """Write `SHA256SUMS` anew: a digest that it holds is kept while its file exists, those it lacks are computed.

    A digest is never computed again: that of a file which was damaged since would then vouch for the damage.

    Parameters
    ----------
    known : mapping, optional
        Digests of files that need not be read for it.
    progress : callable
        Called before each file that has to be read.
    """
    said, _ = read_sums(store)
    names = covered(store)
    have = {**(known or {}), **said}
    unread = [name for name in names if name not in have]
    for number, name in enumerate(unread):
        progress(number, len(unread), name)
        have[name] = file_digest(store / name)
    sums = {name: have[name] for name in names}
    if sums != said or not (store / NAME).exists():
        _replace(store / NAME, "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode())


def _replace(path: Path, text: bytes) -> None:
    # `publish` never replaces, and a reader must find the old digests or the new ones.
    new = temporary_name(path)
    publish(new, text)
    with reported(path, len(text)):
        os.replace(new, path)
        sync_folder(path.parent)
