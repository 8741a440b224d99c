"""Rows of the result tables that a reader wants first, and any table as HTML."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from babelscope import layout
from babelscope.analyses.estimates import LEVELS
from babelscope.schema import Result

# The threshold of Hu et al. (2024), shown where a grid holds it.
PAPER_THRESHOLD = 0.4

UNDEFINED, DASH = "undefined", layout.DASH

HEADLINE = (
    "metric", "mode", "variant", "site", "group", "threshold", "n", "matched", "null", "gap", "gap_low", "gap_high",
    "q", "stability", "verdict",
)  # fmt: skip
NAMES = ("metric", "variant", "site", "group")
BY_STEP = (*NAMES, "threshold", "step", "n", "matched", "null", "gap", "gap_low", "gap_high")
# What stands above the rows of the headline that share it.
ABOVE = ("metric", "variant", "site", "threshold")


def headline(results: Iterable[Result]) -> pd.DataFrame:
    """Means over layers and language pairs at one threshold, then the contrasts of groups.

    Corrected ones where there are any, else those of the published definitions.

    Returns
    -------
    DataFrame
        The columns of `HEADLINE`, and the floor (the gap of random weights) and the ceiling (that of a paraphrase)
        where they are known. In rows of contrasts `group` reads `a - b`, `gap` is the difference of gaps with
        its interval, n counts the items of both groups, and `matched` and `null` are NaN.
    """
    parts, results = [], list(results)
    for table in (result.table for result in results):
        if "within" in table:  # the rungs of a ladder, which these columns would not tell apart
            continue
        if {"mode", "threshold", "layer", "verdict"} <= set(table.columns) and {"group_a", "language_a"} & set(table):
            chosen = table[table["layer"].isna()]
            chosen = _as_groups(chosen) if "group_a" in table else chosen[chosen["language_a"] == "*"]
            keys = ["metric", "mode", "site", "variant"]  # each variant was swept over a grid of its own
            parts += [at_one_threshold(part) for _, part in chosen.groupby(keys, sort=False)]
    if not parts:
        return pd.DataFrame(columns=list(HEADLINE))
    rows = pd.concat([p[list(HEADLINE)] for p in parts], ignore_index=True)
    corrected = rows["mode"] == "corrected"
    rows = rows[corrected].reset_index(drop=True) if corrected.any() else rows
    for name, column in (("floor", "gap_random"), ("ceiling", "ceiling")):
        for reference in (result.table for result in results if result.name == name):
            rows[name] = _beside(rows, reference, column)
    return rows


def headline_text(results: Iterable[Result]) -> pd.DataFrame:
    """The headline as text for people: three decimals, the interval in one column, a dash where nothing applies."""
    results = list(results)
    rows = headline(results)
    shown = pd.DataFrame({name: rows[name].astype(str) for name in NAMES})
    shown["threshold"] = [DASH if pd.isna(v) else f"{v:g}" for v in rows["threshold"]]
    shown["n"] = rows["n"].astype(str)
    is_contrast = rows["group"].isin(contrasted(results))
    for name in ("matched", "null"):
        shown[name] = [DASH if c else _decimals(v) for v, c in zip(rows[name], is_contrast, strict=True)]
    shown["gap"] = [_decimals(v) for v in rows["gap"]]
    bounds = zip(rows["gap_low"], rows["gap_high"], strict=True)
    level = LEVELS["paper" if len(rows) and (rows["mode"] == "paper").all() else "corrected"]
    shown[f"{100 * level:g} % interval"] = [UNDEFINED if pd.isna(a) else f"[{a:.3f}, {b:.3f}]" for a, b in bounds]
    for name in ("floor", "ceiling"):
        if name in rows:
            shown[name] = [DASH if pd.isna(v) else f"{v:.3f}" for v in rows[name]]
    shown["q"] = [UNDEFINED if pd.isna(v) else f"{v:.2g}" for v in rows["q"]]
    shown["stability"] = [DASH if pd.isna(v) else f"{v:.2f}" for v in rows["stability"]]
    return shown.assign(verdict=rows["verdict"].astype(str))


def _beside(rows: pd.DataFrame, reference: pd.DataFrame, column: str) -> pd.Series:
    """Values over all layers of a reference table, in the order of the rows of the headline."""
    overall = reference[reference["layer"].isna()]
    if "mode" in overall:
        overall = overall[overall["mode"] == "corrected"]
    keys = ["metric", "variant", "site", "group", "threshold"]
    found = rows[keys].merge(overall.groupby(keys, dropna=False)[column].first().reset_index(), on=keys, how="left")
    return found[column]


def claims(results: Iterable[Result]) -> dict[str, pd.DataFrame]:
    """Tables of claims by the recipe that made them."""
    return {result.name: result.table for result in results if "claim" in result.table}


def claims_text(results: Iterable[Result]) -> list[pd.DataFrame]:
    """The claims of every recipe as text, one table each: three decimals, a dash where nothing applies."""
    return [_claims(table) for table in claims(results).values()]


def _claims(rows: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"claim": rows["claim"].astype(str)})
    for name in ("group", "site", "language_a", "language_b"):
        if (rows[name] != "").any():
            shown[name] = rows[name].astype(str)
    if rows["layer"].notna().any():
        shown["layer"] = [DASH if pd.isna(v) else str(v) for v in rows["layer"]]
    shown["n"] = rows["n"].astype(str)
    shown["estimate"] = [_decimals(v) for v in rows["estimate"]]
    bounds = zip(rows["low"], rows["high"], strict=True)
    shown["interval"] = [UNDEFINED if pd.isna(a) else f"[{a:.3f}, {b:.3f}]" for a, b in bounds]
    shown["null"] = [_decimals(v) for v in rows["null"]]
    shown["q"] = [DASH if pd.isna(v) else f"{v:.2g}" for v in rows["q"]]
    if rows["stability"].notna().any():
        shown["stability"] = [DASH if pd.isna(v) else f"{v:.2f}" for v in rows["stability"]]
    return shown.assign(verdict=rows["verdict"].astype(str))


def at_one_threshold(table: pd.DataFrame) -> pd.DataFrame:
    """Rows without a threshold, and those of one: the paper's where the grid spans it, else the middle one."""
    values = sorted(table["threshold"].dropna().unique())
    if not values:
        return table
    spans = values[0] <= PAPER_THRESHOLD <= values[-1]
    chosen = min(values, key=lambda v: (abs(v - PAPER_THRESHOLD), v)) if spans else values[len(values) // 2]
    kept: pd.DataFrame = table[table["threshold"].isna() | (table["threshold"] == chosen)]
    return kept


def by_step(results: Iterable[Result]) -> pd.DataFrame:
    """Gap over the null with its interval at every step, by the corrected definitions at one threshold.

    Returns
    -------
    DataFrame
        The columns of `BY_STEP`; the steps of one metric, variant, site and group stand together.
    """
    parts = []
    for table in (result.table for result in results):
        if {"step", "gap_low"} <= set(table.columns):
            rows = table[table["mode"] == "corrected"]
            parts += [at_one_threshold(part) for _, part in rows.groupby(["metric", "variant", "site"], sort=False)]
    if not parts:
        return pd.DataFrame(columns=list(BY_STEP))
    order = [part for whole in parts for _, part in whole.groupby("group", sort=False)]
    return pd.concat([part.sort_values("step", kind="stable")[list(BY_STEP)] for part in order], ignore_index=True)


def text(table: pd.DataFrame, *, headings: Sequence[str] = ()) -> str:
    """A table as text, at most 80 cells wide; `headings` as in `layout.table`."""
    return layout.table(table.to_dict("records"), headings=headings)


def texts(tables: Mapping[str, pd.DataFrame]) -> str:
    """Tables one under another, each below its name where there are several; empty ones are left out."""
    shown = {name: text(table) for name, table in tables.items() if len(table)}
    return "\n\n".join(f"{name}\n{lines}" if len(shown) > 1 else lines for name, lines in shown.items())


def as_html(table: pd.DataFrame) -> str:
    """A table as HTML: every text escaped, four significant digits, undefined cells named so."""
    shown = [c for c in table if table[c].notna().any()]
    # Strings first: to_html would print the float 1.0 and the nullable integer 1 in two ways.
    texts = pd.DataFrame({c: [_text(value, str(c)) for value in table[c]] for c in shown})
    return str(texts.to_html(index=False, border=0, escape=True))


def overall(table: pd.DataFrame) -> pd.DataFrame:
    """Means over layers and language pairs, at every threshold."""
    return table[(table["language_a"] == "*") & table["layer"].isna()]


def by_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Means over language pairs in each layer, at one threshold of each variant."""
    return _one_threshold_each(table[(table["language_a"] == "*") & table["layer"].notna() & table["head"].isna()])


def by_pair(table: pd.DataFrame) -> pd.DataFrame:
    """Means over layers of each language pair, at one threshold of each variant."""
    return _one_threshold_each(table[(table["language_a"] != "*") & table["layer"].isna()])


def _one_threshold_each(table: pd.DataFrame) -> pd.DataFrame:
    parts = [at_one_threshold(part) for _, part in table.groupby(["mode", "variant"], sort=False)]
    return pd.concat(parts) if parts else table


def contrasted(results: Iterable[Result]) -> set[str]:
    """Names that contrasts have among the groups of the headline, those of undefined ones too."""
    tables = [result.table for result in results if "group_a" in result.table]
    return {f"{a} - {b}" for table in tables for a, b in zip(table["group_a"], table["group_b"], strict=True)}


def _as_groups(contrasts: pd.DataFrame) -> pd.DataFrame:
    return contrasts.rename(columns={"estimate": "gap", "low": "gap_low", "high": "gap_high"}).assign(
        group=contrasts["group_a"] + " - " + contrasts["group_b"],
        n=contrasts["n_a"] + contrasts["n_b"],
        matched=float("nan"),
        null=float("nan"),
    )


def _decimals(value: float) -> str:
    return UNDEFINED if pd.isna(value) else f"{value:.3f}"


def _text(value: object, column: str) -> str:
    if not isinstance(value, str) and pd.isna(value):  # type: ignore[call-overload]
        return {"layer": "all", "threshold": DASH, "stability": DASH}.get(column, UNDEFINED)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
