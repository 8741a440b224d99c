"""Sentences made of test results: what a figure's numbers say, never more than they say."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from babelscope.reports.captions import spread
from babelscope.reports.charts import ALPHA

SUPPORTED, NOT_TESTABLE = "supported", "not testable with this data"

# A sentence of more parts answers nothing; then rows are only counted.
MOST_PARTS = 4


def number(value: float) -> str:
    """Three decimals, a count as a count, and an exponent only where nothing would be left."""
    if pd.isna(value):
        return "undefined"
    if float(value).is_integer() and abs(value) >= 2:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def effect(row: "pd.Series[Any]", value: str, band: tuple[str, str], null: str = "null") -> str:
    """A value with its interval, its null, n and q, as far as known: `0.62 [0.55, 0.69] (null 0.05, n = 120)`."""
    text = number(row[value])
    if pd.notna(row[band[0]]):
        text += f" [{number(row[band[0]])}, {number(row[band[1]])}]"
    known = [f"null {number(row[null])}"] if null in row and pd.notna(row[null]) else []
    known += [f"n = {int(row['n'])}"] if "n" in row and pd.notna(row["n"]) else []
    known += [f"q = {row['q']:.2g}"] if "q" in row and pd.notna(row["q"]) else []
    return f"{text} ({', '.join(known)})" if known else text


def summary(
    rows: pd.DataFrame,
    value: str = "estimate",
    *,
    band: tuple[str, str] = ("low", "high"),
    null: str = "null",
    each: str = "row",
    where: str = "",
) -> str:
    """How many rows are supported, with the median one and the range; of one row, its value and its verdict.

    The median and not the largest: that which is chosen for being large is too large.

    Parameters
    ----------
    rows : DataFrame
        With a column `verdict`, or q.
    value, band, null : str
        Columns of the value, its interval and its null.
    each : str
        What a row is, as `layer`.
    where : str
        Column that names a row in the sentence.
    """
    known = rows[rows[value].notna()].sort_values(value, kind="stable")
    if known.empty:
        return NOT_TESTABLE
    if len(rows) == 1:
        verdict = f", {known['verdict'].iloc[0]}" if known.get("verdict", pd.Series([""])).iloc[0] else ""
        return effect(known.iloc[0], value, band, null) + verdict
    median = known.iloc[(len(known) - 1) // 2]
    place = f" ({median[where]})" if where else ""
    return (
        f"{_count(rows, value, null, each)}; median{place} {effect(median, value, band, null)}, "
        f"range {number(known[value].iloc[0])} to {number(known[value].iloc[-1])}"
    )


def _count(rows: pd.DataFrame, value: str, null: str, each: str) -> str:
    """How many rows are supported, and on which side: tests are two-sided, readers think of above."""
    held = rows[rows["verdict"] == SUPPORTED if "verdict" in rows else rows["q"] < ALPHA]
    is_gap = value == "gap" or null not in rows  # the null of a gap is a similarity, and the gap itself is over it
    below = int((held[value] < (0.0 if is_gap else held[null])).sum())
    side = f", {below} of them below {'zero' if is_gap else 'the null'}" if below else ""
    return f"supported in {len(held)} of {len(rows)} {each}s{side}"


def without_means(rows: pd.DataFrame, column: str, *keys: str) -> pd.DataFrame:
    """Rows about single languages; those about all ("*"), their means, only where there are no others.

    Parameters
    ----------
    column : str
        Of languages.
    keys : str
        Columns that tell claims apart.
    """
    is_mean = rows[column] == "*"
    has_parts = (~is_mean).groupby([rows[key] for key in keys], dropna=False).transform("any")
    kept: pd.DataFrame = rows[~(is_mean & has_parts)]
    return kept


def sentence(parts: Mapping[str, str]) -> str:
    """One sentence of what is said of each name; the name is left out where there is only one."""
    text = next(iter(parts.values()), "") if len(parts) < 2 else "; ".join(f"{n}: {said}" for n, said in parts.items())
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def summaries(rows: pd.DataFrame, by: str, value: str = "estimate", **how: Any) -> str:
    """`summary` of the rows of each name in a column, as one sentence; where names are many, how many rows hold.

    Many names are of different things (claims, measures, sites), of which there is no median.
    """
    if rows.empty:
        return ""
    if rows[by].nunique() > MOST_PARTS:
        each = "row" if how.get("where") else how.get("each", "row")
        return sentence({"": f"{_count(rows, value, how.get('null', 'null'), each)}, n = {spread(rows['n'], 'd')}"})
    return sentence({str(name): summary(part, value, **how) for name, part in rows.groupby(by, sort=False)})
