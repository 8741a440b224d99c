"""The share of items that a model answers correctly, per task and language."""

from importlib.metadata import version

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from babelscope.activations_store import ActivationStore
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

SCORINGS = {
    "labels": "the option whose label is the likeliest next token",
    "texts": "the option whose text is the likeliest continuation of the prompt",
    "texts-per-token": "the same by the mean over the tokens of the text, for options of unequal length",
}


def accuracy(store: ActivationStore, scoring: str = "labels") -> Result:
    """Accuracy per task and language, with Wilson 95 % intervals, beside chance.

    Parameters
    ----------
    scoring : str
        A key of `SCORINGS`: which option counts as the model's answer.

    Returns
    -------
    Result
        Columns task, language, n, accuracy, low, high, chance (mean of 1 / number of options). Items without
        options or without gold do not count; a task without any is absent. Items without the covariate `task` are
        named by their `dataset`, or "all".

    Raises
    ------
    BabelScopeError
        If no item of the store has a gold option, labels of none could be told apart, or texts were not scored.
    """
    answers = scored(store, scoring)
    answers = answers.assign(task=groups_of(store).reindex(answers["item"]).to_numpy())
    rows = []
    for (name, language), part in answers.groupby(["task", "language"], sort=False):
        n, right = len(part), int(part["correct"].sum())
        low, high = proportion_confint(right, n, method="wilson")
        chance = (1 / part["n_options"]).mean()
        rows.append((name, language, n, right / n, low, high, chance))
    table = pd.DataFrame(rows, columns=["task", "language", "n", "accuracy", "low", "high", "chance"])
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "languages": store.languages,
        "interval": "Wilson 95 %", "unit": "item", "scoring": scoring,
        "task": "covariate task, else dataset, else all",
    }  # fmt: skip
    return Result("accuracy", table, about)


def scored(store: ActivationStore, scoring: str = "labels") -> pd.DataFrame:
    """Answers that count, those of items with options and gold: `correct` by the scoring, and `n_options`.

    Raises
    ------
    BabelScopeError
        As `accuracy` does.
    """
    if scoring not in SCORINGS:
        raise unknown_name("scoring", scoring, SCORINGS)
    answers = store.answers
    if scoring != "labels":
        answers = answers.assign(correct=_correct_by_text(answers, per_token=scoring.endswith("per-token")))
    counted = answers.dropna(subset=["correct"])
    if counted.empty:
        raise _nothing_to_count(store, answers, scoring)
    prefix = "score_" if scoring == "labels" else "text_score_"
    scores = counted[[c for c in counted if str(c).startswith(prefix)]]
    return counted.assign(n_options=scores.notna().sum(axis=1))


def groups_of(store: ActivationStore, by: str | None = "task") -> "pd.Series[str]":
    """Group of each item: a covariate, NaN where an item has none.

    "task" is the covariate task, else dataset, else "all", so that no item is lost; None puts all in one group.

    Raises
    ------
    BabelScopeError
        If no item has the covariate.
    """
    if by is None or by == "task":
        names = store.covariates.reindex(columns=["task", "dataset"] if by else []).astype(object)
        found = names["task"].fillna(names["dataset"]) if by else pd.Series(np.nan, names.index, dtype=object)
        return found.fillna("all").astype(str)
    if by not in store.covariates:
        raise unknown_name("covariate", by, map(str, store.covariates.columns))
    values = store.covariates[by]
    return values.astype(str).where(values.notna())


def _nothing_to_count(store: ActivationStore, answers: pd.DataFrame, scoring: str) -> BabelScopeError:
    reasons = answers["undefined"][answers["undefined"] != ""]
    if scoring == "labels" and len(reasons):
        return BabelScopeError(
            f"{store.path}: no item was scored by its label; in {len(reasons)} of {len(answers)} prompts "
            f"{reasons.iloc[0]}",
            "count by option texts instead (scoring='texts'), of a capture with --answers texts",
        )
    return BabelScopeError(
        f"{store.path}: no item has options, their scores and a gold answer",
        f"capture with --answers {'labels' if scoring == 'labels' else 'texts'}",
    )


def _correct_by_text(answers: pd.DataFrame, *, per_token: bool) -> NDArray[np.float64]:
    """1, 0, or NaN without scores or gold."""
    scores = answers.filter(regex=r"^text_score_\d+$").to_numpy(float)
    if per_token:
        tokens = answers.filter(regex=r"^text_tokens_\d+$").to_numpy(float)
        scores = scores / np.where(tokens > 0, tokens, np.nan)
    known = answers["gold"].notna().to_numpy() & ~np.isnan(scores).all(axis=1)
    correct = np.full(len(answers), np.nan)
    if known.any():
        correct[known] = np.nanargmax(scores[known], axis=1) == answers["gold"][known].to_numpy(int)
    return correct
