"""The verb `classify`: what a classifier answers, language by language."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.workflows.model_folders import model_path
from babelscope.workflows.prompts import AnyMapping, prompts_of
from babelscope.workflows.signals import Note, Progress


def classify(
    model: str,
    prompts: str | Path | PromptSet | Sequence[str | Path | PromptSet],
    *,
    languages: Sequence[str] | None = None,
    limit: int | None = None,
    mapping: AnyMapping = None,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> pd.DataFrame:
    """The class that an encoder with a classifier gives each prompt, cross-lingual queries included.

    Parameters
    ----------
    model : str
        Folder that `train bitfit` or `train full` wrote, or a hub id.
    prompts, languages, limit, mapping
        As in `capture`.

    Returns
    -------
    DataFrame
        item, language, gold, n_options, choice, correct.

    Raises
    ------
    BabelScopeError
        If there is no classifier, or a prompt has no gold option.
    """
    from babelscope.training.classifying import classified
    from babelscope.training.methods import architecture_of

    source = model_path(model)
    if not architecture_of(source).endswith("ForSequenceClassification"):
        raise BabelScopeError(
            f"{model} has no classifier",
            "train one with `train bitfit` or `train full`; decoders: capture, then evaluate",
        )
    found, notes = prompts_of(prompts, languages=languages, limit=limit, mapping=mapping)
    for text in notes:
        note(text)
    return classified(source, found, progress)


def by_language(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of each language with its Wilson 95 % interval, beside chance."""
    rows = []
    for language, part in answers.groupby("language", sort=False):
        low, high = proportion_confint(int(part["correct"].sum()), len(part), method="wilson")
        rows.append((language, len(part), part["correct"].mean(), low, high, (1 / part["n_options"]).mean()))
    return pd.DataFrame(rows, columns=["language", "n", "accuracy", "low", "high", "chance"])
