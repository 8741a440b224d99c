"""The verb `probe`: what can be read off the layers of a captured model, in one language and across languages."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from babelscope import reports
from babelscope.activations_store import ActivationStore
from babelscope.analyses.description import description_table
from babelscope.analyses.erasing import erasure_table
from babelscope.analyses.probing import Place, item_table, probe_table
from babelscope.analyses.study import Study, make_study
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.probes.grid import MOST_ROWS
from babelscope.probes.probe import chosen_probe
from babelscope.probes.saved import FittedProbes, load_probes
from babelscope.schema import Result, Site
from babelscope.schema.glance import Glance
from babelscope.workflows.analysis import Marked, open_store
from babelscope.workflows.glances import glance
from babelscope.workflows.outputs import reported
from babelscope.workflows.probe_questions import chosen_variants, labeled, language_question, question_of
from babelscope.workflows.probed_layers import Asked, Probed, probed
from babelscope.workflows.signals import Note, Progress

__all__ = ["Probing", "load_probes", "probe"]

# With fewer shuffles than this, none of which reaches a score, its p is not below .05 once several layers count.
FEWEST_SHUFFLES = 39

# What a reader sees first.
SHOWN = ("variant", "site", "layer", "pairs", "n", "score", "low", "high", "null", "recognition", "control",
         "selectivity", "transfer", "p_max", "verdict")  # fmt: skip


def probe(
    store: str | Path | ActivationStore,
    target: str,
    *,
    probe: str = "ridge",
    settings: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    positions: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    group: str | None = None,
    control: str | None = None,
    folds: int = 5,
    permutations: int = 99,
    variants: Sequence[str] | None = None,
    mdl: bool = False,
    marked: Marked = "refuse",
    seed: int = 0,
    n_boot: int = 2000,
    jobs: int = 1,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> "Probing":
    """Fit a probe in every language and layer, and test it in all languages, on items that it has not seen.

    Parameters
    ----------
    store : path or ActivationStore
    target : str
        What is asked for: `language`, `script`, `correct`, or a covariate of the items, as `gold-letter` or `rule`.
    probe : str
        Name as `cli.py ls probes` prints it.
    settings : mapping, optional
        Parameters of the probe.
    sites : sequence of str, optional
        As `resid.post@0:4`. Default: all that are stored.
    positions : sequence of str, optional
        Stored positions with one row an item. Default: `last` where it was captured.
    languages : sequence of str, optional
        Default: all.
    group : str, optional
        Item covariate, as `fact`: items that share it are tested in the same fold. Items with the same text always are.
    control : str, optional
        Item covariate whose values are the types of the control task, or "none". Default: rule, subject, template or
        task, the first with twice as many values as the target has classes.
    folds : int
    permutations : int
        Shuffled labels, to which the probe is fitted anew.
    variants : sequence of str, optional
        Of "raw", "centered" (each language about its own mean) and "erased" (language erased by LEACE, with a table of
        before and after). Default: raw, and centered where labels do not tell languages apart.
    mdl : bool
        Description lengths of the labels in each language as well, by the online code.
    marked, seed, n_boot, jobs, progress, note
        As in `analyze`.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    _check(permutations, folds)
    estimator = chosen_probe(probe, settings)
    where = list(positions) if positions else [None]
    studies = [
        make_study(opened, sites=sites, languages=languages, position=p, by=None, marked=marked, seed=seed,
                   n_boot=n_boot, jobs=jobs, progress=progress, note=note)
        for p in where
    ]  # fmt: skip
    study = studies[0]
    if len(study.languages) < 2 and (target in ("language", "script") or "erased" in (variants or ())):
        raise BabelScopeError("one language cannot be told apart or erased", "name two, as --languages en,de")
    asked, items = labeled(study, target, folds)
    if asked.note:
        note(f"target {asked.name}: {asked.note}")
    question, types = question_of(
        study, asked, items, group=group, control=control, folds=folds, permutations=permutations
    )
    kinds = chosen_variants(variants, asked)
    language = None
    if "erased" in kinds and asked.scope == "language":
        question = replace(question, halves=("erased",))
    elif "erased" in kinds:
        language = language_question(question)
    found = _all_layers(studies, Asked(question, language, estimator, kinds, items, mdl, seed))
    about = {
        **study.provenance(), "items": len(items), "target": asked.name, "classes": asked.classes, "note": asked.note,
        "probe": probe, "parameters": asdict(estimator), "source": estimator.info.source,  # type: ignore[call-overload]
        "folds": folds, "permutations": permutations, "group": group, "control": types, "halves": question.halves,
        "most_rows": MOST_ROWS,
        "split": "by item, the same folds in all languages; items with equal text together",
        "score": "balanced accuracy on items that the probe was not fitted on, in any language",
        "null": "the probe fitted anew to shuffled labels", "interval": "bootstrap over items, 95 %",
    }  # fmt: skip
    answers = {place: one.answers for place, one in found.items()}
    tables = {
        "probe": probe_table(answers, question, probe=probe, n_boot=n_boot, seed=seed),
        "probe-items": item_table(answers, question, items),
    }
    if language is not None:
        layers = {place: one.erased for place, one in found.items() if one.erased is not None}
        tables["erasure"] = erasure_table(layers, question, language, n_boot=n_boot, n_perm=study.n_perm, seed=seed)
    if mdl:
        lengths = {(place, code): length for place, one in found.items() for code, length in one.described.items()}
        tables["description-length"] = description_table(lengths)
    fitted = {(str(p.site), p.position, code): x for p, one in found.items() for code, x in one.fitted.items()}
    kept = {"model": opened.plan.model.weights_sha256, "version": version("babelscope"), **about}
    results = tuple(Result(name, table, about) for name, table in tables.items())
    return Probing(opened, results, FittedProbes(asked.classes, kept, fitted))


