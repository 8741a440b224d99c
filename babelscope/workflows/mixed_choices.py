"""Multiple-choice questions whose parts are in different languages: read, mixed, and how far they are mixed."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from babelscope import plugins
from babelscope.datasets.choice_cells import cells, changed
from babelscope.datasets.mitigations import mitigated
from babelscope.datasets.mixed_choice import mixed_choice
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.workflows.prompts import AnyMapping, generate, prompts_of

__all__ = ["mixed_questions", "mixing"]


def mixed_questions(
    source: str | Path | PromptSet,
    languages: Sequence[str],
    *,
    base: str = "en",
    settings: Sequence[str] | None = None,
    mitigations: Sequence[str] = (),
    demos: str | Path | PromptSet | None = None,
    shots: int = 5,
    seed: int = 0,
    mapping: AnyMapping = None,
    limit: int | None = None,
) -> tuple[PromptSet, list[str]]:
    """A parallel multiple-choice set in settings of mixed languages (`datasets.mixed_choice`), and notes.

    Parameters
    ----------
    languages : sequence of str
        All that are mixed; the base is always among them.
    settings : sequence of str, optional
        Default: all of `datasets.mixed_choice.SETTINGS`.
    mitigations : sequence of str
        Of `datasets.mitigations.NAMES`: variants of every setting and of the base.
    demos : str, Path or PromptSet, optional
        Other items for demonstrations: a file that `mapping` fits, too, or a generated set, of which the train split
        is taken.
    """
    codes = list(dict.fromkeys([base, *languages]))
    prompts, notes = prompts_of([source], languages=codes, limit=limit, mapping=mapping)
    mixed = mixed_choice(prompts, codes, base=base, settings=settings, seed=seed)
    if len(mixed.items) < len(prompts.items):
        notes.append(f"{len(prompts.items) - len(mixed.items)} of {len(prompts.items)} items are not in all of "
                     f"{', '.join(codes)}: left out")  # fmt: skip
    if demos is not None and not mitigations:
        raise BabelScopeError("--demos shows nothing without a mitigation", "add --mitigation english-shots")
    if not mitigations:
        return mixed, notes
    shown = None
    if demos is not None:
        read, said = _demonstrations(demos, codes, mapping)
        notes += said
        shown = mixed_choice(read, codes, base=base, settings=settings, seed=seed)
    return mitigated(mixed, mitigations, base=base, demonstrations=shown, shots=shots), notes


def _demonstrations(
    demos: str | Path | PromptSet, codes: Sequence[str], mapping: AnyMapping
) -> tuple[PromptSet, list[str]]:
    if isinstance(demos, str) and demos.replace("_", "-") in plugins.names("dataset"):
        return generate(demos, languages=codes, split="train"), []
    return prompts_of([demos], languages=codes, mapping=mapping)


def mixing(mixed: PromptSet, base: str = "en") -> pd.DataFrame:
    """How far prompts in settings of mixed languages are mixed.

    Returns
    -------
    DataFrame
        One row per code: setting, items, `foreign_cells` (questions and options in another language than the base),
        `effective_mix`, the share of these whose text differs from the base's, NaN where there are none, and
        `changed_items`, the items of which some cell differs.
    """
    plain = {p.item: p for p in mixed.of(base)}
    rows = []
    for code in mixed.languages:
        flags = [
            [
                differs
                for cell, differs in zip(cells(p), changed(p, plain[p.item]), strict=True)
                if cell.language != base
            ]
            for p in mixed.of(code)
        ]
        foreign = sum(map(len, flags))
        rows.append({
            "setting": code, "items": len(flags), "foreign_cells": foreign,
            "effective_mix": sum(map(sum, flags)) / foreign if foreign else float("nan"),
            "changed_items": sum(map(any, flags)),
        })  # fmt: skip
    return pd.DataFrame(rows)
