"""A universe is an analysis of its own; a claim is judged by the share of them that agree."""

import numpy as np
import pandas as pd
import pytest

from babelscope.analyses import analyze
from babelscope.analyses.recipes.multiverse import Multiverse
from babelscope.analyses.statistics import (
    EXPLAINED,
    NOT_DISTINGUISHABLE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
)
from babelscope.analyses.study import make_study
from babelscope.analyses.universes import ALL_ITEMS, ALL_LAYERS, by_choice
from babelscope.errors import BabelScopeError

from .planted import write_store

N = 24
DEMAND = ["knowledge-free"] * N + ["knowledge"] * N
RULES = [f"r{i % 3}" for i in range(N)] * 2


def store_of(path, *, by_item, by_rule=0.0, seed=0, groups=True, n_layers=6):
    """`by_item` (layer, group) and `by_rule` of what the languages of an item share."""
    rng = np.random.default_rng(seed)
    strength = np.broadcast_to(by_item, (n_layers, 2)).repeat(N, axis=1)[:, None, :, None]
    rule = rng.normal(size=(3, 24))[np.arange(2 * N) % 3]
    x = strength * rng.normal(size=(2 * N, 24)) + by_rule * rule + rng.normal(size=(n_layers, 3, 2 * N, 24))
    facts = [{"rule": r} for r in RULES]
    demand = DEMAND if groups else None
    return write_store(path / "run.acts", {"resid.post": x.astype(np.float32)}, demand=demand, covariates=facts)


def multiverse(store, **settings):
    notes = []
    study = make_study(store, n_boot=200, n_perm=200, note=notes.append)
    results = Multiverse(metrics="cs", **settings).run(study)
    assert [r.name for r in results] == ["multiverse", "multiverse_universes", "multiverse_choices"]
    return results[0].table.set_index(["claim", "group"]), results[1].table, results, notes


GAP, PEAK = "gap above zero", "highest in the middle layers"
ABOVE = ("gap of knowledge-free above that of knowledge", "knowledge-free - knowledge")


def one(table, claim, group, **choices):
    chosen = table[(table["of_claim"] == claim) & (table["group"] == group)]
    for name, value in choices.items():
        chosen = chosen[chosen[name] == value]
    assert len(chosen) == 1
    return chosen.iloc[0]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return store_of(tmp_path_factory.mktemp("planted"), by_item=[[1.0, 0.4]], by_rule=0.5)


@pytest.mark.parametrize("null", [ALL_ITEMS, "rule"])
def test_a_universe_says_what_the_analysis_with_its_choices_says(planted, null):
    _, table, _, _ = multiverse(planted)
    within = [] if null == ALL_ITEMS else [null]
    options = {"within": within, "n_boot": 200, "n_perm": 200, "mode": "corrected"}
    for band, sites in ((ALL_LAYERS, None), ("middle third", ["resid.post@2:4"])):
        results = {r.name: r.table for r in analyze(planted, ["cs"], sites=sites, **options)}
        overall = results["cs"][results["cs"]["layer"].isna() & (results["cs"]["language_a"] == "*")]
        for _, row in overall.iterrows():
            found = one(table, GAP, row["group"], null_level=null, band=band, variant=row["variant"], mode="corrected")
            np.testing.assert_allclose(
                found[["estimate", "low", "high", "p"]].astype(float),
                row[["gap", "gap_low", "gap_high", "p"]].astype(float), rtol=1e-6, atol=1e-9,
            )  # fmt: skip
        contrasts = results["contrast"][results["contrast"]["layer"].isna()]
        for _, row in contrasts.iterrows():
            found = one(table, *ABOVE, null_level=null, band=band, variant=row["variant"], mode="corrected")
            np.testing.assert_allclose(
                found[["estimate", "low", "high", "p"]].astype(float),
                row[["estimate", "low", "high", "p"]].astype(float), rtol=1e-6, atol=1e-9,
            )  # fmt: skip


def test_every_choice_is_combined_with_every_other(planted):
    _, table, results, _ = multiverse(planted)
    gaps = table[(table["of_claim"] == GAP) & (table["group"] == "knowledge")]
    # Two nulls, three variants, four bands; and the published definition over all items.
    assert len(gaps) == 2 * 3 * 4 + 4
    assert results[0].provenance["universes"] == len(gaps)
    assert set(gaps[gaps["mode"] == "paper"]["null_level"]) == {ALL_ITEMS}
    peaks = table[(table["of_claim"] == PEAK) & (table["group"] == "knowledge")]
    assert set(peaks["band"]) == {ALL_LAYERS}


