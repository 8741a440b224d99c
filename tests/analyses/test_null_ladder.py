from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from babelscope import workflows
from babelscope.analyses.covariates import length_bins
from babelscope.analyses.recipe import chosen_recipes
from babelscope.analyses.recipes.null_ladder import NullLadder
from babelscope.analyses.statistics import EXPLAINED, NOT_TESTABLE, SUPPORTED
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError

from .planted import write_store

N = 40
RULES = [f"r{i % 4}" for i in range(N)]


def store_of(path, *, by_rule, by_item, covariates=None):
    rng = np.random.default_rng(0)
    rule = rng.normal(size=(4, 32))[np.arange(N) % 4]
    x = by_rule * rule + by_item * rng.normal(size=(N, 32)) + rng.normal(size=(2, 3, N, 32))
    found = covariates or [{"rule": r, "template": "shell"} for r in RULES]
    return write_store(path / "run.acts", {"resid.post": x.astype(np.float32)}, covariates=found)


def ladder(store, **settings):
    study = make_study(store, n_boot=300, n_perm=300)
    result = NullLadder(metrics="cs", **settings).run(study)[0]
    assert result.name == "null_ladder"
    return result.table.set_index("claim"), result.provenance


def test_a_similarity_that_is_only_the_rule_is_explained_by_it(tmp_path):
    table, _ = ladder(store_of(tmp_path, by_rule=2.0, by_item=0.0), within="rule")
    assert table.loc["cs raw: gap over all items", "verdict"] == SUPPORTED
    assert table.loc["cs raw: gap over rule", "verdict"] == EXPLAINED
    explained = table.loc["cs raw: explained by rule"]
    assert explained["low"] < 1 < explained["high"]
    assert explained["estimate"] == pytest.approx(1, abs=0.1)


def test_a_similarity_of_the_items_is_not_explained_by_a_rule_that_means_nothing(tmp_path):
    table, _ = ladder(store_of(tmp_path, by_rule=0.0, by_item=2.0), within="rule")
    assert table.loc["cs raw: gap over rule", "verdict"] == SUPPORTED
    assert table.loc["cs raw: explained by rule", "low"] < 0.05
    assert table.loc["cs raw: explained by rule", "high"] < 0.2


def test_no_share_is_given_of_a_gap_that_may_be_zero(tmp_path):
    table, _ = ladder(store_of(tmp_path, by_rule=0.0, by_item=0.0), within="rule")
    row = table.loc["cs raw: explained by rule"]
    assert np.isnan(row["estimate"])
    assert row["verdict"] == NOT_TESTABLE


def test_rungs_are_the_covariates_that_vary_each_kind_of_sorting_once(tmp_path):
    covariates = [{"rule": r, "template": "shell", "task": r.upper()} for r in RULES]
    _, about = ladder(store_of(tmp_path, by_rule=1.0, by_item=1.0, covariates=covariates))
    # Planted prompts of one text are all of one length, and have no gold letter.
    assert about["rungs"][:2] == ["all items", "task"]
    assert not any("template" in name or "rule" in name for name in about["rungs"])


def test_a_rung_without_a_null_is_not_testable_and_says_why(tmp_path):
    covariates = [{"rule": r, "name": f"n{i}"} for i, r in enumerate(RULES)]
    table, about = ladder(store_of(tmp_path, by_rule=1.0, by_item=1.0, covariates=covariates), within="rule,name")
    assert table.loc["cs raw: gap over rule + name", "verdict"] == NOT_TESTABLE
    assert "rule and name" in about["not_testable"]["rule + name"]


def test_an_unknown_covariate_is_named_before_anything_is_computed(tmp_path):
    store = store_of(tmp_path, by_rule=1.0, by_item=1.0)
    with pytest.raises(BabelScopeError, match="colour"):
        ladder(store, within="rule,colour")


def test_length_bins_are_fifths_by_mean_rank_over_languages():
    rng = np.random.default_rng(0)
    lengths = {language: scale * rng.permutation(20) for language, scale in (("en", 1), ("sw", 100))}
    rows = [(f"q{i}", g, n[i]) for g, n in lengths.items() for i in range(20)]
    answers = pd.DataFrame(rows, columns=["item", "language", "n_tokens"])
    bins = length_bins(SimpleNamespace(answers=answers))
    ranks = [sum(np.argsort(np.argsort(n))[i] for n in lengths.values()) for i in range(20)]
    for i in range(20):
        for j in range(20):
            assert (bins[f"q{i}"] <= bins[f"q{j}"]) or ranks[i] > ranks[j]
    assert set(bins) == {0, 1, 2, 3, 4}


def test_items_of_one_length_are_in_one_bin():
    rows = [(f"q{i}", "en", 7 if i < 15 else 9) for i in range(20)]
    bins = length_bins(SimpleNamespace(answers=pd.DataFrame(rows, columns=["item", "language", "n_tokens"])))
    assert {bins[f"q{i}"] for i in range(15)} == {1}
    assert {bins[f"q{i}"] for i in range(15, 20)} == {4}


def test_options_that_recipes_do_not_read_are_refused(tmp_path):
    store = store_of(tmp_path, by_rule=1.0, by_item=1.0)
    for option in ({"within": "rule"}, {"sweep": {"threshold": [0.1]}}, {"baseline": "random-init"}, {"mode": "paper"}):
        with pytest.raises(BabelScopeError, match=f"recipes do not read --{next(iter(option))}"):
            workflows.analyze(store, recipes="null-ladder", **option)
    with pytest.raises(BabelScopeError, match="no recipe to set"):
        workflows.analyze(store, "cs", settings={"top": "3"})


def test_settings_are_checked_by_name_and_by_type():
    found = chosen_recipes(["null_ladder"], {"metrics": "cs"})
    assert found["null-ladder"].metrics == "cs"
    with pytest.raises(BabelScopeError, match="setting of null-ladder"):
        chosen_recipes(["null-ladder"], {"metric": "cs"})
    with pytest.raises(BabelScopeError, match="recipe"):
        chosen_recipes(["ladder"], {})
