"""What `probe` asks: the target with its folds, shuffles and control tasks, the same for every layer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.statistics import stream
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.probes.folds import comes_back, item_folds, item_groups, shuffled_labels, type_labels
from babelscope.probes.grid import Question
from babelscope.probes.targets import Target, target_of
from babelscope.probes.variants import VARIANTS

# Labelings of the control task; an average over more changes little.
CONTROLS = 20

# Types of items for the control task where none is named, the first that varies.
TYPES = ("rule", "subject", "template", "task")


def labeled(study: Study, target: str, folds: int) -> tuple[Target, tuple[str, ...]]:
    """The target with a label for every row, and the items that have one in all languages."""
    items = tuple(sorted(study.items))
    asked = target_of(study.store, target, study.languages, items, fewest=folds)
    known: NDArray[np.bool_] = np.all(asked.codes >= 0, axis=0)
    if known.sum() < folds:
        raise BabelScopeError(
            f"{int(known.sum())} items have a label {asked.name} in all languages, fewer than {folds} folds",
            "capture more items, or probe for another column",
        )
    if not known.all():
        study.note(f"{int((~known).sum())} of {len(items)} items are left out, without a label {asked.name}")
    kept = tuple(item for item, is_known in zip(items, known.tolist(), strict=True) if is_known)
    return Target(asked.name, asked.scope, asked.classes, asked.codes[:, known], asked.note), kept


def question_of(
    study: Study, asked: Target, items: tuple[str, ...], *, group: str | None, control: str | None, folds: int,
    permutations: int,
) -> tuple[Question, str | None]:  # fmt: skip
    """The question about a target, and the covariate whose values are the types of its control task."""
    ties = [_column(study, group, items)] if group else []
    if study.store.has_texts:
        by_key = {(p.language, p.item): p.text for p in study.store.prompts.prompts}
        ties += [[by_key[language, item] for item in items] for language in study.languages]
    groups = item_groups(len(items), ties)
    # Only an item has one label that could be spread evenly; that of its first language stands for the others.
    tested = item_folds(groups, asked.codes[0], folds, study.seed)
    rng = stream(study.seed, "probe", asked.name)
    shuffled = shuffled_labels(asked.codes, groups, permutations, rng, of_items=asked.scope != "language")
    nothing = np.empty((0, *asked.codes.shape), dtype=np.int64)
    named = _control(study, control, asked)
    controls = one_each = nothing
    types = [None] * len(items) if named is None else _column(study, named, items)
    if named is not None:
        controls = type_labels(types, asked.codes, CONTROLS, rng)
    if asked.scope != "language":
        one_each = type_labels(range(len(items)), asked.codes, CONTROLS, rng)
    question = Question(asked, study.languages, tested, groups, shuffled, controls, comes_back(types, tested), one_each)
    if asked.scope != "language" and not question.usable.any():
        raise BabelScopeError(
            f"in no language has every class of {asked.name} {folds} items",
            "capture more items, or ask for fewer folds",
        )
    return question, named


def _control(study: Study, control: str | None, asked: Target) -> str | None:
    """The covariate whose values are the types of the control task: the one asked for, else the first that varies."""
    if control is not None:
        return None if control == "none" else control.replace("-", "_")
    covariates = study.store.covariates
    target = asked.name.replace("-", "_")
    enough = 2 * len(asked.classes)  # few types are told apart by anything
    return next((c for c in TYPES if c in covariates and c != target and covariates[c].nunique() >= enough), None)


def _column(study: Study, name: str, items: tuple[str, ...]) -> list[object]:
    covariates = study.store.covariates
    if name.replace("-", "_") not in covariates:
        raise unknown_name("covariate", name, map(str, covariates.columns))
    values = covariates[name.replace("-", "_")].loc[list(items)]
    return [None if pd.isna(v) else v for v in values]


def chosen_variants(variants: Sequence[str] | None, asked: Target) -> tuple[str, ...]:
    """The variants asked for, else those that fit a target."""
    for variant in variants or ():
        if variant not in VARIANTS:
            raise unknown_name("variant", variant, VARIANTS)
    default = ("raw",) if asked.scope == "language" else ("raw", "centered")
    return tuple(dict.fromkeys(variants or default))


def language_question(question: Question) -> Question:
    """Which language a row is in, of the same items on the same folds."""
    n = len(question.languages)
    codes = np.repeat(np.arange(n)[:, None], len(question.folds), axis=1)
    nothing = np.empty((0, *codes.shape), dtype=np.int64)
    target = Target("language", "language", question.languages, codes)
    halves = ("raw", "erased")
    none_back = np.zeros(len(question.folds), dtype=bool)
    return Question(
        target, question.languages, question.folds, question.groups, nothing, nothing, none_back, nothing, halves
    )
