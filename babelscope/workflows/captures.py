"""The verb `capture`: prompts through a model into a store."""

import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babelscope import plugins
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan, PromptSet
from babelscope.workflows.models import model_path
from babelscope.workflows.prompts import AnyMapping, prompts_of

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel

# (done, total, what is being worked on): the CLI draws a bar from it, a notebook may ignore it.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a capture will do, as printed by `--dry-run`."""

    rows: int
    tokens: int
    store_bytes: int
    free_bytes: int
    plan: CapturePlan

    def lines(self) -> list[str]:
        """One fact a line."""
        return [
            f"rows     {self.rows:,} prompts, {len(self.plan.items):,} items x {len(self.plan.languages)} languages",
            f"tokens   {self.tokens:,}",
            f"sites    {len(self.plan.sites)} ({', '.join(self.plan.site_layers())})",
            f"store    {self.store_bytes / 1e6:,.1f} MB ({self.free_bytes / 1e9:,.1f} GB free)",
            f"plan     {self.plan.fingerprint[:16]}",
        ]


def capture(
    out: str | Path,
    *,
    model: str,
    prompts: Sequence[str | Path | PromptSet],
    sites: Sequence[str] = ("resid.post", "mlp.act"),
    positions: Sequence[str] = ("last",),
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: AnyMapping = None,
    answers: bool = True,
    backend: str = "torch",
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    block_items: int = 64,
    texts: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    self_test: bool = True,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> "ActivationStore | Estimate":
    """Run prompts through a model and keep the activations of the named sites.

    Parameters
    ----------
    out : path
        Store folder, by custom `NAME.acts`. Must not exist, unless `resume` or `overwrite`.
    model : str
        Local folder, hub id, or name of an embedded model.
    prompts : sequence
        Names of generated datasets, files, or prompt sets.
    sites, positions : sequence of str
        As `resid.post`, `mlp.act@3`, `mlp.act@2:6`; as `last`, `mean`, `segment:question`.
    resume : bool
        Continue an interrupted capture of the same plan.
    overwrite : bool
        Replace an existing store.
    dry_run : bool
        Estimate only; nothing is written.

    Returns
    -------
    ActivationStore, or Estimate for a dry run

    Raises
    ------
    BabelScopeError
        For anything the user can fix; nothing half-written is left behind.
    """
    path = Path(out)
    _check_target(path, resume=resume, overwrite=overwrite, dry_run=dry_run)
    prompt_set, notes = prompts_of(prompts, languages=languages, limit=limit, mapping=mapping)
    for text in notes:
        note(text)

    from babelscope import hooks  # torch is imported here and not before

    engine = plugins.load("backend", backend)
    loaded = hooks.load_model(model_path(model), revision=revision, dtype=dtype, device=device)
    loaded = replace(loaded, ref=replace(loaded.ref, source=model))
    hooks.check_lengths(loaded, prompt_set)
    plan = hooks.make_plan(
        loaded, prompt_set, sites=sites, positions=positions, answers=answers, backend=backend, block_items=block_items
    )
    estimate = _estimate(path, plan, loaded, prompt_set)
    if dry_run:
        return estimate
    if estimate.free_bytes < 1.05 * estimate.store_bytes:
        raise BabelScopeError(
            f"{path}: needs {estimate.store_bytes / 1e9:.2f} GB, {estimate.free_bytes / 1e9:.2f} GB are free",
            "free some room, or name fewer sites or layers",
        )
    checks = hooks.self_test(loaded, prompt_set, plan) if self_test else {}
    provenance = _provenance(loaded, prompt_set, checks)
    writer = (
        StoreWriter.resume(path, plan)
        if resume and path.exists()
        else StoreWriter.create(path, plan, prompt_set, provenance, texts=texts, overwrite=overwrite)
    )
    with writer:
        _fill(writer, engine, plan, loaded, prompt_set, progress)
    return ActivationStore.open(path)


def _check_target(path: Path, *, resume: bool, overwrite: bool, dry_run: bool) -> None:
    if resume and overwrite:
        raise BabelScopeError("--resume and --overwrite contradict each other", "give one of them")
    if path.exists() and not (resume or overwrite or dry_run):
        raise BabelScopeError(f"{path} exists already", "add --resume to continue it or --overwrite to replace it")
    if not path.absolute().parent.is_dir():
        raise BabelScopeError(f"{path.absolute().parent} is no folder", "make it first")


def _estimate(path: Path, plan: CapturePlan, loaded: "LoadedModel", prompts: PromptSet) -> Estimate:
    from babelscope import hooks

    tokens, size = hooks.estimate(plan, loaded, prompts)
    return Estimate(len(prompts), tokens, size, shutil.disk_usage(path.absolute().parent).free, plan)


def _fill(
    writer: StoreWriter,
    engine: Any,
    plan: CapturePlan,
    loaded: "LoadedModel",
    prompts: PromptSet,
    progress: Progress | None,
) -> None:
    total = len(plan.languages) * plan.n_blocks
    pending = writer.pending()
    done = total - len(pending)
    with _stop_requested() as stopped:
        for block in engine.run(plan, loaded, prompts, pending):
            writer.put(block)
            done += 1
            if progress:
                progress(done, total, f"capture {block.language}")
            if stopped() and done < total:
                raise BabelScopeError(
                    f"stopped after {done} of {total} blocks; everything up to there is kept",
                    "run the same command with --resume to continue",
                )


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """First SIGINT or SIGTERM asks to stop after the block; the second stops at once.

    h5py swallows exceptions raised inside its weak-reference callbacks, so a handler may only set a flag.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked:
            os._exit(128 + number)  # committed shards are safe; an exception here could be swallowed
        asked.append(number)
        print("stopping after this block (again: at once)", file=sys.stderr)

    try:
        before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _provenance(loaded: "LoadedModel", prompts: PromptSet, checks: Mapping[str, float]) -> dict[str, Any]:
    packages = ("babelscope", "torch", "transformers", "h5py", "numpy")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {p: version(p) for p in packages},
        "device": str(loaded.device),
        "model": loaded.ref.source,
        "prompts": {"name": prompts.name, "source": prompts.source},
        "self_test": dict(checks),
    }
