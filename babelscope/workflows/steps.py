"""Stores that were captured while a model was trained: one for each step, read as one with a step axis."""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from babelscope import reports
from babelscope.activations_store import ActivationStore
from babelscope.activations_store.manifest import is_store
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.workflows.analysis import analyze, open_store
from babelscope.workflows.captures import capture
from babelscope.workflows.outputs import reported
from babelscope.workflows.prompts import gathered
from babelscope.workflows.signals import Note, Progress

if TYPE_CHECKING:
    import xarray

    from babelscope.training.config import Capture

_NAME = re.compile(r"step-(\d{8})\.acts\Z")


@dataclass(frozen=True, slots=True)
class Steps:
    """A folder of stores, one for each step of a training at which it was captured.

    Parameters
    ----------
    path : Path
    stores : mapping
        Step -> store, ascending. All hold the same items, languages, sites and positions.
    """

    path: Path
    stores: Mapping[int, ActivationStore]

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps, ascending; 0 is the model before its training."""
        return tuple(self.stores)

    def __getitem__(self, step: int) -> ActivationStore:
        if step not in self.stores:
            raise BabelScopeError(
                f"{self.path} has no step {step}", f"it has {', '.join(map(str, self.steps)) or 'none'}"
            )
        return self.stores[step]

    def xarray(self, site: str, position: str = "last", **selection: Any) -> "xarray.DataArray":
        """One site at a position as (step, ...), the other axes as `ActivationStore.select` names them."""
        import xarray

        parts = [store.select(site, position=position, **selection).xarray() for store in self.stores.values()]
        joined: xarray.DataArray = xarray.concat(parts, dim=pd.Index(self.steps, name="step"), join="exact")
        return joined

    def __repr__(self) -> str:
        return f"Steps({str(self.path)!r}, steps {', '.join(map(str, self.steps))})"


def open_steps(path: str | Path) -> Steps:
    """Open what a training with a `capture` in its configuration left beside the model, while it runs or after.

    Raises
    ------
    BabelScopeError
        If there is no such folder, or no finished store in it.
    """
    folder = Path(path).expanduser()
    if not is_steps(folder):
        raise BabelScopeError(
            f"{folder} holds no stores of training steps", "train with `capture` in the configuration: docs/training.md"
        )
    found = {step: open_store(file) for step, file in _files(folder).items()}
    return Steps(folder, {step: store for step, store in found.items() if store.progress[0] == store.progress[1]})


def is_steps(folder: Path) -> bool:
    """Whether a folder holds stores of training steps."""
    return folder.is_dir() and bool(_files(folder))


def steps_beside(model: Path) -> Path:
    """Where the stores of the steps of a model folder go."""
    return model.with_name(f"{model.name}.steps")


def check_steps(folder: Path, *, overwrite: bool) -> None:
    """Refuse where the stores of a new training would meet something else; nothing is removed.

    Raises
    ------
    BabelScopeError
        If there are stores of another one that are not to be replaced, or something else.
    """
    if not folder.exists():
        return
    if not overwrite or not folder.is_dir() or len(_files(folder)) < len(list(folder.iterdir())):
        raise BabelScopeError(
            f"{folder} exists already", "add --overwrite to replace stores of steps, or name another output"
        )


def clear_steps(folder: Path) -> None:
    """Remove the stores of an earlier training, now that the new one begins."""
    if folder.exists():
        shutil.rmtree(folder)


def step_captures(
    wanted: "Capture", folder: Path, model: Any, tokenizer: Any, base_sha256: str, note: Note
) -> Callable[[int, Any], None]:
    """What captures a model at a step of its training, into a store of its own in `folder`.

    Parameters
    ----------
    model : PreTrainedModel or PeftModel
        The one that will be trained.
    base_sha256 : str
        Of the weights that the training does not move; empty where it moves all.

    Raises
    ------
    BabelScopeError
        If the prompts, sites or positions do not exist.
    """
    from babelscope import hooks

    prompts = gathered(
        wanted.prompts, wanted.parameters, split="test", languages=wanted.languages, limit=wanted.limit, note=note
    )
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    located = hooks.as_loaded(inner.eval(), tokenizer, base_sha256=base_sha256)  # its parts do not move
    hooks.make_plan(located, prompts, sites=wanted.sites, positions=wanted.positions)

    def take(step: int, _: Any) -> None:
        loaded = hooks.hashed_now(located, base_sha256)
        folder.mkdir(exist_ok=True)
        target = folder / f"step-{step:08d}.acts"
        # A run that was killed comes by the same steps again.
        capture(
            target, model=loaded, prompts=prompts, sites=wanted.sites, positions=wanted.positions,
            overwrite=target.exists(), self_test=step == 0,
        )  # fmt: skip

    return take


def analyze_steps(
    steps: str | Path | Steps,
    metrics: Any = None,
    *,
    progress: Progress | None = None,
    note: Note = lambda _: None,
    **options: Any,
) -> "StepAnalysis":
    """Metrics of every step, each against the null of its own step; options as in `analyze`.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    opened = steps if isinstance(steps, Steps) else open_steps(steps)
    if not opened.stores:
        raise BabelScopeError(f"{opened.path} has no finished step yet", "wait for the first one")
    tables: dict[str, list[pd.DataFrame]] = {}
    about: dict[str, Any] = {}
    for step, store in opened.stores.items():
        found = analyze(
            store, metrics, progress=_named(progress, step), note=note if not tables else _silent, **options
        )
        for result in found.results:
            table = result.table
            if {"language_a", "layer"} <= set(table.columns):  # means over layers and pairs, one row a variant
                table = table[(table["language_a"] == "*") & table["layer"].isna()].drop(columns="layer")
            tables.setdefault(result.name, []).append(table.assign(step=step))
            about[result.name] = {**result.provenance, "stores": {**about.get(result.name, {}).get("stores", {}),
                                                                  step: store.fingerprint}}  # fmt: skip
    results = tuple(
        Result(f"{name}_by_step", pd.concat(parts, ignore_index=True), {**about[name], "steps": opened.steps})
        for name, parts in tables.items()
    )
    return StepAnalysis(opened, results)


@dataclass(frozen=True, slots=True)
class StepAnalysis:
    """The tables of one `analyze_steps`, each with a column `step`."""

    steps: Steps
    results: tuple[Result, ...]

    def summary(self) -> str:
        """The gap over the null at each step, by the corrected definitions at one threshold, as text."""
        return reports.text(reports.by_step(self.results), headings=(*reports.ABOVE, "group"))

    def shown(self) -> dict[str, pd.DataFrame]:
        """The table that `summary` prints, with every digit."""
        return {"by_step": reports.by_step(self.results)}

    def save(self, folder: str | Path) -> list[Path]:
        """Write every table as Parquet, CSV and JSON provenance."""
        with reported(Path(folder)):
            return [path for result in self.results for path in result.save(Path(folder))]

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML file, replacing one that is there."""
        last = self.steps[self.steps.steps[-1]]
        with reported(Path(path)):
            return reports.write_report(Path(path), [reports.Source(self.results, last)])


def _files(folder: Path) -> dict[int, Path]:
    named = {file: _NAME.match(file.name) for file in sorted(folder.iterdir())}
    return {int(match[1]): file for file, match in named.items() if match and is_store(file)}


def _named(progress: Progress | None, step: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, f"step {step}: {what}")


def _silent(_: str) -> None:
    """The notes of the first step hold for all."""
