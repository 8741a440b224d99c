"""The verb `analyze`: metrics of a store, each against its null."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from babelscope import analyses, reports
from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.accuracy import accuracy
from babelscope.analyses.references import PRIVATE, paraphrases
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result
from babelscope.schema.glance import Glance
from babelscope.workflows.attention_views import attention_views
from babelscope.workflows.glances import glance
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.outputs import reported
from babelscope.workflows.references import untrained_store
from babelscope.workflows.signals import Note, Progress

if TYPE_CHECKING:
    import altair

Mode = Literal["corrected", "paper", "both"]
Baseline = Literal["none", "random-init"]
Marked = Literal["refuse", "drop", "keep"]

# What `cli.py analyze` writes to its folder.
ANALYSIS_PARTS = frozenset({"tables", "report.html", "report.json", "report.figures"})

# Order of results where it is not remembered: metrics stand between.
PLACES = {"accuracy": 0, "contrast": 2, "sweep_summary": 3}


def analyze(
    store: str | Path | ActivationStore,
    metrics: Sequence[str] | str | None = None,
    *,
    recipes: Sequence[str] | str = (),
    settings: Mapping[str, Any] | None = None,
    model: str | None = None,
    baseline: Baseline = "none",
    sweep: Mapping[str, Sequence[float]] | None = None,
    sites: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    position: str | None = None,
    by: str | None = "auto",
    within: Sequence[str] | str = (),
    mode: Mode = "both",
    marked: Marked = "refuse",
    seed: int = 0,
    jobs: int = 1,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> "Analysis":
    """Metrics of a store, each against its null, with intervals and corrected p-values.

    Parameters
    ----------
    store : path or ActivationStore
    metrics : str or sequence of str, optional
        Names as `cli.py ls metrics` prints them. Default: none beside recipes; else cs and nao, as far as the sites
        can feed them.
    recipes : str or sequence of str
        Names as `cli.py ls recipes` prints them.
    settings : mapping, optional
        Parameter of a recipe -> value.
    model : str, optional
        Where the model of the store is now, for recipes that run it. Default: where it was captured from.
    baseline : {"none", "random-init"}
        Capture the same prompts with random weights as well, and show every gap beside that floor.
    sweep : mapping, optional
        Parameter -> values, as `{"threshold": [0.1, 0.4, 0.9]}`; metrics without the parameter ignore it.
    sites : sequence of str, optional
        As `mlp.act@0:4`. Default: every stored site that a metric reads.
    languages : sequence of str, optional
        At least two. Default: all.
    position : str, optional
        Default: `last` where it was captured.
    by : str or None
        Item covariate that forms the groups; "auto" takes `demand` where it varies; None puts all in one group.
        Items without a value are left out, and counted.
    within : str or sequence of str
        Item covariates, as `rule` or `gold`: the null of an item is restricted to mismatched items of its group with
        the same values, which shows how much of a gap the covariates explain. Corrected definitions only.
    mode : {"corrected", "paper", "both"}
    marked : {"refuse", "drop", "keep"}
        What happens to items that hold a value that was clipped or is not finite.
    seed : int
        Decides every resample.
    jobs : int
        Workers; the numbers do not depend on it.
    progress, note : callable, optional
        Called with (done, total, what), and with lines for a log.

    Returns
    -------
    Analysis
        Tidy tables with provenance, ready to be saved, plotted and reported. `accuracy` comes first where the
        model answered.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    done, planned = opened.progress
    if done < planned:
        note(f"{opened.path} is unfinished: {done} of {planned} shards; only items found in every language count")
    wanted = [metrics] if isinstance(metrics, str) else metrics
    if languages is None:
        # A language said in another way is no further language, but what similarity between languages can reach.
        languages = [g for g in opened.languages if PRIVATE not in g]
    common: dict[str, Any] = {
        "sites": sites, "languages": languages, "position": position, "by": by, "marked": marked, "seed": seed,
        "jobs": jobs, "progress": progress,
    }  # fmt: skip
    chosen = analyses.chosen_recipes([recipes] if isinstance(recipes, str) else recipes, settings or {})
    if chosen and wanted is None:
        _refuse_unread({"sweep": sweep, "within": within, "baseline": baseline != "none", "mode": mode != "both"})
    results: list[Result] = []
    study = None
    if chosen or baseline == "random-init":
        source = model_path(model or opened.plan.model.source)
        study = analyses.make_study(opened, model=source, note=note, **common)
    if wanted is not None or not chosen:
        options = {"sweep": sweep, "mode": mode, "within": [within] if isinstance(within, str) else within, **common}
        results = analyses.analyze(opened, wanted, **options)
        results += _references(opened, study if baseline == "random-init" else None, wanted, options, note)
    for text in reports.left_out(results):
        note(text)
    if study is not None:
        for recipe in chosen.values():
            results += recipe.run(study)
    if opened.answers["correct"].notna().any():
        results = [_accuracy_in(opened, languages), *results]
    return Analysis(opened, tuple(results))


def _refuse_unread(options: Mapping[str, Any]) -> None:
    """Refuse options that metrics read and recipes do not, where there are recipes alone."""
    unread = [name for name, value in options.items() if value]
    if unread:
        raise BabelScopeError(
            f"recipes do not read --{unread[0]}", "name a metric for it with --metric, or set parameters with --set"
        )


