"""The verb `train_chain`: trainings that start from each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babelscope.training.chain import read_chain
from babelscope.workflows.outputs import reported
from babelscope.workflows.signals import Note, Progress
from babelscope.workflows.training import train


def train_chain(
    config: Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> dict[str, Path]:
    """Train every stage of a chain into a folder of its own in `out`.

    The same call again goes on with the stage that is missing, from its newest checkpoint.

    Returns
    -------
    dict
        Name of each stage -> its model folder.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix; a file that cannot be a chain is told before the first stage.
    """
    chain, folder = read_chain(config), Path(out).expanduser()
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    done = {}
    for name in chain.stages:
        done[name] = folder / name
        if done[name].exists():
            continue
        resume = (folder / f"{name}.checkpoints").exists()
        train(chain.stage(name, folder), done[name], resume=resume, progress=_named(progress, name), note=note)
    return done


def _named(progress: Progress | None, stage: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, f"{stage}: {what}")
