"""Whether a model prefers or avoids options for being in another language.

Chua et al., arXiv:2406.16135: accuracy falls where the right option alone is translated; a wrong one alone is the
control that tells an aversion to other languages from not knowing.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.mixed_answers import (
    Cell,
    MixedAnswers,
    MixedGroup,
    compared,
    judged,
    mean_between,
    mixed_answers,
)
from babelscope.analyses.behavior.settings import BASE
from babelscope.analyses.statistics import Floats, mean_of_defined, stream
from babelscope.schema import Result

GOLD = {"foreign": "items whose right option is foreign", "base": "items whose right option is not", "all": "both"}

COLUMNS = (
    "scoring", "group", "setting", "language", "mitigation", "gold", "base", "n", "mix_rate", "chosen", "null_uniform",
    "pull_uniform", "pull_uniform_low", "pull_uniform_high", "n_paired", "null_base", "pull", "pull_low", "pull_high",
    "test", "p", "q", "verdict",
)  # fmt: skip


class _Choices(NamedTuple):
    """By item: whether what is chosen is foreign, the share of foreign options, and what the base run chose there."""

    chosen: Floats
    uniform: Floats
    base: Floats


def foreign_pull(
    store: ActivationStore,
    base: str = "en",
    *,
    by: str | None = "task",
    scoring: str = "labels",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """P(the chosen option is foreign) beside two nulls, by whether the right option is foreign.

    An option is foreign where its segment is in another language than the base. Items all or none of whose options are
    do not count: nothing could be preferred. `null_uniform` is the share of foreign options. `null_base` is how often
    the option at the same place was chosen in the base run of the same item, where nothing is foreign: a model that
    knows the answer, or likes a letter or a place, does so there as well. `pull` is what is above that.

    Where the right option is the only foreign one (`gt`), pull is -gap_en of the barrier, and cannot tell an aversion
    from not knowing; `onewrong` and `threewrong`, whose right option is in the base language, can.

    Parameters
    ----------
    base, by, scoring
        As in `barrier`.

    Returns
    -------
    Result
        One row per group, setting, language, mitigation and `GOLD`; language `*` is the mean over languages, item by
        item. n items have a choice, n_paired one in the base run as well. Intervals are by bootstrap over items; p is
        McNemar's exact one, or of flipped signs for means over languages; q is Benjamini-Hochberg over the settings of
        a group and gold, means over languages apart.

    Raises
    ------
    BabelScopeError
        As `barrier` does.
    """
    answers = mixed_answers(store, base, by=by, scoring=scoring, n_boot=n_boot, seed=seed)
    rows = []
    for group in answers.groups:
        for cell in answers.rows():
            if cell.kind != BASE:
                rows += _rows(answers, group, cell, scoring, level, seed)
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("q", "verdict")])
    table = judged(table, ["group", "gold"], "pull", "n_paired")
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "base": base, "by": by, "scoring": scoring,
        "seed": seed, "n_boot": n_boot, "unit": "item", "gold": GOLD, "interval": f"bootstrap, {100 * level:g} %",
        "null_uniform": "share of foreign options", "null_base": "the same places in the base run of the same item",
        "p": "McNemar exact, two-sided; flipped signs where `test` says so",
        "notes": [] if answers.base_of("") else [f"no pull: the store has no {base}"],
    }  # fmt: skip
    return Result("foreign-pull", table[list(COLUMNS)], about)


def _rows(
    answers: MixedAnswers, group: MixedGroup, cell: Cell, scoring: str, level: float, seed: int
) -> list[dict[str, object]]:
    base = answers.base_of(cell.mitigation)
    each = [_choices(group, code, base) for code in cell.members]
    found = _Choices(*(np.mean(values, axis=0) for values in zip(*each, strict=True)))
    golds = np.stack([_gold_is_foreign(group, code) for code in cell.members])
    rows = []
    for gold in GOLD:
        counts = np.ones(len(found.chosen), bool) if gold == "all" else (golds == (gold == "foreign")).all(axis=0)
        chosen, uniform, control = (np.where(counts, values, np.nan) for values in found)
        if np.isnan(chosen).all():
            continue
        rng = stream(seed, "foreign-pull", group.name, gold, *cell.members)
        rows.append({
            "scoring": scoring, "group": group.name, **cell.about, "gold": gold, "base": base or "",
            "n": int((~np.isnan(chosen)).sum()), "mix_rate": _mix_rate(group, cell, ~np.isnan(chosen)),
            "chosen": float(mean_of_defined(chosen)),
            "null_uniform": float(mean_of_defined(np.where(np.isnan(chosen), np.nan, uniform))),
            **mean_between(chosen - uniform, group.weights, level, "pull_uniform"),
            "null_base": float(mean_of_defined(np.where(np.isnan(chosen), np.nan, control))),
            **_unsuffixed(compared(chosen, control, group.weights, level, rng, name="pull", suffix="_paired")),
        })  # fmt: skip
    return rows


def _unsuffixed(row: Mapping[str, object]) -> dict[str, object]:
    return {name if name == "n_paired" else name.removesuffix("_paired"): value for name, value in row.items()}


def _choices(group: MixedGroup, code: str, base: str | None) -> _Choices:
    foreign = group.cells[code].foreign[:, 1:]
    uniform = mean_of_defined(foreign)
    uniform = np.where((uniform > 0) & (uniform < 1), uniform, np.nan)
    nothing = np.full(len(uniform), np.nan)
    found = [_at(foreign, choice) for choice in (group.choice[code], group.choice[base] if base else nothing)]
    chosen, control = (np.where(np.isnan(uniform), np.nan, values) for values in found)
    return _Choices(chosen, uniform, control)


def _at(foreign: Floats, choice: Floats) -> Floats:
    """Whether the option chosen of each item is foreign; NaN without a choice."""
    known = ~np.isnan(choice)
    found = np.full(len(choice), np.nan)
    found[known] = foreign[np.flatnonzero(known), choice[known].astype(int)]
    return found


def _gold_is_foreign(group: MixedGroup, code: str) -> Floats:
    return _at(group.cells[code].foreign[:, 1:], group.gold)


def _mix_rate(group: MixedGroup, cell: Cell, counts: NDArray[np.bool_]) -> float:
    """Share of the foreign options of these items whose text differs from the base's."""
    changed = np.stack([group.cells[code].changed[counts, 1:] for code in cell.members])
    return float(mean_of_defined(changed.ravel()))
