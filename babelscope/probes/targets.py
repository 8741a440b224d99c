"""What a probe is asked for: a label of every item in every language."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from babelscope.activations_store import ActivationStore
from babelscope.datasets.scripts import main_script
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.probes.probe import Codes

# Numbers with more values than this are asked for by their quarter.
MOST_VALUES = 10

# An item has one label in all languages; each row has its own; a language has one label in all items.
Scope = Literal["item", "row", "language"]


@dataclass(frozen=True, slots=True)
class Target:
    """Labels to be predicted.

    Parameters
    ----------
    name : str
    scope : "item", "row" or "language"
        Whether a label belongs to an item, to an item in one language, or to a language.
    classes : tuple of str
        Names of the labels.
    codes : ndarray of int64
        (language, item): index of the label; -1 where there is none.
    note : str
        What was done to the values, "" where nothing.
    """

    name: str
    scope: Scope
    classes: tuple[str, ...]
    codes: Codes
    note: str = ""


def target_of(
    store: ActivationStore, name: str, languages: tuple[str, ...], items: tuple[str, ...], *, fewest: int
) -> Target:
    """A target by its name: `language`, `script`, `correct`, or a covariate of the items such as `gold-letter`.

    Parameters
    ----------
    store : ActivationStore
    name : str
        Hyphens stand for underscores.
    languages, items : tuple of str
        The rows, in the order of the codes.
    fewest : int
        Items that a class needs; rarer classes are left out, and named in `note`.

    Raises
    ------
    BabelScopeError
        If there is no such target, or fewer than two classes are left.
    """
    named = name.replace("-", "_")
    scope: Scope
    if named in ("language", "script"):
        values, scope, said = _of_languages(store, named, languages, items), "language", ""
    elif named in ("correct", "correctness"):
        values, scope, said = _of_answers(store, languages, items), "row", ""
    else:
        values, said = _of_items(store, named, len(languages), items)
        scope = "item"
    return _coded(name.replace("_", "-"), scope, values, said, store, fewest)


def _of_languages(
    store: ActivationStore, named: str, languages: tuple[str, ...], items: tuple[str, ...]
) -> pd.DataFrame:
    labels: list[str] = list(languages)
    if named == "script":
        if not store.has_texts:
            raise BabelScopeError(
                f"{store.path} kept no texts, which tell the script",
                "capture without --no-texts, or probe for language",
            )
        labels = [main_script(p.text for p in store.prompts.of(language)[:200]) for language in languages]
    return pd.DataFrame(dict.fromkeys(items, labels), index=list(languages))


def _of_answers(store: ActivationStore, languages: tuple[str, ...], items: tuple[str, ...]) -> pd.DataFrame:
    wide = store.answers.pivot(index="language", columns="item", values="correct")
    wide = wide.reindex(index=list(languages), columns=list(items))
    if wide.isna().all(axis=None):
        raise BabelScopeError(
            f"{store.path} holds no answers that were right or wrong", "capture with --answers labels"
        )
    return wide.astype(object).where(wide.notna()).replace({1.0: "right", 0.0: "wrong"})


def _of_items(store: ActivationStore, named: str, n_languages: int, items: tuple[str, ...]) -> tuple[pd.DataFrame, str]:
    covariates = store.covariates
    if named not in covariates:
        known = {"language", "script", "correct", *map(str, covariates.columns)}
        raise unknown_name(f"target in {store.path}", named, known)
    column, said = covariates[named].loc[list(items)], ""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric and column.nunique() > MOST_VALUES:
        column = pd.qcut(column.astype(float), 4, duplicates="drop").astype("str").where(column.notna())
        said = f"{named} has many values and is asked for by quarter"
    values = [None if pd.isna(v) else str(v) for v in column]
    return pd.DataFrame([values] * n_languages, columns=list(items), dtype=object), said


def _coded(
    name: str, scope: Scope, values: pd.DataFrame, said: str, store: ActivationStore, fewest: int
) -> Target:  # fmt: skip
    flat = values.to_numpy(object)
    counts: dict[str, int] = {}
    for label in np.unique(flat[pd.notna(flat)].astype(str)):
        where = flat == label
        # A class of a language is tested on as many items as the language has; of items, on so many of them.
        counts[str(label)] = int(where.sum(axis=1).max() if scope != "row" else where.any(axis=0).sum())
    rare = sorted(label for label, n in counts.items() if n < fewest)
    classes = tuple(label for label in counts if label not in rare)
    if rare:
        left = f"left out, of fewer than {fewest} items: {', '.join(rare[:5])}{' ...' if len(rare) > 5 else ''}"
        said = f"{said}; {left}" if said else left
    if len(classes) < 2:
        raise BabelScopeError(
            f"{store.path}: target {name} has {len(classes)} classes of {fewest} items or more, and a probe needs two",
            "capture more items, ask for fewer --folds, or probe for another column",
        )
    codes = np.full(flat.shape, -1, dtype=np.int64)
    for k, label in enumerate(classes):
        codes[flat == label] = k
    return Target(name, scope, classes, codes, said)
