"""Figures hold exactly the rows of the tables."""

import altair as alt
import pandas as pd
import pytest

from babelscope.errors import BabelScopeError
from babelscope.reports import figures, headline, headline_text, stacked
from babelscope.reports.tables import as_html, at_one_threshold
from babelscope.schema import Result
from babelscope.workflows import Analysis, analyze
from tests.reports.conftest import FREE, KNOWLEDGE


def test_corrected_figures_come_before_published_ones(analysis: Analysis) -> None:
    drawn = figures(analysis.results)
    of_cs = [f for f in drawn if f.title.startswith("CS")]
    assert [f.kind for f in of_cs] == ["layers"] * 3 + ["pairs"] * 3 + ["layers"]
    assert [f.mode for f in of_cs] == ["corrected"] * 6 + ["paper"]
    of_nao = [f for f in drawn if f.title.startswith("NAO")]
    kinds = ["layers", "threshold", "thresholds by layer", "pairs"]
    assert [f.kind for f in of_nao if f.mode == "corrected"] == kinds
    assert [f.mode for f in of_nao] == ["corrected"] * 4 + ["paper"] * 4
    assert drawn == [*of_cs, *of_nao]


def test_layer_curves_hold_every_layer_of_every_group(analysis: Analysis) -> None:
    figure = next(f for f in figures(analysis.results) if f.title == "NAO, overlap: by layer")
    rows = _rows(figure.chart.to_dict())
    drawn = {str(r["group"]) for r in rows}
    assert drawn == {FREE, KNOWLEDGE.replace("\u2028", " ")}
    assert {(r["group"], r["layer"]) for r in rows} == {(group, layer) for group in drawn for layer in range(3)}
    table = analysis["nao"].table
    chosen = table[
        (table["variant"] == "overlap") & (table["language_a"] == "*") & table["layer"].eq(1)
        & table["group"].eq(KNOWLEDGE) & table["threshold"].eq(0.4)
    ]  # fmt: skip
    row = next(r for r in rows if r["group"] != FREE and r["layer"] == 1)
    assert row["matched"] == pytest.approx(chosen["matched"].item(), rel=1e-3)  # four digits are drawn
    assert "n = 8" in figure.caption


def test_overlaps_stand_beside_the_share_of_the_grid_on_which_their_conclusion_holds(analysis: Analysis) -> None:
    summary = analysis["sweep_summary"].table
    rows = headline(analysis.results)
    assert rows[rows["metric"] == "cs"]["stability"].isna().all()  # nothing to sweep
    of_overlap = rows[rows["metric"] == "nao"].set_index("group")["stability"]
    shares = summary[(summary["mode"] == "corrected") & summary["layer"].isna()].set_index("group")
    pd.testing.assert_series_equal(
        of_overlap, shares["conclusion_stability"], check_names=False, check_index_type=False
    )
    text = headline_text(analysis.results)
    assert text["stability"].tolist() == ["–" if pd.isna(v) else f"{v:.2f}" for v in rows["stability"]]
    captions = {f.title: f.caption for f in figures(analysis.results)}
    free, knowledge = (f"{of_overlap[name]:.0%} ({name})" for name in (FREE, KNOWLEDGE))
    assert f"on {free}, {knowledge} of the swept grid" in captions["NAO, overlap: against the threshold"]
    assert "of the swept grid" in captions["NAO, overlap: by layer"]
    assert "grid" not in captions["CS, raw: by layer"]


@pytest.mark.parametrize("n", [1, 2, 4, 5, 7, 8, 17, 40])
def test_each_group_has_a_color_of_its_own(analysis: Analysis, n: int) -> None:
    table = analysis["nao"].table
    one = table[table["group"] == FREE]
    many = pd.concat([one.assign(group=f"rule {k}") for k in range(n)])
    drawn = next(f for f in figures([Result("nao", many, {})]) if f.kind == "threshold").chart.to_dict()
    color = drawn["hconcat"][0]["layer"][0]["encoding"]["color"]
    assert color["sort"] == [f"rule {k}" for k in range(n)]
    assert len(set(color["scale"]["range"])) == len(color["scale"]["range"]) == n


def test_undefined_values_are_gaps_in_a_curve_not_zeros(analysis: Analysis) -> None:
    table = analysis["nao"].table.copy()
    table.loc[table["threshold"] > 0.5, ["matched", "null", "gap"]] = float("nan")
    drawn = figures([Result("nao", table, {})])
    rows = _rows(next(f for f in drawn if f.kind == "threshold").chart.to_dict())
    assert {r["matched"] for r in rows if r["threshold"] > 0.5} == {None}
    assert "undefined" in as_html(table)


def test_a_notebook_gets_all_figures_in_one(analysis: Analysis) -> None:
    assert isinstance(stacked(analysis.results), alt.VConcatChart)
    stacked(analysis.results).to_dict()
    with pytest.raises(BabelScopeError, match="nothing to draw"):
        stacked([])


@pytest.mark.parametrize(("grid", "chosen"), [((0.1, 0.4, 0.9), 0.4), ((0.3, 0.6), 0.3), ((1.0, 2.0, 3.0), 2.0)])
def test_the_shown_threshold_is_the_papers_where_the_grid_spans_it(grid: tuple[float, ...], chosen: float) -> None:
    table = pd.DataFrame({"threshold": [float("nan"), *grid]})
    assert at_one_threshold(table)["threshold"].dropna().tolist() == [chosen]


def test_the_headline_ends_with_the_contrast_of_groups(analysis: Analysis) -> None:
    rows = headline(analysis.results)
    contrast = analysis["contrast"].table
    expected = contrast[(contrast["metric"] == "cs") & (contrast["variant"] == "raw") & contrast["layer"].isna()]
    found = rows[(rows["group"] == f"{FREE} - {KNOWLEDGE}") & (rows["variant"] == "raw")]
    assert found["gap"].item() == expected[expected["mode"] == "corrected"]["estimate"].item()
    text = headline_text(analysis.results)
    assert text["matched"].iloc[-1] == "–"
    assert "undefined" not in text.to_string()
    assert headline_text([]).empty


def test_the_headline_holds_every_variant_where_several_grids_were_swept(analysis: Analysis) -> None:
    grids = {"threshold": (0.2, 0.4), "top": (0.1, 0.3), "quantile": (0.8, 0.9)}
    rows = analyze(analysis.store, "nao", sweep=grids, mode="corrected").headline()
    for group in (FREE, KNOWLEDGE, f"{FREE} - {KNOWLEDGE}"):
        assert set(rows[rows["group"] == group]["variant"]) == {"overlap", "overlap_top", "overlap_quantile"}


def _rows(spec: dict[str, object]) -> list[dict[str, object]]:
    """The inline data of a chart, wherever it stands."""
    if isinstance(spec.get("data"), dict) and "values" in spec["data"]:
        return spec["data"]["values"]
    if "datasets" in spec:
        return next(iter(spec["datasets"].values()))
    for part in ("hconcat", "vconcat", "layer"):
        for child in spec.get(part, []):
            if found := _rows(child):
                return found
    return _rows(spec["spec"]) if "spec" in spec else []
