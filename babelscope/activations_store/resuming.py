"""What a resume does with a committed shard that is not what was written."""

import os
from pathlib import Path

from babelscope.activations_store.hdf5 import DamagedFileError, opened
from babelscope.activations_store.quarantine import quarantine
from babelscope.activations_store.shard import check_shard, committed, shard_path
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan


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
        If a shard has what `guard.admit` refuses, or cannot be read for another reason, as a disk that is away:
        nothing is then moved.
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
    places = {
        shard: quarantine(path, shard.relative_to(path).as_posix(), [why], seen)
        for shard, (why, seen) in damaged.items()
    }
    return [f"{damaged[s][0]}; moved to {place.relative_to(path)}" for s, place in places.items() if place]
