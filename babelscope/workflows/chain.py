"""The verb `train_chain`: trainings that start from each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from babelscope.training.chain import read_chain
from babelscope.workflows.outputs import reported
from babelscope.workflows.signals import Note, Progress
from babelscope.workflows.training import TrainingPlan, train


def train_chain(
    source: Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> dict[str, Path | TrainingPlan]:
    """Train every stage of a chain into a folder of its own in `out`.

    The same call again goes on with the stage that is missing, from its newest checkpoint.

    Parameters
    ----------
    limit : int, optional
        First items of each source, to try it out.
    dry_run : bool
        Only say what would be done; a stage that starts from another is planned on the model of the chain.

    Returns
    -------
    dict
        Name of each stage -> its model folder, or what it would do.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix; a file that cannot be a chain is told before the first stage.
    """
    chain, folder = read_chain(source), Path(out).expanduser()
    done: dict[str, Path | TrainingPlan] = {}
    if dry_run:
        for name in chain.stages:
            config = chain.stage(name, folder).model_copy(update={"model": chain.model})
            done[name] = train(config, folder / name, limit=limit, dry_run=True, note=note)
        return done
    with reported(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in chain.stages:
        target = done[name] = folder / name
        if target.exists():
            continue
        resume = (folder / f"{name}.checkpoints").exists()
        train(chain.stage(name, folder), target, limit=limit, resume=resume, progress=_named(progress, name), note=note)
    return done


def _named(progress: Progress | None, stage: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, f"{stage}: {what}")