def _references(
    store: ActivationStore, study: Study | None, metrics: Sequence[str] | None, options: Mapping[str, Any], note: Note
) -> list[Result]:
    """The ceiling where languages have paraphrases, and the floor where it was asked for."""
    found = []
    if paraphrases(store.languages):
        found.append(analyses.ceiling(store, metrics, **options))
    if study is not None:
        with untrained_store(study, options["progress"], note) as untrained:
            # What random weights take out of range stays in; the model's own values were checked by its analysis.
            marked = "keep" if options["marked"] == "refuse" else options["marked"]
            found.append(analyses.floor(store, untrained, metrics, **{**options, "marked": marked}))
    return found


def _accuracy_in(store: ActivationStore, languages: Sequence[str] | None) -> Result:
    found = accuracy(store)
    if languages is None:
        return found
    kept = found.table[found.table["language"].isin(list(languages))]
    about = {**found.provenance, "languages": tuple(dict.fromkeys(languages))}
    return replace(found, table=kept.reset_index(drop=True), provenance=about)


@dataclass(frozen=True, slots=True)
class Analysis:
    """The results of one `analyze`, and the store that they come from."""

    store: ActivationStore
    results: tuple[Result, ...]

    def __repr__(self) -> str:
        return self._glance().text()

    def _repr_html_(self) -> str:
        return self._glance().html()

    def _glance(self) -> Glance:
        shown = [self.headline(), *(r.table for r in self.results if "claim" in r.table)]
        return glance("Analysis", self.store, self.results, {"null": self.null}, shown)

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.name == name:
                return result
        raise unknown_name("result of this analysis", name, (r.name for r in self.results))

    @property
    def null(self) -> str:
        """What every value is compared with, as `different items of the same group and rule`."""
        return f"different {reports.null_items(self.results)}"

    def headline(self) -> pd.DataFrame:
        """The corrected means over layers and language pairs at the default threshold, then contrasts of groups."""
        return reports.headline(self.results)

    def summary(self) -> str:
        """The headline as a table of text, then the claims of every recipe."""
        parts = [reports.text(reports.headline_text(self.results), headings=reports.ABOVE)]
        parts += [reports.text(table, headings=("claim",)) for table in reports.claims_text(self.results)]
        return "\n\n".join(part for part in parts if part)

    def shown(self) -> dict[str, pd.DataFrame]:
        """The tables that `summary` prints, with every digit."""
        return {"headline": self.headline(), **reports.claims(self.results)}

    def save(self, folder: str | Path) -> list[Path]:
        """Write every table as Parquet, CSV and JSON provenance."""
        with reported(Path(folder)):
            return [path for result in self.results for path in result.save(Path(folder))]

    def figures(self) -> list[reports.Figure]:
        """Every figure that the tables allow, each with its title and caption."""
        return reports.figures(self.results)

    def plot(self) -> "altair.TopLevelMixin":
        """The headline figures, one above the other."""
        return reports.stacked(self.results)

    def report(self, path: str | Path, *, figures: Sequence[str] = ()) -> Path:
        """Write one self-contained HTML file, replacing one that is there, and its numbers beside it.

        Parameters
        ----------
        path : path
            `NAME.html`; `NAME.json` holds every number, `NAME.figures/` the rows of each figure as CSV.
        figures : sequence of str
            Of "svg", "pdf" and "png": each figure as a picture as well.
        """
        with reported(Path(path)):
            views = attention_views(self.store)
            return reports.write_report(Path(path), [reports.Source(self.results, self.store)], views, figures)


def open_store(path: str | Path) -> ActivationStore:
    """Open a capture for reading; no model and no torch are needed."""
    return ActivationStore.open(Path(path).expanduser())


def load_analysis(store: str | Path, folder: str | Path) -> Analysis:
    """The analysis whose tables `Analysis.save` wrote to `folder`.

    Raises
    ------
    BabelScopeError
        If there are no tables, one is damaged, or they were computed from another store.
    """
    opened = open_store(store)
    results = load_results(opened, Path(folder))
    if not results:
        raise BabelScopeError(f"{folder} holds no tables", f"run `cli.py analyze {store}` first")
    return Analysis(opened, results)


def load_results(store: ActivationStore, folder: Path) -> tuple[Result, ...]:
    """Saved tables of a folder, or of its `tables`, that were computed from a store; accuracy first, sweeps last.

    Raises
    ------
    BabelScopeError
        If one is damaged, or was computed from another store.
    """
    where = folder / "tables" if (folder / "tables").is_dir() else folder
    results = []
    for path in sorted(where.glob("*.parquet")):
        try:
            result = Result.load(path)
        except (OSError, ValueError) as error:
            raise BabelScopeError(
                f"{path} or its .json is damaged: {str(error).splitlines()[0]}",
                f"run `cli.py analyze {store.path} --overwrite`",
            ) from None
        if fingerprint_of(result) != store.fingerprint:
            raise BabelScopeError(
                f"{path} was computed from another store than {store.path}",
                "name the store of these tables, or analyze this one",
            )
        results.append(result)
    return tuple(sorted(results, key=lambda r: (PLACES.get(r.name, 1), r.name)))


def fingerprint_of(result: Result) -> str | None:
    """Of the store that a table was computed from; None where it does not say."""
    return result.provenance.get("store") if isinstance(result.provenance, Mapping) else None
