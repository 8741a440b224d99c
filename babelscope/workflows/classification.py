"""The verb `classify`: what a classifier answers, language by language."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope import reports
from babelscope.analyses.behavior.matrix import has_pairs, language_matrix, matrices
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import PromptSet, Result
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
    by: str | None = None,
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
    by : str, optional
        Covariate of the items that becomes a column, as depth.

    Returns
    -------
    DataFrame
        item, language, gold, n_options, choice, correct, and the covariate. `behavior.matrix.language_matrix` makes
        the matrix of context and question languages of it.

    Raises
    ------
    BabelScopeError
        If there is no classifier, a prompt has no gold option, or no item has the covariate.
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
    known = {name for p in found.prompts for name in p.covariates}
    if by is not None and by not in known:
        raise unknown_name("covariate", by, sorted(known))
    answers = classified(source, found, progress)
    if by is not None:
        answers[by] = [p.covariates.get(by) for p in found.prompts]
    return answers


def by_language(answers: pd.DataFrame, by: str | None = None) -> pd.DataFrame:
    """Accuracy of each language, and of each value of a covariate, with its Wilson 95 % interval, beside chance."""
    keys = ["language"] if by is None else [by, "language"]
    rows = []
    for place, part in answers.groupby(keys, sort=False):
        low, high = proportion_confint(int(part["correct"].sum()), len(part), method="wilson")
        rows.append((*place, len(part), part["correct"].mean(), low, high, (1 / part["n_options"]).mean()))
    table = pd.DataFrame(rows, columns=[*keys, "n", "accuracy", "low", "high", "chance"])
    return table if by is None else table.sort_values(by, kind="stable").reset_index(drop=True)


def matrix_of(answers: pd.DataFrame, by: str | None = None) -> Result | None:
    """The matrix of context and question languages of what `classify` returned; None where no prompt is in two."""
    return language_matrix(answers, by=by) if has_pairs(list(answers["language"].unique())) else None


def answers_text(answers: pd.DataFrame, matrix: Result | None, by: str | None = None) -> str:
    """The table of `by_language`, and matrices where there are any."""
    text = reports.text(by_language(answers, by))
    return text if matrix is None else f"{text}\n\n{matrices(matrix.table)}"
