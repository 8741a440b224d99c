"""Figures of any metric that compares languages: by layer, against the threshold, by language pair, while training."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import altair as alt
import pandas as pd

from babelscope.reports.answers import MOST_PARTS, SUPPORTED, effect, sentence, summaries
from babelscope.reports.captions import intervals, null_items, spread, stability, threshold_of
from babelscope.reports.charts import (
    GREY,
    HEIGHT,
    MATCHED,
    NULL,
    WIDTH,
    color_of,
    data,
    faceted,
    heat,
    tips,
    values,
)
from babelscope.reports.source import Figure, Source
from babelscope.reports.tables import at_one_threshold, by_layer, by_pair, overall
from babelscope.schema import Result

INTERVAL_COLUMNS = ("n", "n_undefined", "matched", "null", "gap", "gap_low", "gap_high", "q", "stability", "verdict")
GAP = ("gap_low", "gap_high")


def metric_figures(
    *names: str, but: Collection[str] = (), parts: "Collection[Callable[[Result], list[Figure]]]" = ()
) -> Callable[[Source], list[Figure]]:
    """What draws figures of some metrics, or of all but some.

    Parameters
    ----------
    names : str
        Metrics to draw; none for all.
    but : collection of str
        Metrics not to draw.
    parts : collection of callable
        Result -> figures. Default: layers, thresholds, pairs.
    """
    chosen = tuple(parts) or (layer_figures, threshold_figures, pair_figures)

    def draw(source: Source) -> list[Figure]:
        found = []
        for result in source.similarities():
            if (not names or result.name in names) and result.name not in but:
                found += [figure for part in chosen for figure in part(result)]
        return found

    return draw


def layer_figures(result: Result) -> list[Figure]:
    """Matched beside null in each layer, a figure for each variant."""
    found = []
    for mode, variant, part in _variants(by_layer(result.table)):
        if part["layer"].nunique() > 1:
            caption = (
                f"Similarity of matched items (one question, two languages) beside its null, mismatched "
                f"{null_items([result])}; {intervals(part)}. The shaded gap is how much more alike matched items are."
                f"{threshold_of(part)}{stability(part)}"
            )
            title = _title("by layer", result, mode, variant)
            found.append(Figure("layers", mode, title, caption, _layers(part), part, _said(result, part, "layer")))
    return found


def threshold_figures(result: Result) -> list[Figure]:
    """Matched, null and gap at each threshold, then the gap by layer and threshold, where a grid was swept."""
    found = []
    for mode, variant, part in _variants(overall(result.table)):
        if part["threshold"].nunique() > 1:
            caption = (
                "Mean over layers and language pairs at every threshold. Left: matched (solid) and null (dashed), "
                f"mismatched {null_items([result])}. Right: the gap between them; {intervals(part)}.{stability(part)}"
            )
            title = _title("against the threshold", result, mode, variant)
            found.append(Figure("threshold", mode, title, caption, _thresholds(part), part, _at_thresholds(part)))
    return found + _threshold_maps(result)


def pair_figures(result: Result) -> list[Figure]:
    """The gap of each language pair, a figure for each variant."""
    found = []
    for mode, variant, part in _variants(by_pair(result.table)):
        if len(part[["language_a", "language_b"]].drop_duplicates()) > 1:
            caption = (
                f"Gap over the null, mismatched {null_items([result])}; mean over layers.{threshold_of(part)} "
                f"Point at a cell for interval, n and q.{stability(part)}"
            )
            title = _title("by language pair", result, mode, variant)
            found.append(Figure("pairs", mode, title, caption, _pairs(part), part, _said(result, part, "pair")))
    return found


def step_figures(source: Source) -> list[Figure]:
    """The gap at every training step."""
    found = []
    for result in source.results:
        if not {"step", "gap_low"} <= set(result.table.columns):
            continue
        for mode, variant, whole in _variants(result.table):
            part = at_one_threshold(whole)
            caption = (
                f"Gap over the null of each step, mismatched {null_items([result])}; mean over layers and language "
                f"pairs; {intervals(part)}. Step 0 is the model before its training.{threshold_of(part)}"
            )
            title = _title("while it was trained", result, mode, variant)
            found.append(Figure("steps", mode, title, caption, _steps(part), part))
    return found


def against_first(result: Result) -> list[Figure]:
    """Map of layers by languages, each against the first one: which languages align with it, and where."""
    table = result.table
    chosen = table[(table["mode"] == "corrected") & table["layer"].notna() & table["head"].isna()]
    chosen = chosen[chosen["language_a"] != "*"]
    if chosen.empty:
        return []
    first = chosen["language_a"].iloc[0]
    rows = chosen[chosen["language_a"] == first]
    found = []
    for mode, variant, whole in _variants(rows):
        part = at_one_threshold(whole)
        if part["layer"].nunique() < 2 or part["language_b"].nunique() < 2:
            continue
        caption = (
            f"Gap over the null, mismatched {null_items([result])}, of each language with {first}; a dot marks a cell "
            f"with q of .05 or more.{threshold_of(part)} Point at a cell for its null, interval and n."
        )
        shown = part[["group", "site", "layer", "language_b", *INTERVAL_COLUMNS]].rename(
            columns={"language_b": "language"}
        )
        chart = heat(shown, "layer", "language", "gap", column="group", row="site", faint="q")
        answer = summaries(named(shown), "name", "gap", band=GAP, each="cell", where="language")
        found.append(Figure("map", mode, _title(f"with {first}, layer by layer", result, mode, variant), caption,
                            chart, part, answer))  # fmt: skip
    return found


def _variants(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for (mode, variant), part in table.groupby(["mode", "variant"], sort=False):
        yield str(mode), str(variant), part


def named(table: pd.DataFrame) -> pd.DataFrame:
    """With a column `name`: the group, and the site where there are several."""
    several = table["site"].nunique() > 1
    return table.assign(name=table["group"] + (", " + table["site"] if several else ""))


def _said(result: Result, part: pd.DataFrame, each: str) -> str:
    """The mean over layers and pairs with its verdict, and in how many layers, or pairs, the gap is supported."""
    keys = ["mode", "variant", "group", "site"]
    means = overall(result.table).merge(part[[*keys, "threshold"]].drop_duplicates())
    said = {}
    for name, rows in named(means).groupby("name", sort=False):
        mean = rows.iloc[0]
        held = part.merge(rows[keys])["verdict"] == SUPPORTED
        said[str(name)] = (
            f"gap {effect(mean, 'gap', GAP)}, {mean['verdict']}; by itself in {int(held.sum())} of {len(held)} {each}s"
        )
    if len(said) > MOST_PARTS:
        return summaries(named(means), "name", "gap", band=GAP, each="mean")
    return sentence(said)


def _at_thresholds(part: pd.DataFrame) -> str:
    said = {}
    for name, rows in named(part).groupby("name", sort=False):
        shown = at_one_threshold(rows).iloc[0]
        excludes = ((rows["gap_low"] > 0) | (rows["gap_high"] < 0)).sum()
        held = f"the interval excludes zero at {excludes} of {len(rows)} thresholds"
        said[str(name)] = f"{held}; at {shown['threshold']:g} the gap is {effect(shown, 'gap', GAP)}"
    return sentence(said)


def _layers(table: pd.DataFrame) -> alt.TopLevelMixin:
    base = alt.Chart().encode(x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d")))
    y = alt.Y("value:Q", title="similarity", scale=alt.Scale(zero=False))
    names = alt.Scale(domain=["matched", "null"], range=[MATCHED, NULL])
    dashes = alt.Scale(domain=["matched", "null"], range=[[1, 0], [5, 3]])
    shade = base.mark_area(opacity=0.15, color=MATCHED).encode(y=alt.Y("null:Q"), y2="matched:Q")
    band = base.mark_area(opacity=0.3, color=MATCHED).encode(y=alt.Y("matched_low:Q"), y2="matched_high:Q")
    lines = (
        base.transform_fold(["matched", "null"], as_=["curve", "value"])
        .mark_line(point=True)
        .encode(
            y=y,
            color=alt.Color("curve:N", title=None, scale=names),
            strokeDash=alt.StrokeDash("curve:N", title=None, scale=dashes),
            tooltip=_tips(table, "group", "site", "layer"),
        )
    )
    layered = alt.layer(shade, band, lines).properties(width=WIDTH, height=HEIGHT)
    return faceted(layered, _rows(table, "group", "site", "layer", "matched_low", "matched_high"), "group", "site")


def _thresholds(table: pd.DataFrame) -> alt.TopLevelMixin:
    rows = _rows(table, "group", "site", "threshold", "matched_low", "matched_high")
    base = alt.Chart(data(rows)).encode(
        x=alt.X("threshold:Q", title="threshold"), color=color_of(table, "group", "items")
    )
    shown = _tips(table, "group", "site", "threshold")
    size = {"width": WIDTH * 1.1, "height": HEIGHT}
    levels = alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("matched_low:Q", title="overlap"), y2="matched_high:Q"),
        base.mark_line(point=True).encode(y="matched:Q", tooltip=shown),
        base.mark_line(strokeDash=[5, 3]).encode(y="null:Q", tooltip=shown),
    ).properties(**size)
    gap = alt.layer(
        base.mark_rule(color=GREY).encode(y=alt.datum(0), color=alt.value(GREY), x=alt.value(0), x2=alt.value("width")),
        base.mark_area(opacity=0.2).encode(y=alt.Y("gap_low:Q", title="gap over the null"), y2="gap_high:Q"),
        base.mark_line(point=True).encode(y="gap:Q", tooltip=shown),
    ).properties(**size)
    sites = values(table, "site")
    parts = [
        alt.hconcat(
            levels.transform_filter(alt.datum.site == site), gap.transform_filter(alt.datum.site == site)
        ).properties(title=site)
        for site in sites
    ]
    return parts[0] if len(parts) == 1 else alt.vconcat(*parts)


def _threshold_maps(result: Result) -> list[Figure]:
    table = result.table
    rows = table[(table["language_a"] == "*") & table["layer"].notna() & table["head"].isna()]
    found = []
    for mode, variant, part in _variants(rows):
        if part["threshold"].nunique() < 2 or part["layer"].nunique() < 2:
            continue
        caption = (
            f"Gap over the null, mismatched {null_items([result])}, mean over language pairs; a dot marks a cell with "
            f"q of .05 or more; n = {spread(part['n'], 'd')}. A column that changes its sign says that the threshold "
            "decides."
        )
        shown = part[["group", "site", "layer", "threshold", *INTERVAL_COLUMNS]]
        chart = heat(shown, "layer", "threshold", "gap", column="group", row="site", around=0.0, faint="q")
        title = _title("by layer and threshold", result, mode, variant)
        found.append(Figure("thresholds by layer", mode, title, caption, chart, part))
    return found


def _pairs(table: pd.DataFrame) -> alt.TopLevelMixin:
    mirrored = table.rename(columns={"language_a": "language_b", "language_b": "language_a"})
    both = pd.concat([table, mirrored])
    languages = list(dict.fromkeys([*table["language_a"], *table["language_b"]]))
    cell = max(16, min(48, WIDTH // len(languages)))
    chart = (
        alt.Chart()
        .mark_rect()
        .encode(
            x=alt.X("language_a:N", title="language", sort=languages),
            y=alt.Y("language_b:N", title="language", sort=languages),
            color=alt.Color("gap:Q", scale=alt.Scale(scheme="viridis"), title="gap"),
            tooltip=_tips(table, "group", "site", "language_a", "language_b"),
        )
        .properties(width=alt.Step(cell), height=alt.Step(cell))
    )
    return faceted(chart, _rows(both, "group", "site", "language_a", "language_b"), "group", "site")


def _steps(table: pd.DataFrame) -> alt.TopLevelMixin:
    color = color_of(table, "group", "items")
    base = alt.Chart().encode(x=alt.X("step:Q", title="step"), color=color)
    chart = alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("gap_low:Q", title="gap over the null"), y2="gap_high:Q"),
        base.mark_line(point=True).encode(y="gap:Q", tooltip=_tips(table, "group", "site", "step")),
    ).properties(width=WIDTH, height=HEIGHT)
    return faceted(chart, _rows(table, "group", "site", "step"), "site")


def _rows(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    return table[[*columns, *INTERVAL_COLUMNS]]


def _tips(table: pd.DataFrame, *columns: str) -> list[Any]:
    return tips(table, *columns, *INTERVAL_COLUMNS)


def _title(what: str, result: Result, mode: str, variant: str) -> str:
    metric = result.name.removesuffix("_by_step")
    label = metric.upper() if len(metric) < 5 else metric[:1].upper() + metric[1:]
    return f"{label}, {variant.replace('_', ' ')}: {what}{', as published' if mode == 'paper' else ''}"
