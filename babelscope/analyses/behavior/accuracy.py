"""The share of items that a model answers correctly, per task and language."""

from importlib.metadata import version

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope.activations_store import ActivationStore
from babelscope.errors import BabelScopeError
from babelscope.schema import Result


def accuracy(store: ActivationStore) -> Result:
    """Accuracy per task and language, with Wilson 95 % intervals, beside chance.

    Returns
    -------
    Result
        Columns task, language, n, accuracy, low, high, chance (mean of 1 / number of options). Items without
        options or without gold do not count; a task without any is absent. Items without the covariate `task` are
        named by their `dataset`, or "all".

    Raises
    ------
    BabelScopeError
        If no item of the store has a gold option.
    """
    answers = store.answers.dropna(subset=["correct"])
    if answers.empty:
        raise BabelScopeError(f"{store.path}: no item has options and a gold answer", "capture with --answers")
    score_columns = [c for c in answers if str(c).startswith("score_")]
    answers = answers.assign(task=_tasks(store).reindex(answers["item"]).to_numpy())
    rows = []
    for (name, language), part in answers.groupby(["task", "language"], sort=False):
        n, right = len(part), int(part["correct"].sum())
        low, high = proportion_confint(right, n, method="wilson")
        chance = (1 / part[score_columns].notna().sum(axis=1)).mean()
        rows.append((name, language, n, right / n, low, high, chance))
    table = pd.DataFrame(rows, columns=["task", "language", "n", "accuracy", "low", "high", "chance"])
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "languages": store.languages,
        "interval": "Wilson 95 %", "unit": "item", "task": "covariate task, else dataset, else all",
    }  # fmt: skip
    return Result("accuracy", table, about)


def _tasks(store: ActivationStore) -> "pd.Series[str]":
    """Task by item. Grouping would drop items without one, and their answers with them."""
    names = store.covariates.reindex(columns=["task", "dataset"]).astype(object)
    return names["task"].fillna(names["dataset"]).fillna("all").astype(str)
