"""Whether a way to ask helps against the barrier: the same settings with it and without it.

Chua et al., arXiv:2406.16135, section 4: other option labels, a sentence about languages, demonstrations, translation.
"""

from importlib.metadata import version

import numpy as np
import pandas as pd

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.mixed_answers import (
    Cell,
    MixedAnswers,
    MixedGroup,
    compared,
    judged,
    mixed_answers,
    together,
)
from babelscope.analyses.behavior.settings import BASE
from babelscope.analyses.statistics import mean_of_defined, stream
from babelscope.schema import Result

COLUMNS = (
    "scoring", "group", "setting", "language", "mitigation", "n", "accuracy", "without", "change", "change_low",
    "change_high", "test", "p", "q", "verdict", "n_gap", "gap_en", "gap_en_without", "closed", "closed_low",
    "closed_high", "test_gap", "p_gap", "q_gap", "verdict_gap",
)  # fmt: skip


def mitigations(
    store: ActivationStore,
    base: str = "en",
    *,
    by: str | None = "task",
    scoring: str = "labels",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Accuracy with a mitigation minus that without it, and how much of the gap to the base it closes.

    A mitigation that lifts the base as much as a setting closes no gap: `closed` is the gap without it,
    accuracy(base) - accuracy(setting), minus the gap between the runs of both with it.

    Parameters
    ----------
    base, by, scoring
        As in `barrier`.

    Returns
    -------
    Result
        One row per group, setting, language and mitigation whose setting was captured without it as well; language
        `*` is the mean over languages, item by item; empty where nothing was. `accuracy`, `without`, `gap_en` and
        `gap_en_without` are over the items that count for their difference. closed is NaN where the base was not
        captured with the mitigation. p, q and intervals as in `barrier`; for closed p flips signs.

    Raises
    ------
    BabelScopeError
        As `barrier` does.
    """
    answers = mixed_answers(store, base, by=by, scoring=scoring, n_boot=n_boot, seed=seed)
    rows = [
        {"scoring": scoring, "group": group.name, **cell.about, **found}
        for group in answers.groups
        for cell in answers.rows()
        if (found := _row(answers, group, cell, level, seed)) is not None
    ]
    names = {s.mitigation for s in answers.settings.values() if s.mitigation}
    lacking = sorted(name for name in names if f"{base}+{name}" not in answers.settings)
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("q", "verdict", "q_gap", "verdict_gap")])
    table = judged(table, ["group"], "change", "n")
    table = judged(table, ["group"], "closed", "n_gap", "_gap")
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "base": base, "by": by, "scoring": scoring,
        "seed": seed, "n_boot": n_boot, "unit": "item", "interval": f"bootstrap over items, {100 * level:g} %",
        "change": "accuracy(setting+mitigation) - accuracy(setting)",
        "closed": "(accuracy(base) - accuracy(setting)) - the same of both with the mitigation",
        "q": "Benjamini-Hochberg over the rows of a group, means over languages apart",
        "notes": [f"closed is undefined for {', '.join(lacking)}: {base} was not captured so"] if lacking else [],
    }  # fmt: skip
    return Result("mitigations", table[list(COLUMNS)], about)


def _row(answers: MixedAnswers, group: MixedGroup, cell: Cell, level: float, seed: int) -> dict[str, object] | None:
    plain = tuple(code.partition("+")[0] for code in cell.members)
    if not cell.mitigation or any(code not in answers.settings for code in plain):
        return None
    own, without = together(group.correct, cell.members), together(group.correct, plain)
    rng = stream(seed, "mitigations", group.name, *cell.members)
    row = compared(own, without, group.weights, level, rng, name="change")
    both = ~np.isnan(own - without)
    row |= {"accuracy": float(mean_of_defined(own[both])), "without": float(mean_of_defined(without[both]))}
    nothing = np.full(len(own), np.nan)
    named = f"{answers.base}+{cell.mitigation}"
    has_gap = cell.kind != BASE and named in answers.settings and answers.base in answers.settings
    gap = group.correct[named] - own if has_gap else nothing
    gap_without = group.correct[answers.base] - without if has_gap else nothing
    all_four = ~np.isnan(gap - gap_without)
    row |= compared(gap_without, gap, group.weights, level, rng, name="closed", suffix="_gap", signs=True)
    return row | {
        "gap_en": float(mean_of_defined(gap[all_four])),
        "gap_en_without": float(mean_of_defined(gap_without[all_four])),
    }  # fmt: skip
