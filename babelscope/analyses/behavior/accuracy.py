"""The share of items that a model answers correctly, per task and language."""

from importlib.metadata import version

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.scorings import chosen, nothing_to_count
from babelscope.errors import unknown_name
from babelscope.schema import Result


def accuracy(store: ActivationStore, scoring: str = "labels") -> Result:
    """Accuracy per task and language, with Wilson 95 % intervals, beside chance.

    Parameters
    ----------
    scoring : str
        A key of `SCORINGS`: which option counts as the model's answer.

    Returns
    -------
    Result
        Columns task, language, n, accuracy, low, high, chance (mean of 1 / number of options), n_unread (items with
        options and gold whose answer is undefined by this scoring, as where no option can be read in what the model
        wrote; they are in no other column). Items without options or without gold do not count; a task without any is
        absent. Items without the covariate `task` are named by their `dataset`, or "all".

    Raises
    ------
    BabelScopeError
        If no item of the store has a gold option, labels of none could be told apart, or what the scoring reads was
        not kept.
    """
    answers = chosen(store, scoring)
    if answers["correct"].isna().all():
        raise nothing_to_count(store, answers, scoring)
    answers = answers.assign(task=groups_of(store).reindex(answers["item"]).to_numpy())
    rows = []
    for (name, language), part in answers.groupby(["task", "language"], sort=False):
        read = part.dropna(subset=["correct"])
        unread = int((part["asked"] & part["correct"].isna()).sum())
        if read.empty and not unread:
            continue
        n, right = len(read), int(read["correct"].sum())
        low, high = proportion_confint(right, n, method="wilson") if n else (np.nan, np.nan)
        chance = (1 / read["n_options"]).mean()
        rows.append((name, language, n, right / n if n else np.nan, low, high, chance, unread))
    columns = ["task", "language", "n", "accuracy", "low", "high", "chance", "n_unread"]
    table = pd.DataFrame(rows, columns=columns)
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "languages": store.languages,
        "interval": "Wilson 95 %", "unit": "item", "scoring": scoring,
        "task": "covariate task, else dataset, else all",
    }  # fmt: skip
    return Result("accuracy", table, about)


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
