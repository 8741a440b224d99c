"""What mixing languages costs: the barrier between what a model knows in one language and a question in several.

Chua et al., arXiv:2406.16135, section 3.
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Literal

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.mixed_answers import (
    Cell,
    MixedAnswers,
    MixedGroup,
    compared,
    judged,
    mean_between,
    mixed_answers,
    together,
)
from babelscope.analyses.behavior.settings import ALL_LANGUAGES, BASE
from babelscope.analyses.behavior.transfer import ratios
from babelscope.analyses.statistics import Floats, interval, mean_of_defined, stream
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

Mode = Literal["corrected", "paper", "both"]

# The authors' code: the last token of each encoded letter, micro average, plain difference to English.
PAPER_SCORING = "labels-last"

COLUMNS = (
    "mode", "scoring", "group", "setting", "language", "mitigation", "base", "mono", "n", "n_undefined", "accuracy",
    "low", "high", "chance", "mix_rate", "n_changed", "accuracy_changed",
    "accuracy_changed_low", "accuracy_changed_high", "gap_changed", "gap_changed_low",
    "gap_changed_high", "n_en", "gap_en", "gap_en_low", "gap_en_high", "test", "p", "q", "verdict", "n_mono",
    "gap_mono", "gap_mono_low", "gap_mono_high", "test_mono", "p_mono", "q_mono", "verdict_mono", "xltr", "xltr_low",
    "xltr_high", "xltr_null", "excess", "excess_low", "excess_high",
)  # fmt: skip


def barrier(
    store: ActivationStore,
    base: str = "en",
    *,
    by: str | None = "task",
    scoring: str = "labels",
    mode: Mode = "both",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Accuracy in every setting of mixed-language multiple choice, and how far it is below the base and below `full`.

    `gap_en = accuracy(base) - accuracy(setting)` holds what a model does not know in the other language, and what
    mixing costs. `gap_mono = mean over l of accuracy(full_l) - accuracy(setting)`, l the other languages of the
    setting, holds the second alone: all cells of `full_l` are in l. Both are over the items that have all their terms.

    Parameters
    ----------
    base : str
        Code of the base language.
    by : str or None
        Item covariate that forms the groups, as in `transfer`.
    scoring : str
        A key of `scorings.SCORINGS`, for the corrected rows.
    mode : {"corrected", "paper", "both"}
        "paper" is the micro average over all items by the last token of the encoded letter, and the plain drop from
        the base, without an interval; with "both" it is left out where the store does not keep spellings.

    Returns
    -------
    Result
        One row per group, setting, language and mitigation; language `*` is the mean over languages, item by item.
        `mix_rate` is the share of cells in another language whose text differs from the base's, `n_changed` the number
        of items of which some cell differs (in `*`: in every language), accuracy_changed and gap_changed are of these.
        `base` and `mono` name what is subtracted from: the runs with the same mitigation, where the store has them.
        p is McNemar's exact one, or of flipped signs for means over languages and for gap_mono; q is
        Benjamini-Hochberg over the rows of a group, means over languages apart. xltr, xltr_null and excess are those
        of `transfer` from base to setting, with A_r = 1 / options. Accuracy has Wilson's interval, in means over
        languages one by bootstrap, as all differences. NaN where a store lacks what a number needs.

    Raises
    ------
    BabelScopeError
        If the store has no such settings, and as `scorings.chosen` does.
    """
    if mode not in ("corrected", "paper", "both"):
        raise unknown_name("mode", mode, ("corrected", "paper", "both"))
    notes = []
    tables = []
    if mode != "paper":
        answers = mixed_answers(store, base, by=by, scoring=scoring, n_boot=n_boot, seed=seed)
        tables.append(_corrected(answers, scoring, level, seed))
        notes += _lacking(answers)
    if mode != "corrected":
        try:
            answers = mixed_answers(store, base, by=None, scoring=PAPER_SCORING, n_boot=1, seed=seed)
            tables.append(pd.DataFrame(_published(answers)))
        except BabelScopeError as error:
            if mode == "paper":
                raise
            notes.append(f"no rows as published: {error.problem}")
    table = pd.concat([t.reindex(columns=list(COLUMNS)) for t in tables], ignore_index=True)
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "base": base, "by": by, "scoring": scoring,
        "seed": seed, "n_boot": n_boot, "unit": "item", "notes": notes,
        "gap_en": "accuracy(base) - accuracy(setting), over the items that have both",
        "gap_mono": "mean over l of accuracy(full_l) - accuracy(setting), over the items that have all",
        "interval": f"{100 * level:g} %: Wilson for one accuracy, else bootstrap over items",
        "p": "McNemar exact, two-sided; flipped signs where `test` says so",
        "q": "Benjamini-Hochberg over the rows of a group, means over languages apart",
        "paper": f"arXiv:2406.16135: micro average by {PAPER_SCORING}, plain drop from the base, over all items",
        "xltr": "as in transfer, from the base, A_r = 1 / options; null: right in the setting independent of the base",
    }  # fmt: skip
    return Result("barrier", table, about)


def _corrected(answers: MixedAnswers, scoring: str, level: float, seed: int) -> pd.DataFrame:
    rows = []
    for group in answers.groups:
        for cell in answers.rows():
            rng = stream(seed, "barrier", group.name, *cell.members)
            about = {"mode": "corrected", "scoring": scoring, "group": group.name, **cell.about}
            rows.append({**about, **_row(answers, group, cell, level, rng)})
    table = pd.DataFrame(rows)
    table = judged(table, ["group"], "gap_en", "n_en")
    return judged(table, ["group"], "gap_mono", "n_mono", "_mono")


