"""Sections say of their tables what these hold: layers as layers, settings as settings."""

import json

import altair as alt
import numpy as np
import pandas as pd

from babelscope.reports import Source, stacked
from babelscope.reports.sections.behavior import section as behavior
from babelscope.reports.sections.heads import _maps
from babelscope.reports.sections.mixing import section as mixing
from babelscope.reports.sections.sanity import section as sanity
from babelscope.schema import Result
from tests.reports.test_figures import _rows

SUPPORTED = "supported"


def drawn(section, title: str, *results: Result):
    part = next(part for part in section.parts if part.title == title)
    return part.draw(Source(results))


def floor(**columns: object) -> pd.DataFrame:
    rows = [
        {"metric": "cs", "mode": "corrected", "variant": "raw", "group": "all", "site": site, "layer": layer,
         "head": head, "threshold": np.nan, "n": 20, "gap_random": 0.1, "gap_model": 0.2, "above_floor": 0.1,
         "low": 0.05, "high": 0.15, "q": 0.01, "verdict": SUPPORTED}
        for site in ("resid.post", "attn.mass") for layer in (None, 0, 1) for head in (None, 0, 1)
    ]  # fmt: skip
    table = pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})
    return table.assign(**columns)


def test_heads_are_no_layers_of_a_floor_and_sites_are_told_apart() -> None:
    (figure,) = drawn(sanity, "Random weights", Result("floor", floor(), {}))
    assert "resid.post: supported in 2 of 2 layers" in figure.answer
    assert "attn.mass: supported in 2 of 2 layers" in figure.answer
    assert len(_rows(figure.chart.to_dict())) == 2 * 2 * 2  # weights, sites, layers


def test_a_layer_that_random_weights_win_is_said_to_be_below() -> None:
    (figure,) = drawn(sanity, "Random weights", Result("floor", floor(above_floor=-0.1, low=-0.2, high=-0.05), {}))
    assert "supported in 2 of 2 layers, 2 of them below zero" in figure.answer


def test_each_paraphrase_has_a_panel_of_its_ceiling() -> None:
    table = pd.concat([floor(paraphrase=f"en-x-{k}", share=0.5).drop(columns=["mode"]) for k in "ab"])
    (figure,) = drawn(sanity, "Paraphrases", Result("ceiling", table, {}))
    spec = json.dumps(figure.chart.to_dict())
    assert '"row": {"field": "paraphrase"' in spec
    assert len(_rows(figure.chart.to_dict())) == 2 * 2 * 2


def test_trends_along_a_dial_are_said_with_their_slopes() -> None:
    curves = pd.DataFrame(
        {"dial": "depth", "value": [1, 2, 3], "language": "en", "source": "en", "n": 20, "accuracy": [0.9, 0.7, 0.5],
         "low": 0.4, "high": 1.0, "chance": 0.25, "xltr": np.nan, "xltr_low": np.nan, "xltr_high": np.nan,
         "null": np.nan}
    )  # fmt: skip
    trend = pd.DataFrame(
        [{"measure": "accuracy", "language": "en", "n": 60, "slope": -0.2, "low": -0.3, "high": -0.1, "null": 0.0,
          "q": 0.01, "verdict": SUPPORTED}]
    )  # fmt: skip
    (figure,) = drawn(behavior, "Along a dial", Result("curves", curves, {}), Result("trend", trend, {}))
    assert figure.answer == "-0.200 [-0.300, -0.100] (null 0.000, n = 60, q = 0.01), supported."


def test_a_barrier_of_the_published_definition_alone_has_no_figure() -> None:
    table = pd.DataFrame({"mode": ["paper"], "setting": ["gt"], "gap_en": [0.1], "n": [20]})
    assert drawn(mixing, "Barrier", Result("barrier", table, {})) == []


def test_stacked_figures_each_have_a_choice_of_their_own() -> None:
    profiles = pd.DataFrame(
        [{"group": group, "site": "attn.mass", "language": language, "feature": "first_token", "layer": 1, "head": head,
          "n": 20, "estimate": 0.1 * head, "low": 0.0, "high": 1.0, "null": 0.5}
         for group in ("a", "知识") for language in ("en", "de") for head in range(3)]
    )  # fmt: skip
    spec = stacked([Result("head_profiles_languages", profiles, {})]).to_dict()
    names = [param["name"] for param in spec["params"]]
    assert len(set(names)) == len(names) == 2
    for name, figure in zip(names, spec["vconcat"], strict=True):
        assert f"datum.place == {name}" in json.dumps(figure)


def test_a_click_in_a_stacked_figure_is_one_in_that_figure() -> None:
    pair = {"language_a": ["*", "en"], "language_b": ["*", "de"]}
    rows = pd.concat([
        pd.DataFrame({"metric": "m", "mode": "corrected", "variant": variant, "group": "all", "site": "attn.mass",
                      "layer": 0, "head": head, **pair, "threshold": np.nan, "n": 20, "matched": 0.5, "null": 0.4,
                      "gap": 0.1, "gap_low": 0.0, "gap_high": 0.2, "q": 0.01, "p_max": 0.1, "verdict": SUPPORTED})
        for variant in ("mass", "enriched") for head in range(2)
    ])  # fmt: skip
    drawn_heads = [f.chart.properties(title=f.title) for f in _maps(Result("attention-stability", rows, {}))]
    spec = alt.vconcat(*drawn_heads).to_dict()
    views = [tuple(param["views"]) for param in spec["params"]]
    assert len(set(views)) == len(views) == 2
