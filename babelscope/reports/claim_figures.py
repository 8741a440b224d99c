"""The claims of a recipe as a figure: each estimate with its interval, beside its null."""

from collections.abc import Callable, Sequence

import pandas as pd

from babelscope.analyses.recipe import CLAIM_COLUMNS
from babelscope.reports.answers import summaries, without_means
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
        known = table[table["estimate"].notna()].assign(languages=lambda t: _languages(t))
        found = []
        for site, part in known[known["layer"].isna()].groupby("site", sort=False):
            about = f"{title}: {site}" if known["site"].nunique() > 1 else title
            found += _over_layers(part, about, kind)
        layered = known[known["layer"].notna()]
        return [*found, _by_layer(layered, f"{title}: by layer", kind)] if len(layered) else found

    return draw


def _languages(table: pd.DataFrame) -> list[str]:
    """The languages that a row is about, "all" where it is about all of them."""
    pairs = zip(table["language_a"], table["language_b"], strict=True)
    return ["all" if a in ("*", "") else a if a == b or not b else f"{a}-{b}" for a, b in pairs]


def _over_layers(table: pd.DataFrame, title: str, kind: str) -> list[Figure]:
    """Claims about all languages in one figure; a claim about many has its own, since its unit may differ."""
    many = table.groupby("claim")["languages"].transform("nunique") > 1
    found = [_rows(table[~many], "claim", title, kind)] if (~many).any() else []
    for claim, part in table[many].groupby("claim", sort=False):
        found.append(_rows(part, "languages", f"{title}: {claim}", kind))
    return found


def _rows(table: pd.DataFrame, label: str, title: str, kind: str) -> Figure:
    shown = table.head(MOST_ROWS)
    left = f" The first {MOST_ROWS} of {len(table)} rows; the CSV holds all." if len(table) > MOST_ROWS else ""
    caption = (
        f"Estimates with their 95 % intervals, n = {spread(table['n'], 'd')}; the orange tick is the value without an "
        f"effect.{left}"
    )
    chart = forest(_shown(shown, label), label, "estimate", title="estimate", column="group")
    answer = _answer(table, "languages" if label == "languages" else "")
    return Figure(kind, "corrected", title, caption, chart, table.drop(columns="languages"), answer)


def _by_layer(table: pd.DataFrame, title: str, kind: str) -> Figure:
    caption = f"Bands are 95 % intervals, n = {spread(table['n'], 'd')}; dashed: the value without an effect."
    named = table.assign(what=table["claim"] + table["languages"].map(lambda v: "" if v == "all" else f" ({v})"))
    chart = curves(_shown(named, "what", "layer"), "layer", "estimate", color="what", column="group", row="site")
    return Figure(kind, "corrected", title, caption, chart, table.drop(columns="languages"), _answer(table, "layer"))


def _answer(table: pd.DataFrame, where: str = "") -> str:
    groups = table["group"].nunique() > 1
    named = table.assign(name=table["claim"] + (" (" + table["group"] + ")" if groups else ""))
    tested = without_means(named[named["verdict"].astype(bool)], "language_a", "claim", "group", "site")
    return summaries(tested, "name", each=where or "claim", where=where)


def _shown(table: pd.DataFrame, *first: str) -> pd.DataFrame:
    columns: Sequence[str] = [*first, *(c for c in CLAIM_COLUMNS if c not in first)]
    return table[list(columns)]
