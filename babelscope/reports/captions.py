"""What a figure says below itself: intervals and their n, threshold, stability."""

import pandas as pd

from babelscope.analyses.estimates import LEVELS


def intervals(table: pd.DataFrame) -> str:
    """Level of the bands, and the number of items behind them."""
    (mode,) = table["mode"].unique()
    return f"bands are {100 * LEVELS[mode]:g} % intervals over items, n = {spread(table['n'], 'd')}"


def threshold_of(table: pd.DataFrame) -> str:
    """The threshold at which a figure was drawn, as a sentence; nothing where there is none."""
    values = table["threshold"].dropna().unique()
    return f" Threshold {values[0]:g}." if len(values) else ""


def stability(table: pd.DataFrame) -> str:
    """On how much of the swept grid the drawn conclusions hold, as a sentence; nothing where nothing was swept."""
    swept = table.dropna(subset=["stability"])
    if swept.empty:
        return ""
    groups = {str(name): spread(part["stability"], ".0%") for name, part in swept.groupby("group", sort=False)}
    held = ", ".join(f"{share} ({name})" if len(groups) > 1 else share for name, share in groups.items())
    return f" The gap keeps its sign, with an interval without zero, on {held} of the swept grid."


def spread(values: pd.Series, digits: str) -> str:
    """Smallest and largest value, or the one where they read alike."""
    low, high = format(values.min(), digits), format(values.max(), digits)
    return low if low == high else f"{low} to {high}"
