"""XLTR against the definition counted by hand, on answers whose dependence is known."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.behavior.transfer import PUBLISHED, _pair, transfer
from babelscope.errors import BabelScopeError
from babelscope.schema import Answers, PromptSet
from tests.store.stores import make_block, make_plan, make_prompts


def store_of(folder, correct, covariates=None):
    """A store whose answers are right where `correct`, language -> 0, 1 or NaN for each item, says so."""
    n = len(next(iter(correct.values())))
    plain = make_prompts(n, tuple(correct))
    known = covariates or [{"task": "t"}] * n
    prompts = PromptSet("made", tuple(
        replace(p, covariates=known[int(p.item.rpartition("/")[2])]) for p in plain.prompts
    ))  # fmt: skip
    plan = make_plan(prompts, block_items=256)
    with StoreWriter.create(folder / "s.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending():
            block = make_block(plan, language, index)
            right = np.array([correct[language][i] for i in block.items], float)
            scores = np.tile([-0.5, -1.0], (len(right), 1))
            writer.put(replace(block, answers=Answers(scores, np.zeros(len(right), np.int64), right)))
    return ActivationStore.open(folder / "s.acts")


def draw(n=200, dependent=False, seed=0):
    rng = np.random.default_rng(seed)
    en = (rng.random(n) < 0.6).astype(float)
    de = np.where(rng.random(n) < 0.8, en, rng.random(n) < 0.6) if dependent else (rng.random(n) < 0.6)
    return {"en": en, "de": de.astype(float)}


def test_the_ratio_is_the_published_one_counted_by_hand(tmp_path):
    correct = {"en": [1, 1, 1, 1, 0, 0], "de": [1, 1, 1, 0, 1, 0], "sw": [0, 0, 0, 0, 1, 1]}
    table = transfer(store_of(tmp_path, correct), mode="corrected").table.set_index("language_b")
    assert table.loc["de", ["n", "n_a", "n_both"]].tolist() == [6, 4, 3]
    assert table.loc["de", "xltr"] == pytest.approx((3 / 4 - 0.5) / 0.5)
    assert table.loc["de", "null"] == pytest.approx((4 / 6 - 0.5) / 0.5)
    assert table.loc["de", "excess"] == pytest.approx(0.5 - 1 / 3)
    assert table.loc["sw", "xltr"] == pytest.approx(-1)  # below chance, and not clipped
    assert table.loc["de", "known_a"] == pytest.approx((4 / 6 - 0.5) / 0.5 * 6)


def test_a_source_without_another_language_is_one_problem(tmp_path):
    store = store_of(tmp_path, {"en": [1, 1, 0], "de": [1, 0, 0]})
    with pytest.raises(BabelScopeError, match="no language to transfer to"):
        transfer(store, languages=["en"])


def test_the_four_published_variants(tmp_path):
    correct = {"en": [1, 1, 1, 1, 0, 0], "de": [1, 1, 1, 0, 1, 0], "sw": [0, 0, 0, 1, 1, 1]}
    tasks = [{"task": "a"}, {"task": "b"}] * 3
    table = transfer(store_of(tmp_path, correct, tasks), mode="paper").table
    assert set(table["variant"]) == set(PUBLISHED)
    cells = table.set_index(["variant", "group", "language_b"])["xltr"]
    # Task a has items 0, 2, 4 and task b items 1, 3, 5; en is right in 0, 2 and in 1, 3.
    assert cells["strategyqa", "b", "de"] == pytest.approx((1 / 2 - 0.5) / 0.5)
    assert cells["kfrd", "b", "de"] == pytest.approx((1 / 2 - 0.25) / 0.75)
    assert cells["kfrd", "a", "sw"] == 0  # clipped from -1/3
    assert cells["by-training-language", "a", "sw"] == 0
    assert cells["by-training-language", "b", "sw"] == pytest.approx(1 / 2)  # no chance is taken off
    assert cells["cpt-sft", "mean of groups", "de"] == pytest.approx((1 + 0) / 2)
    assert set(table[table["mode"] == "paper"]["language_a"]) == {"en"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=40), st.sampled_from([0.0, 0.25, 0.5]))
def test_every_cell_agrees_with_slow_references(pairs, chance):
    a, b = np.array(pairs, float).T
    found = _pair(a, b, np.ones((3, len(a))), chance, 0.95, clip=False)
    both = sum(x and y for x, y in pairs)
    known = sum(x for x, _ in pairs)
    if known == 0:
        assert np.isnan(found["xltr"])
        assert np.isnan(found["p"])
    else:
        assert found["xltr"] == pytest.approx((both / known - chance) / (1 - chance))
        # Fisher's exact test is the upper tail of a hypergeometric draw.
        tail = stats.hypergeom.sf(both - 1, len(a), known, int(b.sum()))
        assert found["p"] == pytest.approx(tail)
    assert found["null"] == pytest.approx((b.mean() - chance) / (1 - chance))
    if 0 < a.mean() < 1 and 0 < b.mean() < 1:
        assert found["kappa"] == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
        assert found["phi"] == pytest.approx(matthews_corrcoef(a, b), abs=1e-12)


def test_independent_answers_have_a_high_ratio_and_no_excess(tmp_path):
    table = transfer(store_of(tmp_path, draw(400)), mode="corrected").table
    assert table["excess_low"].item() < 0 < table["excess_high"].item()
    assert table["verdict"].item() == "not distinguishable from the null"
    assert table["xltr"].item() == pytest.approx(table["null"].item(), abs=0.12)


def test_dependent_answers_have_an_excess(tmp_path):
    table = transfer(store_of(tmp_path, draw(200, dependent=True)), mode="corrected").table
    assert table["excess_low"].item() > 0.2
    assert table["verdict"].item() == "supported"


def test_the_interval_covers_the_true_excess():
    """In 300 draws of a known dependence the 95 % interval should hold the truth in 285; 3 standard errors are 11."""
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        a = (rng.random(150) < 0.6).astype(float)
        b = np.where(rng.random(150) < 0.5, a, rng.random(150) < 0.6).astype(float)
        weights = rng.multinomial(150, np.full(150, 1 / 150), size=400).astype(float)
        found = _pair(a, b, weights, 0.25, 0.95, clip=False)
        truth = ((0.5 + 0.5 * 0.6) - 0.6) / 0.75  # P(right | right) - P(right), without guessing
        hits += found["excess_low"] <= truth <= found["excess_high"]
    assert hits >= 285 - 12


def test_the_source_may_be_any_language_and_what_is_empty_is_refused(tmp_path):
    store = store_of(tmp_path, {"en": [0] * 6, "de": [1, 1, 0, 1, 0, 1]})
    with pytest.raises(BabelScopeError, match="no item was answered correctly in en") as caught:
        transfer(store)
    assert "another language" in caught.value.hint
    table = transfer(store, "de", mode="corrected").table
    assert table[["language_a", "language_b"]].to_numpy().tolist() == [["de", "en"]]
    with pytest.raises(BabelScopeError, match="no source language called 'fr'"):
        transfer(store, "fr")


def test_a_group_without_anything_right_is_not_testable_and_the_others_are(tmp_path):
    correct = {"en": [0, 1, 0, 1, 0, 1, 0, 1], "de": [0, 1, 1, 1, 0, 0, 1, 1]}
    tasks = [{"task": "a"}, {"task": "b"}] * 4
    table = transfer(store_of(tmp_path, correct, tasks), mode="corrected").table.set_index("group")
    assert np.isnan(table.loc["a", "xltr"])
    assert table.loc["a", "verdict"] == "not testable with this data"
    assert table.loc["b", "n_a"] == 4


def test_chance_by_the_commonest_gold_option(tmp_path):
    store = store_of(tmp_path, {"en": [1, 1, 1, 0, 0], "de": [1, 1, 0, 1, 0]})
    uniform, majority = (transfer(store, mode="corrected", chance=c).table["chance"].item()
                         for c in ("uniform", "majority"))  # fmt: skip
    assert (uniform, majority) == (0.5, pytest.approx(3 / 5))  # gold is 0, 1, 0, 1, 0


def test_the_published_source_may_be_left_out_and_a_mean_is_never_over_fewer_groups(tmp_path):
    correct = {"en": [0, 1, 0, 1, 0, 1, 0, 1], "de": [0, 1, 1, 1, 0, 0, 1, 1], "sw": [1, 1, 1, 1, 0, 0, 1, 0]}
    store = store_of(tmp_path, correct, [{"task": "a"}, {"task": "b"}] * 4)
    without = transfer(store, "de", languages=["sw"])
    assert set(without.table["mode"]) == {"corrected"}
    with pytest.raises(BabelScopeError, match="English is the source of every published variant"):
        transfer(store, "de", languages=["sw"], mode="paper")
    with pytest.raises(BabelScopeError, match="no language to transfer to"):
        transfer(store, "en", languages=["en"], mode="corrected")
    averaged = transfer(store, mode="paper").table.set_index(["variant", "language_b"]).loc["cpt-sft"]
    assert averaged["xltr"].isna().all()  # nothing is right in English in group a
    assert (averaged["verdict"] == "not testable with this data").all()
