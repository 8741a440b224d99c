"""Parts that figures are drawn of: colors, rows as JSON, curves beside their null, maps, intervals in a row."""

import colorsys
import math
import zlib
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

WIDTH, HEIGHT = 300, 190

# Okabe-Ito without its black and yellow, which are lost on a dark or a light page.
MATCHED, NULL, GREY = "#0072B2", "#D55E00", "#999999"
GROUPS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31"]
VERDICTS = {
    "supported": MATCHED,
    "not distinguishable from the null": GREY,
    "depends on the threshold": "#E69F00",
    "explained by template or letter": "#CC79A7",
    "not testable with this data": "#C7C7C7",
}

# Vega writes names of groups into expressions, where these two end a line and so break it.
SEPARATORS = {0x2028: " ", 0x2029: " "}

# Below this a cell or a point counts as established, after correction.
ALPHA = 0.05


def data(table: pd.DataFrame) -> alt.InlineData:
    """Rows as plain JSON values; four digits are more than a picture shows. Altair's row limit is for notebooks."""
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return alt.InlineData(values=[{str(name): plain(value) for name, value in r.items()} for r in records])


def plain(value: object) -> object:
    """A value as JSON can hold it."""
    if isinstance(value, str):
        return value.translate(SEPARATORS)
    if isinstance(value, float):
        return None if not math.isfinite(value) else value if value.is_integer() else float(f"{value:.4g}")
    return value


def kind(table: pd.DataFrame, column: str) -> str:
    """A column's type in a chart: names or quantities."""
    return "Q" if pd.api.types.is_numeric_dtype(table[column]) and table[column].dtype != bool else "N"


def tips(table: pd.DataFrame, *columns: str) -> list[alt.Tooltip]:
    """What a point says when it is pointed at; columns that are empty here say nothing."""
    shown = [c for c in columns or map(str, table.columns) if c in table and table[c].notna().any()]
    return [alt.Tooltip(f"{name_of(c)}:{kind(table, c)}", title=c.replace("_", " ")) for c in shown]


def name_of(column: str) -> str:
    """A column as charts write it: a colon would begin its type."""
    return column.replace(":", "\\:")


def param_name(title: str) -> str:
    """What a figure calls that which a reader chooses in it: a notebook stacks figures, and one name is one choice."""
    return f"chosen_{zlib.crc32(title.encode('utf-8', 'backslashreplace')):08x}"


def menu(title: str, label: str, options: Sequence[Any], chosen: Any) -> alt.Parameter:
    """A menu below a figure of that title."""
    bind = alt.binding_select(options=list(options), name=f"{label} ")
    return alt.param(param_name(title), value=chosen, bind=bind)


def values(table: pd.DataFrame, column: str) -> list[str]:
    """Names in a column, each once, in the order of the rows."""
    return [str(plain(v)) for v in dict.fromkeys(table[column].astype(str))]


def colors(n: int) -> list[str]:
    """A color for each of n groups: Vega begins again where a range is too short."""
    if n <= len(GROUPS):
        return GROUPS[:n]
    # Neighbors differ in hue and in lightness, which is left to whoever cannot see the hue.
    shades = (colorsys.hls_to_rgb(k / n, (0.3, 0.5, 0.7)[k % 3], 0.75) for k in range(n))
    return ["#" + "".join(f"{round(255 * part):02X}" for part in shade) for shade in shades]


def color_of(table: pd.DataFrame, column: str, title: str | None = None) -> alt.Color:
    """A color for each name in a column."""
    names = values(table, column)
    return alt.Color(
        f"{name_of(column)}:N",
        title=title or column.replace("_", " "),
        sort=names,
        scale=alt.Scale(range=colors(len(names))),
        legend=alt.Legend(labelLimit=320),
    )


