"""Figures of the tidy result tables: layer curves, threshold curves, language pairs, accuracy."""

from collections.abc import Iterable
from dataclasses import dataclass

import altair as alt
import pandas as pd

from babelscope.errors import BabelScopeError
from babelscope.schema import Result

WIDTH, HEIGHT = 250, 170

# Okabe-Ito: told apart with any color vision.
MATCHED, NULL, SHADE = "#0072B2", "#D55E00", "#56B4E9"
GROUPS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, and the sentences that say what it shows and how to read it."""

    key: str
    title: str
    caption: str
    chart: alt.TopLevelMixin


def figures(results: Iterable[Result]) -> list[Figure]:
    """Every figure that the tables allow, in reading order."""
    found: list[Figure] = []
    for result in results:
        if result.name == "accuracy":
            found.append(_accuracy(result.table))
        elif {"matched", "null", "layer", "threshold"} <= set(result.table.columns):
            found += _similarity_figures(result)
    order = ("accuracy", "layers", "threshold", "pairs")
    return sorted(found, key=lambda f: order.index(f.key.split("-")[0]))


def stacked(results: Iterable[Result]) -> alt.TopLevelMixin:
    """All figures one above the other, for notebooks."""
    charts = [f.chart.properties(title=f.title) for f in figures(results)]
    if not charts:
        raise BabelScopeError("these tables hold nothing to draw", "analyze with a metric, as cs or nao")
    return alt.vconcat(*charts).resolve_scale(color="independent")


def _similarity_figures(result: Result) -> list[Figure]:
    table = result.table
    joint = table[(table["language_a"] == "*") & table["layer"].notna()]
    found = []
    for (mode, variant), part in joint.groupby(["mode", "variant"], sort=False):
        at_default = _at_default_threshold(part)
        name = f"{result.name} {variant} ({mode})"
        if at_default["layer"].nunique() > 1:
            found.append(
                Figure(
                    f"layers-{result.name}-{mode}-{variant}",
                    f"Layer by layer: {name}",
                    f"Similarity of matched items (same question, two languages) against mismatched items. The shaded "
                    f"gap is what the shared question explains; {_interval(at_default)}. {_default_text(at_default)}",
                    _layer_curves(at_default),
                )
            )
    overall = table[(table["language_a"] == "*") & table["layer"].isna() & table["threshold"].notna()]
    for (mode, variant), part in overall.groupby(["mode", "variant"], sort=False):
        if part["threshold"].nunique() > 1:
            found.append(
                Figure(
                    f"threshold-{result.name}-{mode}-{variant}",
                    f"Against the threshold: {result.name} {variant} ({mode})",
                    f"Left: matched (solid, with interval) and null (dashed). Right: the gap between them; {_interval(part)}.",
                    _threshold_curves(part),
                )
            )
    pairs = table[(table["language_a"] != "*") & table["layer"].isna()]
    for (mode, variant), part in pairs.groupby(["mode", "variant"], sort=False):
        found.append(
            Figure(
                f"pairs-{result.name}-{mode}-{variant}",
                f"Language pairs: {result.name} {variant} ({mode})",
                "Gap over the null, mean over layers. Hover for interval, n and q.",
                _pair_heatmap(_at_default_threshold(part)),
            )
        )
    return found


def _layer_curves(table: pd.DataFrame) -> alt.TopLevelMixin:
    data = _plain(table)
    base = alt.Chart(data).encode(x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1)))
    tips = ["group", "layer", "matched", "null", "gap", "gap_low", "gap_high", "n", "q"]
    shade = base.mark_area(opacity=0.25, color=SHADE).encode(y=alt.Y("null:Q", title="similarity"), y2="matched:Q")
    band = base.mark_errorband(opacity=0.35, color=MATCHED).encode(
        y=alt.Y("matched_low:Q", title="similarity"), y2="matched_high:Q"
    )
    matched = base.mark_line(point=True, color=MATCHED).encode(y="matched:Q", tooltip=tips)
    null = base.mark_line(point=True, color=NULL, strokeDash=[4, 3]).encode(y="null:Q", tooltip=tips)
    layers = alt.layer(shade, band, null, matched).properties(width=WIDTH, height=HEIGHT)
    return layers.facet(column=alt.Column("group:N", title=None), row=alt.Row("site:N", title=None))


def _threshold_curves(table: pd.DataFrame) -> alt.TopLevelMixin:
    data = _plain(table)
    color = alt.Color("group:N", title=None, scale=alt.Scale(range=GROUPS))
    base = alt.Chart(data).encode(x=alt.X("threshold:Q", title="threshold on |activation|"), color=color)
    tips = ["group", "site", "threshold", "matched", "null", "gap", "gap_low", "gap_high", "n", "n_undefined"]
    levels = alt.layer(
        base.mark_errorband(opacity=0.25).encode(y=alt.Y("matched_low:Q", title="overlap"), y2="matched_high:Q"),
        base.mark_line(point=True).encode(y=alt.Y("matched:Q", title="overlap"), tooltip=tips),
        base.mark_line(strokeDash=[4, 3]).encode(y="null:Q", tooltip=tips),
    ).properties(width=WIDTH * 1.3, height=HEIGHT)
    gap = alt.layer(
        alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color="#888").encode(y="zero:Q"),
        base.mark_errorband(opacity=0.25).encode(y=alt.Y("gap_low:Q", title="gap over the null"), y2="gap_high:Q"),
        base.mark_line(point=True).encode(y=alt.Y("gap:Q", title="gap over the null"), tooltip=tips),
    ).properties(width=WIDTH * 1.3, height=HEIGHT)
    return alt.hconcat(levels, gap)


def _pair_heatmap(table: pd.DataFrame) -> alt.TopLevelMixin:
    data = _plain(table)
    mirrored = data.rename(columns={"language_a": "language_b", "language_b": "language_a"})
    both = pd.concat([data, mirrored[mirrored["language_a"] != mirrored["language_b"]]])
    tips = ["group", "language_a", "language_b", "gap", "gap_low", "gap_high", "n", "q"]
    return (
        alt.Chart(both)
        .mark_rect()
        .encode(
            x=alt.X("language_a:N", title=None),
            y=alt.Y("language_b:N", title=None),
            color=alt.Color("gap:Q", scale=alt.Scale(scheme="viridis"), title="gap"),
            tooltip=tips,
        )
        .properties(width=WIDTH * 1.1, height=WIDTH * 1.1)
        .facet(column=alt.Column("group:N", title=None), row=alt.Row("site:N", title=None))
    )


def _accuracy(table: pd.DataFrame) -> Figure:
    data = _plain(table)
    base = alt.Chart(data).encode(x=alt.X("language:N", title=None, sort=None))
    tips = ["task", "language", "accuracy", "low", "high", "n", "chance"]
    chart = (
        alt.layer(
            base.mark_tick(color=NULL, thickness=2).encode(y="chance:Q"),
            base.mark_rule(color=MATCHED).encode(y=alt.Y("low:Q", title="accuracy"), y2="high:Q"),
            base.mark_point(color=MATCHED, filled=True, size=40).encode(
                y=alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1])), tooltip=tips
            ),
        )
        .properties(width=WIDTH * 1.3, height=HEIGHT)
        .facet(column=alt.Column("task:N", title=None))
    )
    caption = "Share of items whose right option scores best, with Wilson 95 % interval; the bar marks chance."
    return Figure("accuracy", "What the model can do", caption, chart)


def _at_default_threshold(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one threshold: the paper's 0.4 where it was swept, else the middle of the grid."""
    values = sorted(table["threshold"].dropna().unique())
    if not values:
        return table
    chosen = min(values, key=lambda v: (abs(v - 0.4), v)) if values[0] <= 0.4 <= values[-1] else values[len(values) // 2]
    return table[table["threshold"] == chosen]


def _default_text(table: pd.DataFrame) -> str:
    values = table["threshold"].dropna().unique()
    return f"Threshold {values[0]:g}." if len(values) else ""


def _interval(table: pd.DataFrame) -> str:
    sizes = "-".join(str(n) for n in sorted({int(table["n"].min()), int(table["n"].max())}))
    level = "99" if (table["mode"] == "paper").all() else "95"
    return f"intervals are {level} % over items, n = {sizes}"


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    # Altair cannot serialize pandas' nullable integers.
    integers = {c: "float64" for c in table.columns if str(table[c].dtype) == "Int64"}
    return table.astype(integers)
