"""The verb `analyze`: metrics of a store, each against its null."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from babelscope import analyses, reports
from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.accuracy import accuracy
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result
from babelscope.workflows.capture import Progress

if TYPE_CHECKING:
    import altair

Mode = Literal["corrected", "paper", "both"]


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
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    results = analyses.analyze(
        opened, wanted, sites=sites, languages=languages, position=position, by=by, sweep=sweep, mode=mode,
        seed=seed, jobs=jobs, progress=progress,
    )  # fmt: skip
    if "correct" in opened.answers and opened.answers["correct"].notna().any():
        results = [accuracy(opened), *results]
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
        return reports.stacked(self.results)

    def report(self, path: str | Path) -> Path:
        """Write one self-contained HTML file."""
        return reports.write_report(Path(path), self.results, self.store)


def open_store(path: str | Path) -> ActivationStore:
    """Open a capture for reading; no model and no torch are needed."""
    return ActivationStore.open(path)


def load_analysis(store: str | Path, folder: str | Path) -> Analysis:
    """The analysis whose tables `Analysis.save` wrote to `folder`."""
    tables = sorted(Path(folder).glob("*.parquet"))
    if not tables:
        raise BabelScopeError(f"{folder} holds no tables", f"run `cli.py analyze {store}` first")
    return Analysis(open_store(store), tuple(Result.load(path) for path in tables))


def check_folder(path: Path, *, overwrite: bool) -> None:
    """Refuse an existing output unless it may be replaced, and then only one that we wrote."""
    if not path.exists():
        return
    if not overwrite:
        raise BabelScopeError(f"{path} exists already", "add --overwrite to replace it, or name another with --out")
    if path.is_dir():
        ours = {"tables", "report.html"}
        foreign = sorted({p.name for p in path.iterdir()} - ours)
        if foreign:
            raise BabelScopeError(f"{path} holds {foreign[0]!r}, which is no analysis", "name another folder with --out")
        shutil.rmtree(path)
    else:
        path.unlink()