def faceted(chart: Any, table: pd.DataFrame, column: str = "", row: str = "") -> alt.TopLevelMixin:
    """Small multiples on common scales, for the columns of the table that hold more than one value.

    Where a row lacks a column the rows are charts of their own: Vega would put what is there below the wrong heading.

    Parameters
    ----------
    chart : altair chart
        Without data.
    table : DataFrame
        Its data.
    column, row : str
        Columns of names; "" for none.
    """
    across, down = (name if name and table[name].nunique() > 1 else "" for name in (column, row))
    if (
        across
        and down
        and len(table[[across, down]].drop_duplicates()) < table[across].nunique() * table[down].nunique()
    ):
        rows = [
            _faceted(chart, part, across, "").properties(title=str(plain(str(value))))
            for value, part in table.groupby(down, sort=False)
        ]
        stacked: alt.TopLevelMixin = alt.vconcat(*rows).resolve_scale(x="shared", y="shared")
        return stacked
    found: alt.TopLevelMixin = _faceted(chart, table, across, down)
    return found


def _faceted(chart: Any, table: pd.DataFrame, across: str, down: str) -> Any:
    places: dict[str, Any] = {}
    if across:
        header = alt.Header(labelFontWeight="bold")
        places["column"] = alt.Column(f"{name_of(across)}:N", title=None, sort=values(table, across), header=header)
    if down:
        places["row"] = alt.Row(f"{name_of(down)}:N", title=None, sort=values(table, down))
    filled = chart.properties(data=data(table))
    return filled.facet(**places) if places else filled


def curves(
    table: pd.DataFrame,
    x: str,
    y: str,
    *,
    color: str,
    band: tuple[str, str] | None = ("low", "high"),
    null: str | None = "null",
    title: str | None = None,
    column: str = "",
    row: str = "",
    zero: bool = False,
) -> alt.TopLevelMixin:
    """Lines with their intervals as bands, each beside its null, dashed in the same color.

    Parameters
    ----------
    table : DataFrame
        One row a point. NaN leaves a gap in a line.
    x, y : str
        Columns of numbers.
    color, column, row : str
        Columns of names: of lines, and of small multiples where they vary.
    band, null : optional
        Columns of the interval and of the null.
    title : str, optional
        Of the vertical axis.
    zero : bool
        Whether the axis must reach zero.
    """
    whole = pd.api.types.is_integer_dtype(table[x])
    axis = alt.Axis(tickMinStep=1, format="d") if whole else alt.Axis()
    base = alt.Chart().encode(x=alt.X(f"{x}:Q", title=x, axis=axis), color=color_of(table, color))
    vertical = alt.Y(f"{y}:Q", title=title or y, scale=alt.Scale(zero=zero))
    parts: list[Any] = []
    if band is not None:
        parts.append(base.mark_area(opacity=0.18).encode(y=alt.Y(f"{band[0]}:Q", title=title or y), y2=f"{band[1]}:Q"))
    if null is not None:
        parts.append(base.mark_line(strokeDash=[5, 3], opacity=0.8).encode(y=f"{null}:Q"))
    parts.append(base.mark_line(point=True).encode(y=vertical, tooltip=tips(table)))
    layered = alt.layer(*parts).properties(width=WIDTH, height=HEIGHT)
    return faceted(layered, table, column, row)