def test_a_peak_is_what_the_middle_has_above_the_higher_of_both_ends(planted):
    _, table, _, _ = multiverse(planted)
    results = analyze(planted, ["cs"], n_boot=50, n_perm=50)[0].table
    layers = results[
        (results["group"] == "knowledge") & (results["language_a"] == "*") & (results["variant"] == "raw")
        & results["layer"].notna()
    ].set_index("layer")["gap"]  # fmt: skip
    slow = layers[[2, 3]].mean() - max(layers[[0, 1]].mean(), layers[[4, 5]].mean())
    found = one(table, PEAK, "knowledge", null_level=ALL_ITEMS, variant="raw", mode="corrected")
    assert found["estimate"] == pytest.approx(slow)


def test_an_effect_that_is_everywhere_is_supported_in_every_universe(tmp_path):
    claims, _, _, _ = multiverse(store_of(tmp_path, by_item=[[2.0, 2.0]]))
    row = claims.loc[(GAP, "knowledge")]
    assert row["verdict"] == SUPPORTED
    assert (row["estimate"], row["stability"]) == (1, 1)
    assert row["p"] <= 0.05
    assert claims.loc[ABOVE, "verdict"] != SUPPORTED


def test_an_effect_of_the_rule_alone_is_explained_by_it(tmp_path):
    claims, _, results, _ = multiverse(store_of(tmp_path, by_item=0.0, by_rule=2.0))
    assert claims.loc[(GAP, "knowledge"), "verdict"] == EXPLAINED
    choices = results[2].table.set_index(["of_claim", "group", "choice", "value"])["agrees"]
    assert choices[GAP, "knowledge", "null_level", ALL_ITEMS] == 1
    assert choices[GAP, "knowledge", "null_level", "rule"] < 0.5


def test_where_the_curve_is_highest_is_found(tmp_path):
    middle = np.array([[0.5, 1.5], [0.5, 1.5], [2.0, 1.5], [2.0, 1.5], [0.5, 1.5], [0.5, 1.5]])
    claims, _, _, _ = multiverse(store_of(tmp_path, by_item=middle))
    assert claims.loc[(PEAK, "knowledge-free"), "verdict"] == SUPPORTED
    assert claims.loc[(PEAK, "knowledge"), "verdict"] in (NOT_DISTINGUISHABLE, THRESHOLD_DEPENDENT)


def test_without_an_effect_universes_do_not_gang_up(tmp_path):
    small = supported = 0
    for seed in range(20):
        (tmp_path / str(seed)).mkdir()
        store = store_of(tmp_path / str(seed), by_item=0.0, seed=seed, groups=False, n_layers=3)
        claims, _, _, _ = multiverse(store, nulls="")
        row = claims.loc[(GAP, "all")]
        small += row["p"] <= 0.05
        supported += row["verdict"] == SUPPORTED
    assert small <= 5  # 0.999 quantile of 20 at a rate of 0.05
    assert supported <= 3


def test_a_limit_draws_universes_by_the_seed(planted):
    _, table, results, _ = multiverse(planted, limit=5)
    assert len(table[(table["of_claim"] == GAP) & (table["group"] == "knowledge")]) == 5
    assert results[0].provenance["universes"] == 28
    assert results[0].provenance["universes_analyzed"] == 5
    _, again, _, _ = multiverse(planted, limit=5)
    pd.testing.assert_frame_equal(table, again)


def test_the_specification_curve_is_in_order(planted):
    _, table, _, _ = multiverse(planted)
    for _, part in table.groupby(["of_claim", "group"]):
        assert list(part["rank"]) == list(range(1, len(part) + 1))
        assert part["standardized"].is_monotonic_increasing


def test_shares_by_choice_are_counted(planted):
    _, table, results, _ = multiverse(planted)
    for _, row in by_choice(table).iterrows():
        kept = [
            r for r in table.to_dict("records")
            if r["of_claim"] == row["of_claim"] and r["group"] == row["group"] and str(r[row["choice"]]) == row["value"]
        ]  # fmt: skip
        assert len(kept) == row["n_universes"]
        assert np.mean([r["agrees"] for r in kept]) == pytest.approx(row["agrees"])
    assert len(results[2].table) == len(by_choice(table))


def test_a_null_that_leaves_nothing_is_named_and_the_rest_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    facts = [{"name": f"n{i}"} for i in range(N)]
    x = rng.normal(size=(3, 3, N, 16)).astype(np.float32)
    store = write_store(tmp_path / "run.acts", {"resid.post": x}, covariates=facts)
    _, table, results, notes = multiverse(store, nulls="name")
    assert set(table["null_level"]) == {ALL_ITEMS}
    assert "name" in str(results[0].provenance["not_testable"])
    assert notes


def test_what_cannot_be_analyzed_is_said(planted):
    with pytest.raises(BabelScopeError, match="limit"):
        multiverse(planted, limit=0)
    with pytest.raises(BabelScopeError, match="colour"):
        multiverse(planted, nulls="colour")