@dataclass(frozen=True, slots=True)
class Probing:
    """The tables of one `probe`, and the probes fitted on all items."""

    store: ActivationStore
    results: tuple[Result, ...]
    fitted: FittedProbes

    def __repr__(self) -> str:
        return self._glance().text()

    def _repr_html_(self) -> str:
        return self._glance().html()

    def _glance(self) -> Glance:
        about = self["probe"].provenance
        facts = {"target": str(about["target"]), "null": str(about["null"])}
        return glance("Probing", self.store, self.results, facts, [self.means()])

    def __getitem__(self, name: str) -> Result:
        """A result by its name."""
        for result in self.results:
            if result.name == name:
                return result
        raise unknown_name("result", name, [r.name for r in self.results])

    @property
    def items(self) -> pd.DataFrame:
        """What the probes said of every item (`analyses.probing.item_table`)."""
        return self["probe-items"].table

    def matrix(
        self, layer: int, *, site: str | None = None, variant: str = "raw", value: str = "score"
    ) -> pd.DataFrame:
        """A column of the table as (language of the fit, language of the test) at one layer."""
        table = self["probe"].table
        names = table["site"].unique() if site is None else [site]
        rows = table[(table["pairs"] == "one") & (table["layer"] == layer) & (table["variant"] == variant)]
        rows = rows[rows["site"] == names[0]]
        if rows.empty:
            raise BabelScopeError(f"no {variant} probe of layer {layer}", "see the columns of the table `probe`")
        first = rows[rows["position"] == rows["position"].iloc[0]]
        wide: pd.DataFrame = first.pivot(index="language_a", columns="language_b", values=value)
        return wide.reindex(index=first["language_a"].unique(), columns=first["language_b"].unique())

    def means(self) -> pd.DataFrame:
        """The mean over languages of every layer: what a reader sees first."""
        table = self["probe"].table
        return table[table["pairs"] != "one"][list(SHOWN)].dropna(axis=1, how="all").reset_index(drop=True)

    def summary(self) -> str:
        """The means as text."""
        return reports.texts(self.shown())

    def shown(self) -> dict[str, pd.DataFrame]:
        """The table that `summary` prints, with every digit."""
        return {"probe": self.means()}

    def save(self, folder: str | Path) -> list[Path]:
        """Write the tables (Parquet, CSV, JSON provenance) and the probes (arrays and JSON)."""
        place = Path(folder)
        with reported(place):
            written = [path for result in self.results for path in result.save(place / "tables")]
            return written + self.fitted.save(place)


def _check(permutations: int, folds: int) -> None:
    if permutations < FEWEST_SHUFFLES:
        raise BabelScopeError(
            f"{permutations} shuffles cannot tell a score from chance", f"ask for {FEWEST_SHUFFLES} or more"
        )
    if folds < 2:
        raise BabelScopeError(f"{folds} folds leave nothing to test on", "ask for --folds 2 or more")


def _all_layers(studies: Sequence[Study], asked: Asked) -> dict[Place, Probed]:
    """Answers of every layer and position, layers in parallel."""
    work = [(study, site) for study in studies for site in _sites(study)]
    jobs = Parallel(n_jobs=studies[0].jobs, return_as="generator")(
        delayed(probed)(study.store.path, site, str(study.position), asked) for study, site in work
    )
    found = {}
    for done, ((study, site), one) in enumerate(zip(work, jobs, strict=True), start=1):
        found[Place(site, str(study.position))] = one
        study.progress(done, len(work), "probe layers")
    return found


def _sites(study: Study) -> list[Site]:
    names = dict.fromkeys(text.split("@")[0] for text in study.sites or map(str, study.store.plan.sites))
    return [site for name in names for site in study.layers(name)]
