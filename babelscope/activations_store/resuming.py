"""What is committed, and what a resume does with a committed shard that is not what was written."""

import contextlib
import os
from pathlib import Path

from babelscope.activations_store.disk import HOST, reported, sync_folder
from babelscope.activations_store.hdf5 import DamagedFileError, opened
from babelscope.activations_store.shard import check_shard, shard_path
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan


def committed(path: Path, plan: CapturePlan) -> set[tuple[str, int]]:
    """(language, block) of every shard whose name exists."""
    with reported(path):
        names = {g: set(os.listdir(path / "shards" / f"l-{g}")) for g in plan.languages}
    return {(g, b) for g, b in plan.blocks if shard_path(path, plan, g, b).name in names[g]}


def quarantine_damaged(path: Path, plan: CapturePlan) -> list[str]:
    """Move every shard that is damaged or belongs elsewhere to `quarantine/`, so that it is computed again.

    Looks at names, shapes, types and everything that says which row is which, not at the digests of the values.

    Returns
    -------
    list of str
        What was moved, and why.

    Raises
    ------
    BabelScopeError
        If a shard cannot be read for another reason, as a disk that is away: nothing is then moved.
    """
    damaged: dict[Path, tuple[str, os.stat_result]] = {}
    for language, block in sorted(committed(path, plan)):
        shard = shard_path(path, plan, language, block)
        try:
            seen = shard.stat()
            with opened(shard, plan, language, block) as file:
                check_shard(file, plan, block)
        except DamagedFileError as error:
            damaged[shard] = (error.problem, seen)
        except (BabelScopeError, FileNotFoundError):
            if shard.exists():  # else a process beside this one has moved it away
                raise
    return [f"{why}; moved to {_move(path, shard, seen)}" for shard, (why, seen) in damaged.items()]


def _move(path: Path, shard: Path, seen: os.stat_result) -> str:
    """Move a shard out of the way under a name of its own, unless it is another file by now; give that name."""
    folder = path / "quarantine"
    with reported(shard):
        folder.mkdir(exist_ok=True)
        target = folder / f"{shard.parent.name}-{shard.stem}.{HOST}-{os.getpid()}.h5"
        with contextlib.suppress(FileNotFoundError):  # a process beside this one was faster
            if os.path.samestat(seen, shard.stat()):
                os.rename(shard, target)
        sync_folder(folder)
        sync_folder(shard.parent)
    return f"quarantine/{target.name}"
