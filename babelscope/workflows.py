"""The verbs: capture, analyze, sweep, report, demo. The CLI and notebooks call these and nothing else."""

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
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.datasets.load import load_prompts
from babelscope.datasets.mapping import PromptMapping
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import CapturePlan, PromptSet, Result, concatenate

if TYPE_CHECKING:
    import altair

    from babelscope.hooks import LoadedModel

# (done, total, what is being worked on): the CLI draws a bar from it, a notebook may ignore it.
Progress = Callable[[int, int, str], None]
Mode = Literal["corrected", "paper", "both"]

DEMO_PROMPTS = ("kfrd-arithmetic", "knowledge")
DEMO_SITES = ("resid.post", "mlp.act")
DEMO_ITEMS = 120
DEMO_SWEEP = {"threshold": tuple(round(0.1 + 0.05 * i, 2) for i in range(17))}


def models() -> tuple[str, ...]:
    """Names of the embedded models; each may be given wherever a model is asked for."""
    folder = files("babelscope.models")
    return tuple(sorted(f.name for f in folder.iterdir() if f.is_dir() and f.joinpath("config.json").is_file()))


def model_path(source: str) -> str:
    """Folder of an embedded model, or `source` itself for a local folder or a hub id."""
    if source in models() and not Path(source).exists():
        return str(files("babelscope.models").joinpath(source))
    return source


def prompts_of(
    sources: Sequence[str | PromptSet],
    *,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: PromptMapping | Mapping[str, Any] | str | None = None,
) -> tuple[PromptSet, list[str]]:
    """One prompt set out of names of generated datasets, files and prompt sets.

    Parameters
    ----------
    limit : int, optional
        First items kept of *each* source.

    Returns
    -------
    PromptSet
    list of str
        What the loaders noted: repaired lines, items missing in a language.
    """
    if not sources:
        raise BabelScopeError("no prompts were named", "add --prompts kfrd-arithmetic or --prompts FILE.jsonl")
    if limit is not None and limit < 1:
        raise BabelScopeError(f"a limit of {limit} items leaves nothing", "give --limit 1 or more")
    sets, notes = [], []
    for source in sources:
        if isinstance(source, PromptSet):
            found: PromptSet = source
        else:
            found, said = load_prompts(source, mapping=mapping, languages=languages)
            notes += said
        sets.append(found.select(languages=languages, limit=limit))
    return concatenate(sets), notes


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
    prompts: Sequence[str | PromptSet],
    sites: Sequence[str] = ("resid.post", "mlp.act"),
    positions: Sequence[str] = ("last",),
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: PromptMapping | Mapping[str, Any] | str | None = None,
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

    from babelscope import hooks, plugins

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


def analyze(
    store: str | Path | ActivationStore,
    metrics: Sequence[str] | str = ("cs", "nao"),
    *,
    sweep: Mapping[str, Sequence[float]] | None = None,
    sites: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    position: str | None = None,
    by: str | None = "auto",
    mode: Mode = "both",
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
) -> "Analysis":
    """Metrics of a store, each against its null, with intervals and corrected p-values.

    Parameters
    ----------
    store : path or ActivationStore
    metrics : str or sequence of str
        Names as `cli.py ls metrics` prints them.
    sweep : mapping, optional
        Parameter -> values, as `{"threshold": [0.1, 0.4, 0.9]}`; metrics without the parameter ignore it.
    by : str or None
        Item covariate that forms the groups; "auto" takes `demand` where it varies; None puts all in one group.
    mode : {"corrected", "paper", "both"}

    Returns
    -------
    Analysis
        Tidy tables with provenance, ready to be saved, plotted and reported.
    """
    from babelscope import analyses

    opened = store if isinstance(store, ActivationStore) else open_store(store)
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    results = analyses.analyze(
        opened, wanted, sites=sites, languages=languages, position=position, by=by, sweep=sweep, mode=mode,
        seed=seed, jobs=jobs, progress=progress,
    )  # fmt: skip
    return Analysis(opened, tuple(results))


@dataclass(frozen=True, slots=True)
class Analysis:
    """The results of one `analyze`, and the store that they come from."""

    store: ActivationStore
    results: tuple[Result, ...]

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise unknown_name("result of this analysis", name, (r.name for r in self.results))

    def save(self, folder: str | Path) -> list[Path]:
        """Write every table as Parquet, CSV and JSON provenance."""
        return [path for result in self.results for path in result.save(Path(folder))]

    def plot(self) -> "altair.TopLevelMixin":
        """The headline figures, one above the other."""
        from babelscope import reports

        return reports.figure(self.results)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML file."""
        from babelscope import reports

        return reports.write_report(Path(path), self.results, self.store)


def open_store(path: str | Path) -> ActivationStore:
    """Open a capture for reading; no model and no torch are needed."""
    return ActivationStore.open(path)


def demo(
    folder: str | Path = "demo",
    *,
    overwrite: bool = False,
    items: int = DEMO_ITEMS,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> "Analysis":
    """Capture the embedded model on parallel prompts in fourteen languages, analyze, and write a report.

    Writes `run.acts`, `tables/` and `report.html` to `folder`.
    """
    target = Path(folder)
    marker = target / "run.acts"
    if target.exists() and not overwrite:
        raise BabelScopeError(f"{target} exists already", "add --overwrite, or name another folder with --out")
    if target.exists() and any(target.iterdir()) and not marker.exists():
        raise BabelScopeError(f"{target} exists and holds no demo", "name another folder with --out")
    target.mkdir(parents=True, exist_ok=True)
    store = capture(
        marker, model=models()[0], prompts=DEMO_PROMPTS, sites=DEMO_SITES, limit=items, overwrite=True,
        progress=progress, note=note,
    )  # fmt: skip
    assert isinstance(store, ActivationStore)
    analysis = analyze(store, ("cs", "nao"), sweep=DEMO_SWEEP, jobs=2, progress=progress)
    if (target / "tables").exists():
        shutil.rmtree(target / "tables")
    analysis.save(target / "tables")
    analysis.report(target / "report.html")
    return analysis


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
