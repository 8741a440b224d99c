"""Panels stand under their own headings, and colors say what their caption says."""

import altair as alt
import pandas as pd

from babelscope.reports.charts import curves, data, forest, heat


def cells(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([
        {"group": a, "site": b, "layer": layer, "score": 0.1 * layer, "low": 0.0, "high": 1.0, "null": 0.0, "who": "x",
         "q": 0.2 * layer, "verdict": "supported"}
        for a, b in pairs for layer in range(2)
    ])  # fmt: skip


def test_a_full_grid_of_panels_is_one_chart_with_two_headings() -> None:
    table = cells(("a", "s"), ("a", "t"), ("b", "s"), ("b", "t"))
    spec = curves(table, "layer", "score", color="who", column="group", row="site").to_dict()
    assert set(spec["facet"]) == {"column", "row"}


def test_where_a_panel_is_missing_each_row_is_a_chart_of_its_own() -> None:
    # Vega sorts what is missing to the front of its row and moves the others under wrong headings.
    table = cells(("a", "s"), ("b", "s"), ("b", "t"))
    spec = curves(table, "layer", "score", color="who", column="group", row="site").to_dict()
    titles = [part["title"] for part in spec["vconcat"]]
    headings = [part["facet"]["column"]["sort"] for part in spec["vconcat"]]
    assert dict(zip(titles, headings, strict=True)) == {"s": ["a", "b"], "t": ["b"]}
    assert all("row" not in part["facet"] for part in spec["vconcat"])


def test_what_does_not_vary_has_no_heading() -> None:
    assert "facet" not in curves(cells(("a", "s")), "layer", "score", color="who", column="group", row="site").to_dict()


def test_a_map_around_zero_is_even_on_both_sides() -> None:
    spec = heat(cells(("a", "s")), "layer", "group", "score", around=0.0).to_dict()
    assert spec["encoding"]["color"]["scale"]["domain"] == [-0.1, 0.1]


def test_cells_that_are_not_established_are_dotted() -> None:
    spec = heat(cells(("a", "s")), "layer", "group", "score", faint="q").to_dict()
    dots = spec["layer"][1]
    assert dots["mark"]["type"] == "point"
    assert dots["transform"] == [{"filter": "!isValid(datum['q']) || datum['q'] >= 0.05"}]


def test_each_verdict_has_its_own_color_and_an_unknown_one_is_gray() -> None:
    table = cells(("a", "s")).assign(verdict=["supported", "odd"], what=["one", "two"])
    spec = forest(table, "what", "score").to_dict()
    scale = spec["layer"][1]["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == {"supported": "#0072B2", "odd": "#999999"}


def test_undefined_numbers_become_null() -> None:
    values = data(pd.DataFrame({"x": [1.0, float("nan")], "t": ["a\u2028b", "c"]})).to_dict()["values"]
    assert values == [{"x": 1.0, "t": "a b"}, {"x": None, "t": "c"}]
    assert isinstance(data(pd.DataFrame({"x": []})), alt.InlineData)


def test_counts_are_drawn_whole_and_what_is_not_finite_is_null() -> None:
    table = pd.DataFrame({"step": [123456.0, 0.123456], "gap": [float("inf"), 0.5]})
    assert data(table).to_dict()["values"] == [{"step": 123456.0, "gap": None}, {"step": 0.1235, "gap": 0.5}]


def test_a_map_of_nothing_has_a_scale() -> None:
    table = cells(("a", "s")).assign(score=float("nan"))
    spec = heat(table, "layer", "group", "score", around=0.0).to_dict()
    assert spec["encoding"]["color"]["scale"]["domain"] == [-1.0, 1.0]
