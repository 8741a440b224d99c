"""What a figure says below itself (intervals and their n, threshold, stability), and what an analysis left out."""

from collections.abc import Iterable

import pandas as pd

from babelscope.analyses.estimates import LEVELS
from babelscope.schema import Result


def intervals(table: pd.DataFrame) -> str:
    """Level of the bands, and the number of items behind them."""
    (mode,) = table["mode"].unique()
    return f"bands are {100 * LEVELS[mode]:g} % intervals over items, n = {spread(table['n'], 'd')}"


def threshold_of(table: pd.DataFrame) -> str:
    """The threshold at which a figure was drawn, as a sentence; nothing where there is none."""
    values = table["threshold"].dropna().unique()
    return f" Threshold {values[0]:g}." if len(values) else ""


def null_items(results: Iterable[Result]) -> str:
    """What the items of a null have in common, as `items of the same group and rule`."""
    said = (r.provenance.get("within") for r in results)
    # Recipes describe in a sentence what they restrict; metrics list covariates.
    within = next((list(names) for names in said if names and not isinstance(names, str)), [])
    names = ["group", *map(str, within)]
    return f"items of the same {' and '.join([', '.join(names[:-1]), names[-1]] if within else names)}"


def stability(table: pd.DataFrame) -> str:
    """On how much of the swept grid the drawn conclusions hold, as a sentence; nothing where nothing was swept."""
    swept = table.dropna(subset=["stability"])
    if swept.empty:
        return ""
    groups = {str(name): spread(part["stability"], ".0%") for name, part in swept.groupby("group", sort=False)}
    held = ", ".join(f"{share} ({name})" if len(groups) > 1 else share for name, share in groups.items())
    return f" The gap keeps its sign, with an interval without zero, on {held} of the swept grid."


def left_out(results: Iterable[Result]) -> list[str]:
    """Items and default metrics that an analysis could not take in, one sentence each."""
    found: dict[str, None] = {}
    for about in (result.provenance for result in results):
        if lacking := about.get("items_left_out"):
            found[f"{_items(lacking)} left out: some language lacks them"] = None
        if groupless := about.get("items_without_group"):
            found[f"{_items(groupless)} left out: no value of {about['by']}, which forms the groups"] = None
        if lonely := about.get("items_without_null"):
            found[f"{_items(lonely)} without a null: too few share their {' and '.join(about['within'])}"] = None
        for problem in about.get("metrics_left_out", {}).values():
            found[f"left out: {problem}"] = None
    return list(found)


def _items(count: int) -> str:
    return f"{count} item{'' if count == 1 else 's'}"


def spread(values: pd.Series, digits: str) -> str:
    """Smallest and largest value, or the one where they read alike."""
    known = values.dropna()
    if known.empty:
        return "undefined"
    low, high = (format(int(v) if digits == "d" else v, digits) for v in (known.min(), known.max()))
    return low if low == high else f"{low} to {high}"
