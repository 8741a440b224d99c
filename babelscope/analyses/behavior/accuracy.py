"""The share of items that a model answers correctly, per task and language."""

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
        options or without gold do not count; a task without any is absent.

    Raises
    ------
    BabelScopeError
        If no item of the store has a gold option.
    """
    answers = store.answers.dropna(subset=["correct"])
    if answers.empty:
        raise BabelScopeError(f"{store.path}: no item has options and a gold answer", "capture with --answers")
    score_columns = [c for c in answers if str(c).startswith("score_")]
    covariates = store.covariates
    task = covariates["task"] if "task" in covariates else pd.Series("all", index=covariates.index)
    answers = answers.assign(task=task.reindex(answers["item"]).to_numpy())
    rows = []
    for (name, language), part in answers.groupby(["task", "language"], sort=False):
        n, right = len(part), int(part["correct"].sum())
        low, high = proportion_confint(right, n, method="wilson")
        chance = (1 / part[score_columns].notna().sum(axis=1)).mean()
        rows.append((name, language, n, right / n, low, high, chance))
    table = pd.DataFrame(rows, columns=["task", "language", "n", "accuracy", "low", "high", "chance"])
    return Result("accuracy", table, {"store": store.fingerprint, "interval": "Wilson 95 %", "unit": "item"})
