"""Curves along a dial, and their slopes, against counts by hand, slow references and planted truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from babelscope import workflows
from babelscope.analyses.behavior.curves import curves
from babelscope.analyses.behavior.transfer import transfer
from babelscope.analyses.behavior.trend import _monotonicity, dial_draws, slope_cells, trend, weighted_slope
from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, SUPPORTED
from babelscope.errors import BabelScopeError
from tests.analyses.test_transfer import store_of


def dialed(n, values=(0, 1, 2), *, linked=False):
    """Covariates of n items that take turns over the values of a dial."""
    k = len(values)
    return [{"task": "t", "depth": values[i % k], **({"question": f"q{i // k}"} if linked else {})} for i in range(n)]


def test_a_row_for_every_value_and_language(tmp_path):
    right = {"en": [1, 1, 0, 1, 1, 0], "de": [1, 0, 0, 1, 1, 1]}
    store = store_of(tmp_path, right, dialed(6))
    table = curves(store, "depth", n_boot=50).table
    assert table[["value", "language"]].to_numpy().tolist() == [
        [v, g] for v in (0, 1, 2) for g in ("en", "de")
    ]  # fmt: skip
    cells = table.set_index(["language", "value"])
    assert cells.loc["de", "accuracy"].tolist() == [1, 0.5, 0.5]
    assert cells.loc["en", "accuracy"].tolist() == [1, 1, 0]
    assert cells.loc["en", "xltr"].isna().all()
    moved = transfer(store, by="depth", mode="corrected", n_boot=50).table.set_index("group")
    assert cells.loc[("de", 1), "xltr"] == moved.loc["1", "xltr"] == (1 / 2 - 0.5) / 0.5
    assert np.isnan(cells.loc[("de", 2), "xltr"])  # nothing right in the source: undefined, not 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=3, max_size=30))
def test_the_weighted_slope_is_that_of_least_squares_over_items(items):
    x, y = np.array(items, float).T
    levels = np.unique(x)
    n = np.array([[np.sum(x == v)] for v in levels], float)
    means = np.array([[y[x == v].mean()] for v in levels])
    found = weighted_slope(levels, means, n)[0]
    if len(levels) < 3:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-9)


def test_the_slope_of_excess_is_that_of_the_curve(tmp_path):
    rng = np.random.default_rng(0)
    right = {"en": (rng.random(90) < 0.8).astype(int), "de": (rng.random(90) < 0.5).astype(int)}
    store = store_of(tmp_path, right, dialed(90))
    along = curves(store, "depth", n_boot=20).table.set_index("language").loc["de"]
    table = trend(store, "depth", n_boot=20, n_perm=20).table.set_index(["measure", "language"])
    assert table.loc[("excess", "de"), "slope"] == pytest.approx(np.polyfit([0, 1, 2], along["excess"], 1)[0])
    assert table.loc[("accuracy", "de"), "slope"] == pytest.approx(np.polyfit([0, 1, 2], along["accuracy"], 1)[0])
    assert ("excess", "en") not in table.index


@pytest.mark.parametrize("linked", [False, True])
def test_a_planted_slope_is_found_and_a_flat_language_is_not(tmp_path, linked):
    rng = np.random.default_rng(5)
    n = 240
    depth = np.arange(n) % 3
    right = {"en": rng.random(n) < 0.9 - 0.2 * depth, "de": rng.random(n) < 0.6}
    store = store_of(tmp_path, {g: x.astype(int) for g, x in right.items()}, dialed(n, linked=linked))
    found = trend(store, "depth", n_boot=500, n_perm=500)
    table = found.table.set_index(["measure", "language"])
    assert found.provenance["linked"] == linked
    assert table.loc[("accuracy", "en"), "verdict"] == SUPPORTED
    assert table.loc[("accuracy", "en"), "low"] < -0.2 < table.loc[("accuracy", "en"), "high"]
    assert table.loc[("accuracy", "en"), ["spearman", "spearman_low", "spearman_high"]].tolist() == [-1, -1, -1]
    flat = table.loc[("accuracy", "de")]
    assert flat["spearman_low"] < flat["spearman_high"]
    assert table.loc[("accuracy", "de"), "verdict"] == NOT_DISTINGUISHABLE
    assert table.loc[("accuracy", "de"), "n_questions"] == (n // 3 if linked else n)


def test_linked_questions_are_compared_with_themselves(tmp_path):
    """Questions differ far more than the dial moves them: only within a question is the change sure."""
    rng = np.random.default_rng(2)
    easy = rng.random(60) < 0.5
    right = np.repeat(easy, 3).astype(int)
    # Of the hard questions, a fifth is solved at the highest value.
    right[2::3] |= (rng.random(60) < 0.25).astype(int)
    answers = {"en": right, "de": right}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    linked = trend(store_of(tmp_path / "a", answers, dialed(180, linked=True)), "depth", n_boot=500, n_perm=500).table
    apart = trend(store_of(tmp_path / "b", answers, dialed(180)), "depth", n_boot=500, n_perm=500).table
    assert linked.loc[0, "slope"] == pytest.approx(apart.loc[0, "slope"])
    assert linked.loc[0, "p"] < 0.01 < apart.loc[0, "p"]
    assert linked.loc[0, "high"] - linked.loc[0, "low"] < apart.loc[0, "high"] - apart.loc[0, "low"]


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("measure", ["accuracy", "excess"])
def test_a_flat_curve_is_called_a_slope_as_often_as_alpha_says(linked, measure):
    hits, trials, n = 0, 200, 90
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        easy = np.repeat(rng.random(n // 3), 3)
        right, source = ((rng.random(n) < easy).astype(float) for _ in range(2))
        blocks = np.arange(n) // 3 if linked else np.arange(n)
        draws = dial_draws(np.arange(n) % 3.0, blocks, 2, 199, rng)
        hits += slope_cells(right, source if measure == "excess" else None, 0.25, draws, 0.95)["p"] <= 0.05
    assert 2 <= hits <= 21  # 0.999 interval of 200 at a rate of 0.05


@pytest.mark.parametrize(
    ("covariates", "dial", "message"),
    [
        ([{"depth": i % 2} for i in range(6)], "depth", "3 values"),
        ([{"rule": "abc"[i % 3]} for i in range(6)], "rule", "no number"),
        ([{"depth": i} for i in range(6)], "steps", "steps"),
    ],
)
def test_what_is_no_dial_is_refused(tmp_path, covariates, dial, message):
    store = store_of(tmp_path, {"en": [1, 0] * 3}, covariates)
    with pytest.raises(BabelScopeError, match=message):
        curves(store, dial)


def test_evaluate_follows_a_dial_and_no_other_covariate(tmp_path):
    store = store_of(tmp_path, {"en": [1, 1, 0] * 4, "de": [1, 0, 0] * 4, "sw": [0, 1, 1] * 4}, dialed(12))
    names = [r.name for r in workflows.evaluate(store, by="depth").results]
    assert names == ["accuracy", "transfer", "rankc", "curves", "trend"]
    assert "slope" in workflows.evaluate(store, by="depth").summary()
    named = {r.name: r.table for r in workflows.evaluate(store, by="depth", languages=["sw"]).results}
    assert set(named["trend"]["language"]) == set(named["curves"]["language"]) == {"en", "sw"}
    assert [r.name for r in workflows.evaluate(store, by="task").results] == ["accuracy", "transfer", "rankc"]


def test_curves_are_drawn_beside_chance_and_independent_answers(tmp_path):
    store = store_of(tmp_path, {"en": [1, 1, 0] * 4, "de": [1, 0, 0] * 4}, dialed(12))
    spec = workflows.evaluate(store, by="depth").plot().to_dict()
    drawn = {layer["encoding"]["y"]["field"] for panel in spec["hconcat"] for layer in panel["layer"]
             if "field" in layer["encoding"]["y"]}  # fmt: skip
    assert {"accuracy", "low", "xltr", "xltr_low", "null"} <= drawn
    with pytest.raises(BabelScopeError, match="no curve"):
        workflows.evaluate(store, by=None).plot()


@given(st.lists(st.floats(-1, 1), min_size=3, max_size=6), st.integers(0, 9))
def test_the_rank_correlation_is_that_of_scipy(y, seed):
    y = np.array([y, np.random.default_rng(seed).permutation(y)]).T
    levels = np.arange(len(y)) * 1.5
    found = _monotonicity(levels, y)
    for k in range(2):
        if len(set(y[:, k].tolist())) > 1:
            assert found[k] == pytest.approx(stats.spearmanr(levels, y[:, k]).statistic)
        else:
            assert np.isnan(found[k])
    assert np.isnan(_monotonicity(levels, np.where(np.arange(len(y)) == 1, np.nan, y[:, 0])[:, None])[0])
