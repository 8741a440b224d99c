"""The verb `report`: everything that was computed from one store or several, on one page."""

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from babelscope import reports
from babelscope.activations_store import ActivationStore
from babelscope.activations_store.manifest import is_store
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.workflows.analysis import analyze, fingerprint_of, load_results, open_store
from babelscope.workflows.attention_views import attention_views
from babelscope.workflows.outputs import check_output, reported
from babelscope.workflows.signals import Note, Progress

# Folders that commands write beside a store, as `run.acts.analysis`.
ENDINGS = ("analysis", "evaluation", "probes", "sweep")

# Tables that two commands write of the same numbers.
SHARED = {"accuracy"}

# Tables of all metrics of an analysis; those of other metrics stand in the same one.
BY_METRIC = {"contrast", "sweep_summary"}


def report(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | None = None,
    figures: Sequence[str] = (),
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> Path:
    """Write one self-contained HTML file about stores and the tables that were computed from them.

    Parameters
    ----------
    paths : sequence of path
        Stores, and folders that `analyze`, `evaluate`, `probe` or `sweep` wrote, each of which belongs to one of the
        stores. Folders beside a store that bear its name (`run.acts.analysis`, `run.acts.mexa`) are found. A store
        without any tables is analyzed as `analyze` does by default, if it can be.
    out : path
        `NAME.html`; `NAME.json` holds every number, `NAME.figures/` the rows of each figure as CSV.
    model : str, optional
        Where the tokenizer is now, for the attention of single items. Default: as captured.
    figures : sequence of str
        Of "svg", "pdf" and "png": each figure as a picture as well.
    progress, note : callable, optional
        Called with (done, total, what), and with lines for a log.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    BabelScopeError
        If a path is neither store nor tables, tables belong to none of the stores, or an output cannot be written.
    """
    # Each once, however it is spelled.
    named = [*{path.resolve(): path for path in (Path(path).expanduser() for path in paths)}.values()]
    given = [path for path in named if is_store(path) or path.suffix == ".acts"]  # what is none says why
    stores = [open_store(path) for path in given]
    folders = {path: _fingerprint(path) for path in named if path not in given}
    stores = stores or [open_store(path) for path in _stores_of(folders)]
    for folder, fingerprint in folders.items():
        if fingerprint not in {store.fingerprint for store in stores}:
            raise BabelScopeError(f"{folder} was computed from none of these stores", "name its store as well")
    sources: list[reports.Source] = []
    for store in stores:
        own = [folder for folder, fingerprint in folders.items() if fingerprint == store.fingerprint]
        found = list(_sources(store, [*dict.fromkeys([*_beside(store), *own])]))
        if not found:
            found = [reports.Source(_by_default(store, progress, note), store)]
        sources += found
    sources = _told_apart(sources)
    views = [view for store in stores for view in attention_views(store, model=model, note=note)]
    with reported(Path(out)):
        return reports.write_report(Path(out), sources, views, figures)


def check_report(out: Path, *, overwrite: bool) -> None:
    """Refuse a report where something stands that may not be replaced, be it the page or what belongs to it.

    Raises
    ------
    BabelScopeError
        As `check_output`.
    """
    numbers, folder = reports.report_files(out)
    check_output(out, overwrite=overwrite)
    check_output(numbers, overwrite=overwrite)
    if folder.exists() and not folder.is_dir():
        raise BabelScopeError(f"{folder} is a file, a folder was expected", "name another output")
    if folder.exists() and not overwrite and any(folder.iterdir()):
        raise BabelScopeError(
            f"{folder} exists already", "add --overwrite to replace its figures, or name another output"
        )


def _fingerprint(folder: Path) -> str:
    """Of the store that the tables of a folder were computed from."""
    where = folder / "tables" if (folder / "tables").is_dir() else folder
    first = next(iter(sorted(where.glob("*.parquet"))), None)
    if first is None:
        raise BabelScopeError(
            f"{folder} is no store and holds no tables",
            "name a store, as run.acts, or what analyze wrote, as run.acts.analysis",
        )
    try:
        fingerprint = fingerprint_of(Result.load(first))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BabelScopeError(f"{first} or its .json is damaged: {reason}", "analyze its store again") from None
    if fingerprint is None:
        raise BabelScopeError(
            f"the tables in {folder} are of no single store, as those of a comparison", "leave it out"
        )
    return fingerprint


def _stores_of(folders: Mapping[Path, str]) -> list[Path]:
    """Stores whose names folders bear: `run.acts.analysis` stands beside `run.acts`."""
    found: dict[Path, None] = {}
    for folder in folders:
        store = folder.with_suffix("")
        if not is_store(store):
            raise BabelScopeError(f"the store of {folder} is not known", f"name it: cli.py report STORE {folder}")
        found[store] = None
    return list(found)


def _beside(store: ActivationStore) -> list[Path]:
    """Folders of tables of a store that bear its name, those of default names first."""
    path = store.path.resolve()
    found = []
    for place in sorted(path.parent.glob(f"{glob.escape(path.name)}.*")):
        with suppress(BabelScopeError):  # a comparison, or a folder of something else
            if place.is_dir() and _fingerprint(place) == store.fingerprint:
                found.append(place)
    defaults = [f"{path.name}.{ending}" for ending in ENDINGS]
    return sorted(found, key=lambda p: defaults.index(p.name) if p.name in defaults else len(defaults))


def _by_default(store: ActivationStore, progress: Progress | None, note: Note) -> tuple[Result, ...]:
    """The default analysis; none where a store (unfinished, in one language) allows no comparison: it has a card."""
    note(f"there are no tables of {store.path} yet: it is analyzed by the default metrics")
    try:
        return analyze(store, progress=progress, note=note).results
    except BabelScopeError as error:
        note(f"{store.path} is not analyzed: {error.problem}")
        return ()


def _told_apart(sources: Sequence[reports.Source]) -> list[reports.Source]:
    """Sources of one name, as those of `a/run.acts` and `b/run.acts`, by the paths of their stores."""
    count = Counter(source.name for source in sources)
    return [
        replace(source, label=" ".join([str(source.store.path), source.label]).rstrip())
        if source.store is not None and count[source.name] > 1
        else source
        for source in sources
    ]


def _sources(store: ActivationStore, folders: Sequence[Path]) -> Iterator[reports.Source]:
    """The tables of a store; those that two folders have in two versions make sources of their own."""
    loaded = {folder: load_results(store, folder) for folder in folders}
    merged: dict[str, Result] = {}
    for folder, results in loaded.items():
        new = {r.name: r for r in results if r.name not in merged or r.name not in SHARED}
        new = {name: r for name, r in new.items() if not _joined(merged, r)}
        if merged.keys().isdisjoint(new):
            merged |= new
        else:
            yield reports.Source(tuple(new.values()), store, folder.name)
    if merged:
        yield reports.Source(tuple(merged.values()), store)


def _joined(merged: dict[str, Result], result: Result) -> bool:
    """Whether a table of several metrics was joined to that of other metrics."""
    known = merged.get(result.name)
    if known is None or result.name not in BY_METRIC or set(known.table["metric"]) & set(result.table["metric"]):
        return False
    merged[result.name] = replace(known, table=pd.concat([known.table, result.table], ignore_index=True))
    return True
