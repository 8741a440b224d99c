"""The verb `evaluate`: what a captured model can do in each language, and what of it is transferred."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from babelscope import reports
from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.accuracy import accuracy
from babelscope.analyses.behavior.barrier import barrier
from babelscope.analyses.behavior.curves import curves, is_dial
from babelscope.analyses.behavior.foreign_pull import foreign_pull
from babelscope.analyses.behavior.matrix import has_pairs, language_matrix, matrices
from babelscope.analyses.behavior.mitigations import mitigations
from babelscope.analyses.behavior.rankc import rank_consistency
from babelscope.analyses.behavior.settings import ALL_LANGUAGES, BASE, has_settings, is_setting, settings_of
from babelscope.analyses.behavior.transfer import Chance, Mode, transfer
from babelscope.analyses.behavior.translation import has_translations, translation
from babelscope.analyses.behavior.trend import trend
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.schema.glance import Glance
from babelscope.workflows.analysis import open_store
from babelscope.workflows.glances import glance
from babelscope.workflows.outputs import reported
from babelscope.workflows.signals import Note

if TYPE_CHECKING:
    import altair

# What a reader sees first of `transfer`.
SHOWN = ("variant", "group", "language_a", "language_b", "n_a", "accuracy_b", "xltr", "xltr_low", "xltr_high", "null",
         "excess", "excess_low", "excess_high", "q", "verdict")  # fmt: skip

# What a reader sees first of `barrier`.
OF_BARRIER = ("group", "setting", "language", "mitigation", "n", "accuracy", "low", "high", "mix_rate", "gap_en",
              "gap_en_low", "gap_en_high", "q", "verdict", "gap_mono", "gap_mono_low", "gap_mono_high", "q_mono",
              "verdict_mono")  # fmt: skip


SHOWN_TRANSLATION = ("measure", "language", "n", "n_empty", "copies", "score", "low", "high", "null", "q", "verdict",
                     "copy", "above_copy", "q_copy", "verdict_copy")  # fmt: skip


def evaluate(
    store: str | Path | ActivationStore,
    *,
    source: str | None = None,
    languages: Sequence[str] | None = None,
    by: str | None = "task",
    scoring: str = "labels",
    chance: Chance = "uniform",
    mode: Mode = "both",
    comet: str | None = None,
    seed: int = 0,
    note: Note = lambda _: None,
) -> "Evaluation":
    """Accuracy per language, XLTR from one language to the others, and RankC, from the answers in a store.

    Where the store has code-switched prompts, also the matrix of context and question languages, for each depth if the
    items have one; where `by` is a number with at least three values, curves and trends along it.

    Parameters
    ----------
    source : str, optional
        The language that is transferred from. Default: en where the store has it, else its first language.
    languages, by, scoring, chance, mode, seed
        As in `analyses.behavior.transfer.transfer`; `scoring` any of `analyses.behavior.scorings.SCORINGS`.
    comet : str, optional
        As in `analyses.behavior.translation.translation`, which a store of translation prompts is evaluated by instead.

    Returns
    -------
    Evaluation
        Where the languages of the store are settings of mixed-language multiple choice (`gt_de`, `mixup`), also
        `barrier`, `foreign-pull` and `mitigations`, with `source` as the base language. The rows of `transfer` then
        are XLTR from the base to each setting, and `rankc` compares the languages in which everything is in one.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    done, planned = opened.progress
    if done < planned:
        note(f"{opened.path} is unfinished: {done} of {planned} shards; only items found in both languages count")
    if has_translations(opened):
        return Evaluation(opened, translation(opened, comet=comet, seed=seed))
    if comet is not None:
        raise BabelScopeError(f"{opened.path} holds no translations for COMET", "leave out --comet")
    origin = source or ("en" if "en" in opened.languages else opened.languages[0])
    found = [accuracy(opened, scoring)]
    mixed = has_settings(opened)
    if len(opened.languages) > 1:
        found.append(
            transfer(opened, origin, languages=languages, by=by, scoring=scoring, chance=chance, mode=mode, seed=seed)
        )
        compared = _whole(opened, origin) if mixed else list(opened.languages)
        compared = compared if languages is None else list(dict.fromkeys([origin, *languages]))
        if len(compared) > 1 and scoring != "written":
            found.append(rank_consistency(opened, languages=compared, by=by, scoring=scoring, seed=seed))
    if mixed:
        found += _mixed(opened, origin, {"by": by, "scoring": scoring, "seed": seed}, mode, note)
    if has_pairs(opened.languages):
        depth = "depth" if "depth" in opened.covariates and opened.covariates["depth"].nunique() > 1 else None
        found.append(language_matrix(opened, by=depth, scoring=scoring, seed=seed))
    if by is not None and is_dial(opened, by):
        found.append(curves(opened, by, origin, languages=languages, scoring=scoring, chance=chance, seed=seed))
        found.append(trend(opened, by, origin, languages=languages, scoring=scoring, seed=seed))
    return Evaluation(opened, tuple(found))


