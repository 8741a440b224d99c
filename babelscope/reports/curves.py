"""Accuracy and transfer along a dial: depth of reasoning, steps, facts that are given."""

from typing import Any

import altair as alt
import pandas as pd

from babelscope.reports.charts import GREY, HEIGHT, WIDTH


def dial_curves(table: pd.DataFrame) -> alt.TopLevelMixin:
    """Accuracy of each language against a dial beside chance, and XLTR beside that of independent answers.

    Parameters
    ----------
    table : DataFrame
        `curves` of an evaluation. Bands are its intervals; points that are undefined are left out.
    """
    dial = str(table["dial"].iloc[0])
    charts = [_curve(table, dial, "accuracy", ("low", "high"), "chance", "accuracy (dashed: chance)")]
    known = table.dropna(subset=["xltr"])
    bounds = ("xltr_low", "xltr_high")
    for source, part in known.groupby("source", sort=False):
        charts.append(_curve(part, dial, "xltr", bounds, "null", f"XLTR from {source} (dashed: independent)"))
    chart: alt.TopLevelMixin = alt.hconcat(*charts)
    return chart


def _curve(table: pd.DataFrame, dial: str, value: str, bounds: tuple[str, str], null: str, title: str) -> Any:
    x = alt.X("value:Q", title=dial, axis=alt.Axis(values=sorted(table["value"].unique().tolist())))
    color = alt.Color("language:N", sort=table["language"].unique().tolist())
    tip = ["language", "value", "n", value, *bounds, null]
    base = alt.Chart(table[[*dict.fromkeys(tip)]])
    line = base.mark_line(point=True).encode(x=x, y=alt.Y(f"{value}:Q", title=title), color=color, tooltip=tip)
    band = base.mark_area(opacity=0.12).encode(x=x, y=f"{bounds[0]}:Q", y2=f"{bounds[1]}:Q", color=color)
    dashed: dict[str, Any] = {"strokeDash": [4, 4], "opacity": 0.7}
    # Chance is one line; what independent answers would give depends on the language.
    floor = base.mark_line(color=GREY, **dashed).encode(x=x, y=f"mean({null}):Q")
    if null != "chance":
        floor = base.mark_line(**dashed).encode(x=x, y=f"{null}:Q", color=color)
    return (band + floor + line).properties(width=WIDTH, height=HEIGHT)
