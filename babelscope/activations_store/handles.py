"""Files that stay open for the time of one reading, each in the thread and the process that opened it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import h5py

from babelscope.activations_store.hdf5 import open_checked
from babelscope.schema import CapturePlan

# Of the 1,024 files that a process may have open on most machines.
MOST_HELD = 128

_held: ContextVar[dict[tuple[int, Path], h5py.File] | None] = ContextVar("held", default=None)


@contextmanager
def holding() -> Iterator[None]:
    """Inside, a file with rows is opened once and not at every read. Nothing stays open behind it."""
    held: dict[tuple[int, Path], h5py.File] = {}
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)
        for file in held.values():
            file.close()


@contextmanager
def borrowed(path: Path, plan: CapturePlan, language: str = "", block: int = -1) -> Iterator[h5py.File]:
    """A shard or packed file that is held open, or else one that is opened now and closed unless it is to be held."""
    held = _held.get()
    key = (os.getpid(), path)  # a forked process opens files of its own
    file = held.get(key) if held else None
    if file is None:
        file = open_checked(path, plan, language, block)
        if held is not None and len(held) < MOST_HELD:
            held[key] = file
    try:
        yield file
    finally:
        if held is None or held.get(key) is not file:
            file.close()
