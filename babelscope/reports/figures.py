"""Figures of the tidy result tables: accuracy, layer curves, threshold curves, language pairs."""

import colorsys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import altair as alt
import pandas as pd

from babelscope.errors import BabelScopeError
from babelscope.reports.captions import intervals, null_items, spread, stability, threshold_of
from babelscope.reports.tables import at_one_threshold, by_layer, by_pair, overall
from babelscope.schema import Result

WIDTH, HEIGHT = 300, 190

# Okabe-Ito: told apart with any color vision.
MATCHED, NULL, GREY = "#0072B2", "#D55E00", "#999999"
GROUPS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]

# Vega writes names of groups into expressions, where these two end a line and so break it.
SEPARATORS = {0x2028: " ", 0x2029: " "}

TEXT_COLUMNS = ("group", "site", "language_a", "language_b", "verdict", "task", "language")
INTERVAL_COLUMNS = ("n", "n_undefined", "matched", "null", "gap", "gap_low", "gap_high", "q", "stability", "verdict")


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, and the sentences that say what it shows and how to read it."""

    kind: str
    mode: str
    title: str
    caption: str
    chart: alt.TopLevelMixin


def figures(results: Iterable[Result]) -> list[Figure]:
    """Every figure that the tables allow: accuracy, then the corrected ones, then the published definitions."""
    found: list[Figure] = []
    for result in results:
        if {"step", "gap_low"} <= set(result.table.columns):
            found += _step_figures(result)
        elif result.name == "accuracy":
            found.append(_accuracy(result.table))
        elif {"matched", "null", "layer", "threshold", "language_a"} <= set(result.table.columns):
            found += _layer_figures(result) + _threshold_figures(result) + _pair_figures(result)
    kinds = ("accuracy", "steps", "layers", "threshold", "pairs")
    return sorted(found, key=lambda f: (f.mode == "paper", kinds.index(f.kind)))


def stacked(results: Iterable[Result]) -> alt.TopLevelMixin:
    """All figures one above the other, for notebooks."""
    charts: list[Any] = [cast(Any, f.chart).properties(title=f.title) for f in figures(results)]
    if not charts:
        raise BabelScopeError("these tables hold nothing to draw", "analyze with a metric, as cs or nao")
    chart: alt.TopLevelMixin = alt.vconcat(*charts).resolve_scale(color="independent", strokeDash="independent")
    return chart


def _variants(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for (mode, variant), part in table.groupby(["mode", "variant"], sort=False):
        yield str(mode), str(variant), part


def _layer_figures(result: Result) -> list[Figure]:
    found = []
    for mode, variant, part in _variants(by_layer(result.table)):
        if part["layer"].nunique() > 1:
            caption = (
                f"Similarity of matched items (one question, two languages) beside its null, mismatched "
                f"{null_items([result])}; {intervals(part)}. The shaded gap is what tells such items apart."
                f"{threshold_of(part)}{stability(part)}"
            )
            found.append(Figure("layers", mode, _title("by layer", result, mode, variant), caption, _layers(part)))
    return found


def _threshold_figures(result: Result) -> list[Figure]:
    found = []
    for mode, variant, part in _variants(overall(result.table)):
        if part["threshold"].nunique() > 1:
            caption = (
                "Mean over layers and language pairs at every threshold. Left: matched (solid) and null (dashed), "
                f"mismatched {null_items([result])}. Right: the gap between them; {intervals(part)}.{stability(part)}"
            )
            title = _title("against the threshold", result, mode, variant)
            found.append(Figure("threshold", mode, title, caption, _thresholds(part)))
    return found


def _pair_figures(result: Result) -> list[Figure]:
    found = []
    for mode, variant, part in _variants(by_pair(result.table)):
        if len(part[["language_a", "language_b"]].drop_duplicates()) > 1:
            caption = (
                f"Gap over the null, mismatched {null_items([result])}; mean over layers.{threshold_of(part)} "
                f"Point at a cell for interval, n and q.{stability(part)}"
            )
            title = _title("by language pair", result, mode, variant)
            found.append(Figure("pairs", mode, title, caption, _pairs(part)))
    return found


def _step_figures(result: Result) -> list[Figure]:
    found = []
    for mode, variant, whole in _variants(result.table):
        part = at_one_threshold(whole)
        caption = (
            f"Gap over the null of each step, mismatched {null_items([result])}; mean over layers and language pairs; "
            f"{intervals(part)}. Step 0 is the model before its training.{threshold_of(part)}"
        )
        title = _title("while it was trained", result, mode, variant)
        found.append(Figure("steps", mode, title, caption, _steps(part)))
    return found


def _steps(table: pd.DataFrame) -> alt.TopLevelMixin:
    color = alt.Color("group:N", title="items", sort=_groups(table), scale=alt.Scale(range=_colors(table)))
    base = alt.Chart(_rows(table, "group", "site", "step")).encode(x=alt.X("step:Q", title="step"), color=color)
    chart = alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("gap_low:Q", title="gap over the null"), y2="gap_high:Q"),
        base.mark_line(point=True).encode(y="gap:Q", tooltip=_tips("group", "site", "step")),
    ).properties(width=WIDTH, height=HEIGHT)
    faceted: alt.TopLevelMixin = chart.facet(column=alt.Column("site:N", title=None))
    return faceted


def _layers(table: pd.DataFrame) -> alt.TopLevelMixin:
    base = alt.Chart(_rows(table, "group", "site", "layer", "matched_low", "matched_high")).encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d"))
    )
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
            tooltip=_tips("group", "site", "layer"),
        )
    )
    layered = alt.layer(shade, band, lines).properties(width=WIDTH, height=HEIGHT)
    return _faceted(layered, table)


def _thresholds(table: pd.DataFrame) -> alt.TopLevelMixin:
    data = _rows(table, "group", "site", "threshold", "matched_low", "matched_high")
    color = alt.Color("group:N", title="items", sort=_groups(table), scale=alt.Scale(range=_colors(table)))
    base = alt.Chart(data).encode(x=alt.X("threshold:Q", title="threshold"), color=color)
    tips = _tips("group", "site", "threshold")
    size = {"width": WIDTH * 1.1, "height": HEIGHT}
    levels = alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("matched_low:Q", title="overlap"), y2="matched_high:Q"),
        base.mark_line(point=True).encode(y="matched:Q", tooltip=tips),
        base.mark_line(strokeDash=[5, 3]).encode(y="null:Q", tooltip=tips),
    ).properties(**size)
    gap = alt.layer(
        base.mark_rule(color=GREY).encode(y=alt.datum(0), color=alt.value(GREY), x=alt.value(0), x2=alt.value("width")),
        base.mark_area(opacity=0.2).encode(y=alt.Y("gap_low:Q", title="gap over the null"), y2="gap_high:Q"),
        base.mark_line(point=True).encode(y="gap:Q", tooltip=tips),
    ).properties(**size)
    rows = [
        alt.hconcat(
            levels.transform_filter(alt.datum.site == site), gap.transform_filter(alt.datum.site == site)
        ).properties(title=site)
        for site in dict.fromkeys(table["site"])
    ]
    return rows[0] if len(rows) == 1 else alt.vconcat(*rows)


def _pairs(table: pd.DataFrame) -> alt.TopLevelMixin:
    mirrored = table.rename(columns={"language_a": "language_b", "language_b": "language_a"})
    both = pd.concat([table, mirrored])
    languages = list(dict.fromkeys([*table["language_a"], *table["language_b"]]))
    cell = max(16, min(48, WIDTH // len(languages)))
    heat = (
        alt.Chart(_rows(both, "group", "site", "language_a", "language_b"))
        .mark_rect()
        .encode(
            x=alt.X("language_a:N", title="language", sort=languages),
            y=alt.Y("language_b:N", title="language", sort=languages),
            color=alt.Color("gap:Q", scale=alt.Scale(scheme="viridis"), title="gap"),
            tooltip=_tips("group", "site", "language_a", "language_b"),
        )
        .properties(width=alt.Step(cell), height=alt.Step(cell))
    )
    return _faceted(heat, table)


def _accuracy(table: pd.DataFrame) -> Figure:
    base = alt.Chart(_data(table)).encode(x=alt.X("language:N", title="language", sort=None))
    y = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]))
    chart = (
        alt.layer(
            base.mark_tick(color=NULL, thickness=2, width=14).encode(y="chance:Q"),
            base.mark_rule(color=MATCHED).encode(y=alt.Y("low:Q", title="accuracy"), y2="high:Q"),
            base.mark_point(color=MATCHED, filled=True, opacity=1, size=45).encode(
                y=y, tooltip=_tooltip("task", "language", "accuracy", "low", "high", "n", "chance")
            ),
        )
        .properties(width=alt.Step(24), height=HEIGHT)
        .facet(column=alt.Column("task:N", title=None, sort=list(dict.fromkeys(table["task"]))))
    )
    caption = (
        f"Share of items whose right option scores best, with its Wilson 95 % interval, n = {spread(table['n'], 'd')} "
        "for each point; the tick marks chance."
    )
    return Figure("accuracy", "corrected", "What the model can do", caption, chart)


def _faceted(chart: Any, table: pd.DataFrame) -> alt.TopLevelMixin:
    """Groups side by side and sites below each other, on common scales."""
    faceted: alt.TopLevelMixin = chart.facet(
        column=alt.Column("group:N", title=None, sort=_groups(table), header=alt.Header(labelFontWeight="bold")),
        row=alt.Row("site:N", title=None),
    )
    return faceted


def _groups(table: pd.DataFrame) -> list[str]:
    return [str(_plain(group)) for group in dict.fromkeys(table["group"].astype(str))]


def _colors(table: pd.DataFrame) -> list[str]:
    """One color for each group: Vega begins again where a range is too short."""
    n = len(_groups(table))
    if n <= len(GROUPS):
        return GROUPS[:n]
    # Neighbors differ in hue and in lightness, which is left to whoever cannot see the hue.
    shades = (colorsys.hls_to_rgb(k / n, (0.3, 0.5, 0.7)[k % 3], 0.75) for k in range(n))
    return ["#" + "".join(f"{round(255 * part):02X}" for part in shade) for shade in shades]


def _rows(table: pd.DataFrame, *columns: str) -> alt.InlineData:
    return _data(table[[*columns, *INTERVAL_COLUMNS]])


def _data(table: pd.DataFrame) -> alt.InlineData:
    """Rows as plain JSON values; four digits are more than a picture shows. Altair's row limit is for notebooks."""
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return alt.InlineData(values=[{str(name): _plain(value) for name, value in r.items()} for r in records])


def _plain(value: object) -> object:
    if isinstance(value, str):
        return value.translate(SEPARATORS)
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _tips(*columns: str) -> list[alt.Tooltip]:
    return _tooltip(*columns, *INTERVAL_COLUMNS)


def _tooltip(*columns: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{c}:{'N' if c in TEXT_COLUMNS else 'Q'}") for c in columns]


def _title(what: str, result: Result, mode: str, variant: str) -> str:
    name = f"{result.name.removesuffix('_by_step').upper()}, {variant.replace('_', ' ')}"
    return f"{name}: {what}{', as published' if mode == 'paper' else ''}"