def _mixed(store: ActivationStore, origin: str, how: Mapping[str, Any], mode: Mode, note: Note) -> list[Result]:
    """The tables of a store whose languages are settings of mixed-language multiple choice."""
    note(
        f"languages of {store.path} are settings of mixed-language questions: transfer is from {origin} to each "
        "setting, not between languages, and rankc is over settings in one language"
    )
    base = "en" if is_setting(origin) else origin  # a store may lack its base, whose gaps are then undefined
    return [barrier(store, base, mode=mode, **how), foreign_pull(store, base, **how), mitigations(store, base, **how)]


def _whole(store: ActivationStore, base: str) -> list[str]:
    """Codes of the settings all of whose cells are in one language."""
    return [
        s.code for s in settings_of(store.languages, base).values() if s.kind in (BASE, "full") and not s.mitigation
    ]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The tables of one `evaluate`.

    `accuracy`, and `transfer` and `rankc` where the store has several languages; `matrix` where it has code-switched
    prompts; `curves` and `trend` along a dial; `barrier`, `foreign-pull` and `mitigations` of mixed-language multiple
    choice; `translation` and `translation_items` of translation prompts.
    """

    store: ActivationStore
    results: tuple[Result, ...]

    def __repr__(self) -> str:
        return self._glance().text()

    def _repr_html_(self) -> str:
        return self._glance().html()

    def _glance(self) -> Glance:
        first = self.results[0].table
        return glance("Evaluation", self.store, self.results, {}, [self.headline(), self.barrier(), first])

    def headline(self) -> pd.DataFrame:
        """XLTR by the corrected definition; empty for a store of one language."""
        tables = [r.table for r in self.results if r.name == "transfer"]
        table = tables[0] if tables else pd.DataFrame(columns=["mode", *SHOWN])
        corrected = table["mode"] == "corrected"
        return table[corrected if corrected.any() else ~corrected][list(SHOWN)].reset_index(drop=True)

    def barrier(self) -> pd.DataFrame:
        """The barrier by setting, means over languages; empty where the store has no mixed-language settings."""
        tables = [r.table for r in self.results if r.name == "barrier"]
        table = tables[0] if tables else pd.DataFrame(columns=["mode", *OF_BARRIER])
        means = (table["mode"] == "corrected") & ((table["language"] == ALL_LANGUAGES) | (table["setting"] == BASE))
        return table[means if means.any() else table.index >= 0][list(OF_BARRIER)].reset_index(drop=True)

    def summary(self) -> str:
        """Accuracy, the headline and the barrier as text, then trends and matrices."""
        shown = self.shown()
        matrix = shown.pop("matrix", None)
        return "\n\n".join([reports.texts(shown), *([] if matrix is None else [matrices(matrix)])])

    def shown(self) -> dict[str, pd.DataFrame]:
        """The tables that `summary` prints, with every digit; empty ones are left out."""
        first = self.results[0]
        table = first.table[list(SHOWN_TRANSLATION)] if first.name == "translation" else first.table
        others = {r.name: r.table for r in self.results if r.name in ("trend", "matrix")}
        tables = {first.name: table, "transfer": self.headline(), "barrier": self.barrier(), **others}
        return {name: table for name, table in tables.items() if len(table)}

    def plot(self) -> "altair.TopLevelMixin":
        """Accuracy and XLTR against the dial that `by` named, with intervals.

        Raises
        ------
        BabelScopeError
            If it was evaluated along none.
        """
        from babelscope.reports.curves import dial_curves

        tables = [r.table for r in self.results if r.name == "curves"]
        if not tables:
            raise BabelScopeError(
                "there is no curve to draw", "evaluate along a number with three values or more, as by='depth'"
            )
        return dial_curves(tables[0])

    def save(self, folder: str | Path) -> list[Path]:
        """Write every table as Parquet, CSV and JSON provenance."""
        with reported(Path(folder)):
            return [path for result in self.results for path in result.save(Path(folder))]