def _row(
    answers: MixedAnswers, group: MixedGroup, cell: Cell, level: float, rng: np.random.Generator
) -> dict[str, object]:
    own = together(group.correct, cell.members)
    asked = np.all([group.asked[code] for code in cell.members], axis=0)
    base, whole = answers.base_of(cell.mitigation), answers.whole_of(cell)
    nothing = np.full(len(own), np.nan)
    compares = cell.kind != BASE
    english = group.correct[base] if compares and base else nothing
    mono = together(group.correct, whole) if whole and cell.kind not in (BASE, "full") else nothing
    row: dict[str, object] = {
        "base": base or "" if compares else "", "mono": " ".join(whole) if not np.isnan(mono).all() else "",
        "n": int((~np.isnan(own)).sum()), "n_undefined": int((asked & np.isnan(own)).sum()), "chance": group.chance,
        **_accuracy(own, group.weights, level, binary=len(cell.members) == 1),
        **_mixed(group, cell, own, english, level),
    }  # fmt: skip
    row |= compared(english, own, group.weights, level, rng, name="gap_en", suffix="_en")
    row |= {"test": row.pop("test_en"), "p": row.pop("p_en")}
    row |= compared(mono, own, group.weights, level, rng, name="gap_mono", suffix="_mono", signs=True)
    return row | _transferred(english, own, group.weights, group.chance, level)


def _accuracy(own: Floats, weights: Floats, level: float, *, binary: bool) -> dict[str, float]:
    found = mean_between(own, weights, level, "accuracy")
    n, right = int((~np.isnan(own)).sum()), float(np.nansum(own))
    low, high = found["accuracy_low"], found["accuracy_high"]
    if binary and n:
        low, high = proportion_confint(int(right), n, alpha=1 - level, method="wilson")
    return {"accuracy": found["accuracy"], "low": low, "high": high}


def _mixed(group: MixedGroup, cell: Cell, own: Floats, english: Floats, level: float) -> dict[str, object]:
    """How much of what should be in another language really differs, and the barrier of the items in which it does."""
    counts = ~np.isnan(own)
    changed = np.stack([group.cells[code].changed for code in cell.members])[:, counts]
    any_cell = (changed == 1).any(axis=2)
    of_these = np.full(len(own), np.nan)
    of_these[counts] = np.where(any_cell.all(axis=0), own[counts], np.nan)
    unknown = np.isnan(changed).all()
    return {
        "mix_rate": float(mean_of_defined(changed.ravel())),
        "n_changed": np.nan if unknown else int(any_cell.all(axis=0).sum()),
        **mean_between(of_these, group.weights, level, "accuracy_changed"),
        **mean_between(english - of_these, group.weights, level, "gap_changed"),
    }


def _transferred(english: Floats, own: Floats, weights: Floats, chance: float, level: float) -> dict[str, float]:
    """XLTR from the base; `own` may be a mean over languages."""
    known = ~np.isnan(english - own)
    a, b, weights = english[known], own[known], weights[:, known]
    xltr, null = ratios(a, b, np.ones((1, len(a))), chance, clip=False)
    boot, boot_null = ratios(a, b, weights, chance, clip=False)
    low, high = interval(boot[None], level)
    excess_low, excess_high = interval((boot - boot_null)[None], level)
    return {
        "xltr": xltr[0], "xltr_low": low[0], "xltr_high": high[0], "xltr_null": null[0], "excess": xltr[0] - null[0],
        "excess_low": excess_low[0], "excess_high": excess_high[0],
    }  # fmt: skip


def _published(answers: MixedAnswers) -> Iterator[dict[str, object]]:
    """Each accuracy over the items that its own setting has, as published: no pairs, no interval, no test."""
    (group,) = answers.groups
    for cell in answers.rows():
        setting = answers.settings[cell.members[0]]
        if len(cell.members) > 1 or cell.language != setting.language:
            continue  # a mean over languages
        own, base = group.correct[setting.code], answers.base_of(cell.mitigation)
        accuracy = float(mean_of_defined(own))
        english = group.correct[base] if base and cell.kind != BASE else np.full(1, np.nan)
        yield {
            "mode": "paper", "scoring": PAPER_SCORING, "group": group.name, **cell.about, "mono": "",
            "base": base or "" if cell.kind != BASE else "", "n": int((~np.isnan(own)).sum()),
            "n_undefined": int((group.asked[setting.code] & np.isnan(own)).sum()), "accuracy": accuracy,
            "chance": group.chance, "gap_en": float(mean_of_defined(english)) - accuracy,
            "test": "", "test_mono": "", "verdict": "", "verdict_mono": "",
        }  # fmt: skip


def _lacking(answers: MixedAnswers) -> list[str]:
    """What some gaps could not be computed from."""
    notes = []
    if answers.base not in answers.settings:
        notes.append(f"no gap_en and no mix_rate: the store has no {answers.base}")
    alone = sorted({
        cell.kind for cell in answers.rows()
        if cell.kind not in (BASE, "full") and cell.language == ALL_LANGUAGES and not answers.whole_of(cell)
    })  # fmt: skip
    if alone:
        notes.append(f"no gap_mono of {', '.join(alone)}: the store lacks full in one of their languages")
    return notes
