"""The claims of a recipe as a figure: each estimate with its interval, beside its null."""

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import pandas as pd

from babelscope.analyses.recipe import CLAIM_COLUMNS
from babelscope.reports.answers import summaries
from babelscope.reports.captions import spread
from babelscope.reports.charts import curves, forest
from babelscope.reports.source import Figure, Source

# More rows than this are no figure; they stand in the table.
MOST_ROWS = 60


def claims(name: str, title: str, kind: str = "claims") -> Callable[[Source], list[Figure]]:
    """What draws the claims of a recipe, those over all layers as rows, those of single layers as curves.

    Parameters
    ----------
    name : str
        Of the result, as `null_ladder`.
    title : str
    kind : str
    """

    def draw(source: Source) -> list[Figure]:
        table = source.table(name)
        if table is None:
            return []
        known = table[table["estimate"].notna()]
        rows, layered = known[known["layer"].isna()], known[known["layer"].notna()]
        found = []
        if len(rows):
            found.append(_rows(rows, title, kind))
        if len(layered):
            found.append(_by_layer(layered, f"{title}: by layer", kind))
        return found

    return draw


def _languages(table: pd.DataFrame) -> list[str]:
    """The languages that a row is about, "all" where it is about all of them."""
    pairs = zip(table["language_a"], table["language_b"], strict=True)
    return ["all" if a in ("*", "") else a if a == b or not b else f"{a}-{b}" for a, b in pairs]


def _rows(table: pd.DataFrame, title: str, kind: str) -> Figure:
    """A row per claim; claims about many languages have panels of their own, since their units may differ."""
    shown = table.assign(languages=_languages(table)).head(MOST_ROWS)
    left = f" The first {MOST_ROWS} of {len(table)} rows; the CSV holds all." if len(table) > MOST_ROWS else ""
    caption = (
        f"Estimates with their 95 % intervals, n = {spread(table['n'], 'd')}; the orange tick is the value without an "
        f"effect.{left}"
    )
    is_many = shown["languages"].nunique() > 1
    chart: Any = forest(
        _shown(shown, "languages"), "languages" if is_many else "claim", "estimate", title="estimate", column="group",
        row="claim" if is_many else "",
    )  # fmt: skip
    if isinstance(chart, alt.FacetChart):
        chart = chart.resolve_scale(x="independent" if is_many else "shared", y="independent")
    return Figure(kind, "corrected", title, caption, chart, table, _answer(table))


def _by_layer(table: pd.DataFrame, title: str, kind: str) -> Figure:
    caption = f"Bands are 95 % intervals, n = {spread(table['n'], 'd')}; dashed: the value without an effect."
    named = table.assign(languages=_languages(table))
    named["what"] = named["claim"] + named["languages"].map(lambda v: "" if v == "all" else f" ({v})")
    chart = curves(_shown(named, "what", "layer"), "layer", "estimate", color="what", column="group", row="site")
    return Figure(kind, "corrected", title, caption, chart, table, _answer(table, "layer"))


def _answer(table: pd.DataFrame, where: str = "") -> str:
    groups = table["group"].nunique() > 1
    named = table.assign(name=table["claim"] + (" (" + table["group"] + ")" if groups else ""))
    tested = named[named["verdict"].astype(bool)]
    return summaries(tested, "name", each=where or "claim", where=where)


def _shown(table: pd.DataFrame, *first: str) -> pd.DataFrame:
    columns: Sequence[str] = [*first, *(c for c in CLAIM_COLUMNS if c not in first)]
    return table[list(columns)]
