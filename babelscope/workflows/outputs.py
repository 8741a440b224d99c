"""Outputs that appear whole or not at all: written beside their place, and moved there when they are done."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from babelscope.activations_store.disk import OLD, discard, sweep, sync_folder, temporary_name
from babelscope.errors import BabelScopeError
from babelscope.workflows.signals import ended_by_sigterm


def check_output(path: Path, *, overwrite: bool, parts: Collection[str] = ()) -> None:
    """Refuse an output that exists, unless it may be replaced and is ours.

    Parameters
    ----------
    path : Path
    overwrite : bool
    parts : collection of str
        Names that a folder of ours may hold; none for a single file.

    Raises
    ------
    BabelScopeError
        If `path` exists and may not be replaced, or holds something that is not ours, or lies in no folder.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise BabelScopeError(f"{folder} is no folder, so {path.name} cannot be written there", "make it first")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise BabelScopeError(f"{path} exists already", "add --overwrite to replace it, or name another output")
    if not parts:
        if path.is_dir():
            raise BabelScopeError(f"{path} is a folder, a file was expected", "name another output")
        return
    if not path.is_dir():
        raise BabelScopeError(f"{path} is a file, a folder was expected", "name another output")
    foreign = sorted(p.name for p in path.iterdir() if p.name not in parts)
    if foreign:
        raise BabelScopeError(
            f"{path} holds {foreign[0]!r}, which was not written here, so it is not replaced",
            "move it away, or name another output",
        )


@contextmanager
def new_folder(path: Path, *, overwrite: bool, parts: Collection[str]) -> Iterator[Path]:
    """A hidden folder to write to, which becomes `path` as `new_output` says."""
    with new_output(path, overwrite=overwrite, parts=parts) as content:
        with reported(path):
            content.mkdir()
        yield content


@contextmanager
def new_output(path: Path, *, overwrite: bool, parts: Collection[str] = ()) -> Iterator[Path]:
    """A hidden path to write a file or folder to, which becomes `path` if the block ends well, else is removed.

    What stood at `path` stays there until then. SIGTERM ends the block as Ctrl-C does, and what a process left that
    was killed is removed by the next one that writes to `path`.

    Raises
    ------
    BabelScopeError
        As `check_output`, and where the folder cannot be written.
    """
    target = Path(os.path.realpath(path))  # a link to another disk stays a link
    with reported(path):
        sweep(target)
    check_output(path, overwrite=overwrite, parts=parts)
    building = temporary_name(target)
    content = building / target.name
    with ended_by_sigterm():
        try:
            with reported(path):
                building.mkdir()
            yield content
            with reported(path):
                if target.exists():
                    target.rename(building / OLD)
                _place(content, target)
        finally:
            discard(building, target)


def _place(content: Path, target: Path) -> None:
    if content.is_dir():
        content.rename(target)
    else:
        os.link(content, target)  # a rename would replace a file that has appeared meanwhile
    sync_folder(target.parent)


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into one problem and one hint."""
    try:
        yield
    except OSError as error:
        raise BabelScopeError(
            f"{path} cannot be written: {error.strerror or error}", "check the folder, its permissions and free space"
        ) from error
