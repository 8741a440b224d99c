"""What a recipe declares, how its parameters are set, and the table of claims that it begins with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from babelscope import plugins
from babelscope.analyses.statistics import benjamini_hochberg
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

if TYPE_CHECKING:
    from babelscope.analyses.study import Study

# One row per claim; what does not apply is NA.
CLAIM_COLUMNS = {
    "claim": "str",
    "group": "str",
    "site": "str",  # without the layer
    "layer": "Int64",
    "language_a": "str",  # "*": over all languages or pairs
    "language_b": "str",
    "n": "int64",  # items that count
    "estimate": "float64",
    "low": "float64",
    "high": "float64",
    "null": "float64",  # what the estimate is where there is no effect
    "p": "float64",
    "q": "float64",
    "stability": "float64",
    "verdict": "str",
}


@dataclass(frozen=True, slots=True)
class RecipeInfo:
    """What a reader needs to know about a recipe before running it.

    Parameters
    ----------
    title, question : str
    reads : tuple of str
        Names of sites, of which the store must hold all.
    needs_model : bool
        Whether it runs the model of the store.
    source : str
        Paper and section of the definition.
    """

    title: str
    question: str
    reads: tuple[str, ...]
    needs_model: bool
    source: str


class Recipe(Protocol):
    """A frozen dataclass; its fields are the parameters of the recipe."""

    info: ClassVar[RecipeInfo]

    def run(self, study: "Study") -> list[Result]:
        """The claims, named as the recipe, then the details behind them."""
        ...


def chosen_recipes(names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Recipe]:
    """Recipes by name, each with those of the settings that are parameters of it.

    Raises
    ------
    BabelScopeError
        For an unknown recipe, a setting that none of them has, or a value that it cannot take.
    """
    found: dict[str, Recipe] = {name.replace("_", "-"): plugins.load("recipe", name) for name in names}
    if settings and not found:
        raise BabelScopeError(f"--set {next(iter(settings))}: there is no recipe to set", "name one with --recipe")
    known = {f.name: f.type for recipe in found.values() for f in fields(recipe)}  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            raise unknown_name(f"setting of {' and '.join(found)}", name, known)
    return {name: _configured(recipe, settings) for name, recipe in found.items()}


def _configured(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    own = {}
    for field in fields(recipe):  # type: ignore[arg-type]
        if field.name in settings:
            kind: Any = field.type
            try:
                own[field.name] = TypeAdapter(kind).validate_python(settings[field.name])
            except ValidationError as error:
                raise BabelScopeError(
                    f"setting {field.name}={settings[field.name]!r}: {error.errors()[0]['msg']}",
                    f"the default is {field.name}={getattr(recipe, field.name)}",
                ) from None
    return replace(recipe, **own)  # type: ignore[type-var]


def claims_table(rows: Iterable[Mapping[str, Any]], family: Sequence[str] = ("claim",)) -> pd.DataFrame:
    """Rows of claims with all of `CLAIM_COLUMNS`, those that do not apply NA.

    Parameters
    ----------
    rows : iterable of mapping
    family : sequence of str
        Rows equal in these columns are corrected together (Benjamini-Hochberg), where the rows bring no q.
    """
    table = pd.DataFrame(list(rows))
    nothing: dict[str, Any] = {"str": "", "Int64": pd.NA, "int64": 0, "float64": float("nan")}
    for name, kind in CLAIM_COLUMNS.items():
        if name not in table:
            table[name] = pd.Series(nothing[kind], index=table.index)
        elif kind == "str":
            table[name] = table[name].fillna("")  # rows of one table need not bring the same columns
    if table["q"].isna().all() and len(table):
        keys = [table[name] for name in family]
        table["q"] = table["p"].astype(float).groupby(keys, dropna=False).transform(benjamini_hochberg)
    return table[list(CLAIM_COLUMNS)].astype(CLAIM_COLUMNS)
