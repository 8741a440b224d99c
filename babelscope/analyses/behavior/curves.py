"""Accuracy and transfer along a dial: reasoning depth, steps, or how many of the facts it needs a prompt gives."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.scorings import scored
from babelscope.analyses.behavior.transfer import Chance, transfer
from babelscope.analyses.statistics import benjamini_hochberg, verdicts
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

# Two values make a contrast, not a curve.
FEWEST_VALUES = 3

_XLTR = ("xltr", "xltr_low", "xltr_high", "null", "excess", "excess_low", "excess_high")
CURVE_COLUMNS = (
    "dial", "value", "language", "source", "n", "accuracy", "low", "high", "chance", "n_a", *_XLTR, "p", "q",
    "verdict",
)  # fmt: skip


def is_dial(store: ActivationStore, name: str | None) -> bool:
    """Whether a covariate is a number with at least three values among the items of a store."""
    if name is None or name not in store.covariates:
        return False
    return _numbers(store.covariates[name]).nunique() >= FEWEST_VALUES


def dial_of(store: ActivationStore, name: str) -> "pd.Series[float]":
    """Value of the dial for each item, NaN where an item has none.

    Raises
    ------
    BabelScopeError
        If no item has the covariate, or it is no number with at least three values.
    """
    if name not in store.covariates:
        raise unknown_name("covariate", name, map(str, store.covariates.columns))
    if not is_dial(store, name):
        raise BabelScopeError(
            f"the covariate {name!r} of {store.path} is no number with {FEWEST_VALUES} values or more",
            "compare groups by it instead (evaluate --by), or name another",
        )
    return _numbers(store.covariates[name])


def _numbers(values: "pd.Series[Any]") -> "pd.Series[float]":
    known = values.dropna()
    if known.map(lambda v: isinstance(v, bool | str)).any():
        return pd.Series(np.nan, values.index)
    return pd.to_numeric(values, errors="coerce")


def spoken(answers: pd.DataFrame, source: str, languages: Sequence[str] | None) -> pd.DataFrame:
    """Answers of the source and of some languages; None: of all."""
    return answers if languages is None else answers[answers["language"].isin([source, *languages])]


def curves(
    store: ActivationStore,
    dial: str,
    source: str = "en",
    *,
    languages: Sequence[str] | None = None,
    scoring: str = "labels",
    chance: Chance = "uniform",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """Accuracy, and XLTR from the source with its null, at every value of a dial, in every language.

    Parameters
    ----------
    dial : str
        A numeric covariate of the items with at least three values, as depth or facts_given.
    source, languages, scoring, chance
        As in `transfer`, which gives XLTR, its null and excess, their intervals and p.

    Returns
    -------
    Result
        One row per value and language, sorted by both. The source has no XLTR to itself. q is Benjamini-Hochberg over
        all languages and values; the verdict is that of the excess.

    Raises
    ------
    BabelScopeError
        As `dial_of` and `transfer` do.
    """
    values = dial_of(store, dial)
    answers = spoken(scored(store, scoring), source, languages)
    answers = answers.assign(value=values.reindex(answers["item"]).to_numpy()).dropna(subset=["value"])
    rows = []
    for (value, language), part in answers.groupby(["value", "language"], sort=False):
        n, right = len(part), int(part["correct"].sum())
        low, high = proportion_confint(right, n, method="wilson")
        rows.append({
            "dial": dial, "value": value, "language": language, "source": source, "n": n, "accuracy": right / n,
            "low": low, "high": high, "chance": float((1 / part["n_options"]).mean()),
        })  # fmt: skip
    table = pd.DataFrame(rows)
    if answers["language"].nunique() > 1 and (answers["correct"][answers["language"] == source] == 1).any():
        moved = transfer(
            store, source, languages=languages, by=dial, scoring=scoring, chance=chance, mode="corrected",
            n_boot=n_boot, level=level, seed=seed,
        ).table  # fmt: skip
        moved = moved.assign(value=moved["group"].astype(float), language=moved["language_b"])
        table = table.merge(moved[["value", "language", "n_a", *_XLTR, "p"]], on=["value", "language"], how="left")
    table = table.reindex(columns=[c for c in CURVE_COLUMNS if c not in ("q", "verdict")])
    table["q"] = benjamini_hochberg(table["p"])
    n_source = table["n_a"].fillna(0)
    table["verdict"] = verdicts(table["excess"], table["excess_low"], table["excess_high"], table["q"], n_source)
    order = {language: i for i, language in enumerate(store.languages)}
    table = table.sort_values(["value", "language"], key=lambda c: c.map(order) if c.name == "language" else c)
    about = {
        "store": store.fingerprint, "version": version("babelscope"), "dial": dial, "source": source,
        "scoring": scoring, "chance": chance, "seed": seed, "n_boot": n_boot, "unit": "item",
        "interval": f"accuracy: Wilson {100 * level:g} %; XLTR: bootstrap over items, {100 * level:g} %",
        "null": "(accuracy_t - A_r) / (1 - A_r): being right in t independent of being right in the source",
        "p": "Fisher's exact test of right in both, one-sided", "q": "Benjamini-Hochberg over languages and values",
    }  # fmt: skip
    return Result("curves", table[list(CURVE_COLUMNS)].reset_index(drop=True), about)