def heat(
    table: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    *,
    title: str | None = None,
    column: str = "",
    row: str = "",
    around: float | None = None,
    faint: str | None = None,
    order: Sequence[str] = (),
    picked: alt.Parameter | None = None,
) -> alt.TopLevelMixin:
    """A map of cells.

    Parameters
    ----------
    table : DataFrame
        One row a cell; tooltips hold all of its columns.
    x, y, value : str
    title : str, optional
        Of the color.
    column, row : str
        Columns of names of small multiples.
    around : float, optional
        Value that is neither red nor blue; without it colors go from low to high.
    faint : str, optional
        Column of corrected p-values: a cell at `ALPHA` or above is marked with a dot.
    order : sequence of str
        Names along both axes. Default: in the order of the rows.
    picked : altair parameter, optional
        What a click on a cell sets; with `faint` alone.
    """
    scale = alt.Scale(scheme="viridis")
    if around is not None:
        distances = (table[value] - around).abs()
        reach = float(distances[distances < math.inf].max() or 1.0) if (distances < math.inf).any() else 1.0
        scale = alt.Scale(scheme="redblue", domain=[around - reach, around + reach])
    across, down = (_discrete(table, c, order) for c in (x, y))
    n = max(table[x].nunique(), table[y].nunique())
    cell = max(14, min(40, 2 * WIDTH // max(n, 1)))
    base = alt.Chart().encode(
        x=alt.X(across[0], title=x.replace("_", " "), sort=across[1]),
        y=alt.Y(down[0], title=y.replace("_", " "), sort=down[1]),
    )
    cells: Any = base.mark_rect().encode(
        color=alt.Color(f"{value}:Q", scale=scale, title=title or value), tooltip=tips(table)
    )
    if faint is not None:
        dots = base.mark_point(filled=True, size=12, color="white", stroke="black", strokeWidth=0.5)
        weak = f"!isValid(datum['{faint}']) || datum['{faint}'] >= {ALPHA}"
        # What is on top is what a click meets, and a dot is no cell.
        cover = base.mark_rect(opacity=0).encode(tooltip=tips(table))
        if picked is not None:
            # Covers of stacked figures are alike but for this name, by which a click finds its figure.
            cover = cover.add_params(picked).properties(name=f"view_{picked.name}")
        cells = alt.layer(cells, dots.transform_filter(weak), cover)
    return faceted(cells.properties(width=alt.Step(cell), height=alt.Step(cell)), table, column, row)


def _discrete(table: pd.DataFrame, column: str, order: Sequence[str]) -> tuple[str, Any]:
    if kind(table, column) == "Q":
        return f"{column}:O", "ascending"
    return f"{column}:N", list(order) or values(table, column)


def forest(
    table: pd.DataFrame,
    label: str,
    value: str,
    *,
    band: tuple[str, str] = ("low", "high"),
    null: str = "null",
    color: str = "verdict",
    title: str | None = None,
    column: str = "",
    row: str = "",
) -> alt.TopLevelMixin:
    """A point and its interval in each row, beside a tick for the null.

    `color` is a column of names; verdicts have colors of their own.
    """
    names = values(table, label)
    base = alt.Chart().encode(
        y=alt.Y(f"{label}:N", title=None, sort=names, axis=alt.Axis(labelLimit=420, orient="left"))
    )
    shade = _verdict_color(table) if color == "verdict" else color_of(table, color)
    x = alt.X(f"{value}:Q", title=title or value, scale=alt.Scale(zero=False))
    layered = alt.layer(
        base.mark_tick(color=NULL, thickness=2, height=12).encode(x=alt.X(f"{null}:Q", title=title or value)),
        base.mark_rule(strokeWidth=2).encode(x=f"{band[0]}:Q", x2=f"{band[1]}:Q", color=shade),
        base.mark_point(filled=True, size=55, opacity=1).encode(x=x, color=shade, tooltip=tips(table)),
    ).properties(width=WIDTH, height=alt.Step(17))
    return faceted(layered, table, column, row)


def _verdict_color(table: pd.DataFrame) -> alt.Color:
    found = [v for v in VERDICTS if v in set(table["verdict"])] + [
        v for v in values(table, "verdict") if v not in VERDICTS
    ]
    scale = alt.Scale(domain=found, range=[VERDICTS.get(v, GREY) for v in found])
    return alt.Color("verdict:N", title=None, scale=scale, legend=alt.Legend(labelLimit=260))


def side_by_side(charts: Sequence[Any]) -> alt.TopLevelMixin:
    """Charts in a row, each with colors of its own."""
    joined: alt.TopLevelMixin = alt.hconcat(*charts).resolve_scale(color="independent")
    return joined
