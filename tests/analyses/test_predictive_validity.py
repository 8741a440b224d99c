"""Prediction is found within languages where it was planted, and is never taken from differences between them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.prediction import outcomes, pair_outcomes, predicted, rank_biserial
from babelscope.analyses.recipes.predictive_validity import PredictiveValidity
from babelscope.analyses.statistics import NOT_TESTABLE, SUPPORTED, bootstrap_weights
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError
from babelscope.schema import Answers, Block, Rows
from tests.analyses.planted import write_store

LANGUAGES = ("en", "de", "sw", "zh", "ru")
N = 60


def slow_rank_biserial(values, right, wrong):
    above = total = 0.0
    for i, x in enumerate(values):
        for j, y in enumerate(values):
            if not np.isnan(x) and not np.isnan(y):
                above += right[i] * wrong[j] * np.sign(x - y)
                total += right[i] * wrong[j]
    return above / total if total else np.nan


@given(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.nan]), st.booleans(), st.integers(0, 3)), max_size=12)
)
def test_rank_biserial_counts_pairs_of_right_and_wrong_items(rows):
    values = np.array([x for x, _, _ in rows])
    right = np.array([[w * is_right for _, is_right, w in rows]], dtype=float)
    wrong = np.array([[w * (not is_right) for _, is_right, w in rows]], dtype=float)
    slow = slow_rank_biserial(values, right[0], wrong[0])
    np.testing.assert_allclose(rank_biserial(values, right, wrong), [slow])


def test_rank_biserial_is_twice_the_area_under_the_curve_minus_one():
    rng = np.random.default_rng(0)
    values, right = np.round(rng.normal(size=40), 1), rng.random(40) < 0.4
    found = rank_biserial(values, right[None].astype(float), ~right[None] * 1.0)
    assert found[0] == pytest.approx(2 * roc_auc_score(right, values) - 1)


def draws(n, rng, n_draws=99):
    order = rng.permuted(np.tile(np.arange(n, dtype=np.int32), (n_draws, 1)), axis=1)
    return bootstrap_weights(n, n_draws, rng), order


def test_resamples_and_shuffles_take_whole_items_in_all_languages():
    rng = np.random.default_rng(0)
    values, outcome = rng.normal(size=(3, 20)), (rng.random((3, 20)) < 0.5).astype(float)
    values[0, 4] = outcome[1, 7] = np.nan
    weights, order = draws(20, rng, 25)
    found = predicted(values, outcome, weights, order)
    ones = np.ones(20)

    def mean(outcome, weights):
        each = [slow_rank_biserial(v, weights * (c == 1), weights * (c == 0))
                for v, c in zip(values, outcome, strict=True)]  # fmt: skip
        return np.mean(each)

    assert found.estimate == pytest.approx(mean(outcome, ones))
    np.testing.assert_allclose(found.permuted, [mean(outcome[:, o], ones) for o in order])
    slow = np.quantile([mean(outcome, w) for w in weights], [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], slow)
    assert list(found.n) == [19, 19, 20]


def test_a_language_that_is_always_right_predicts_nothing_and_does_not_count():
    rng = np.random.default_rng(0)
    values, outcome = rng.normal(size=(2, 20)), np.ones((2, 20))
    weights, order = draws(20, rng)
    found = predicted(values, outcome, weights, order)
    assert np.isnan([found.estimate, found.low, found.p]).all()
    outcome[1, :8] = 0
    found = predicted(values, outcome, weights, order)
    assert np.isnan(found.each[0])
    assert found.estimate == pytest.approx(found.each[1])


def test_items_that_are_hard_in_every_language_are_one_piece_of_evidence():
    rng = np.random.default_rng(1)
    hits, trials = 0, 300
    for _ in range(trials):
        # Gap and correctness depend on the item, not on each other.
        values = rng.normal(size=30) + 0.1 * rng.normal(size=(6, 30))
        outcome = (rng.normal(size=30) + 0.1 * rng.normal(size=(6, 30)) > 0).astype(float)
        hits += predicted(values, outcome, *draws(30, rng)).p <= 0.05
    assert 5 <= hits <= 29  # 0.999 interval of a rate of 0.05


def test_transfer_is_known_for_items_that_are_right_in_the_source():
    correct = np.array([[1, 0, 1, np.nan], [0, 1, 1, 1.0], [1, 1, np.nan, 0]])
    found, items = outcomes(correct, 0)
    assert list(items) == [0, 2]
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [0, 1], [1, np.nan]])
    found, items = outcomes(correct, None)
    assert len(items) == 4
    np.testing.assert_array_equal(found, correct)


def test_behavior_of_pairs_is_that_of_both_directions():
    correct = np.array([[1, 0, 1, 1], [1, 1, 0, 1.0], [0, 0, 0, np.nan]])
    np.testing.assert_allclose(pair_outcomes(correct, [(0, 1), (0, 2)], transfer=False), [6 / 8, 2 / 6])
    np.testing.assert_allclose(pair_outcomes(correct, [(0, 1), (0, 2)], transfer=True), [2 / 3, np.nan])


def answered(path, x, right):
    """A store of `resid.post` (layer, language, item, unit) with answers (language, item)."""
    plain = write_store(path / "plain.acts", {"resid.post": x.astype(np.float32)}, languages=LANGUAGES)
    plan = replace(plain.plan, answers="labels")
    with StoreWriter.create(path / "run.acts", plan, plain.prompts, {}) as writer:
        for k, language in enumerate(LANGUAGES):
            n = x.shape[2]
            rows = {("resid.post", plan.positions[0]): Rows(x[:, k].astype(np.float32))}
            scores = np.where(right[k][:, None] == 1, [[0.0, -1.0]], [[-1.0, 0.0]])
            answers = Answers(scores, scores.argmax(1), right[k].astype(float))
            writer.put(Block(language, 0, np.arange(n), rows, np.ones(n, dtype=np.int64), ("x",) * n, answers))
    return ActivationStore.open(path / "run.acts")


def found_in(store, **settings):
    notes = []
    study = make_study(store, n_boot=300, n_perm=300, by=None, note=notes.append)
    results = PredictiveValidity(metrics="cs", **settings).run(study)
    assert results[0].name == "predictive_validity"
    tables = {r.name.removeprefix("predictive_validity_"): r.table for r in results}
    return results[0].table.set_index("claim"), tables, notes


def planted(rng, *, strength, difficulty, easy=0.0):
    """States that share `strength` (language, item) of the item's meaning; right where `difficulty` is below easy."""
    meaning = rng.normal(size=(1, 1, N, 48))
    x = strength[None, :, :, None] * meaning + rng.normal(size=(2, len(LANGUAGES), N, 48))
    right = (difficulty < easy).astype(float)
    return x, right


WITHIN, ACROSS = "cs raw: predicts correct, within languages", "cs raw: predicts correct, across languages"


@pytest.mark.parametrize("partner", ["source", "all"])
def test_a_gap_that_goes_with_right_answers_is_found(tmp_path, partner):
    rng = np.random.default_rng(0)
    clear = rng.random((1, N)).repeat(len(LANGUAGES), axis=0)
    x, right = planted(rng, strength=2 * clear, difficulty=0.5 - clear + 0.2 * rng.normal(size=(len(LANGUAGES), N)))
    table, results, notes = found_in(answered(tmp_path, x, right), partner=partner)
    assert table.loc[WITHIN, "verdict"] == SUPPORTED
    assert table.loc[WITHIN, "estimate"] > 0.3
    assert table.loc["cs raw: predicts transfer, within languages", "estimate"] > 0
    assert not notes
    each = results["languages"]
    source = each[(each["language"] == "en") & (each["outcome"] == "correct")]
    assert source["correlation"].isna().all() == (partner == "source")
    layers = results["layers"]
    layers = layers[layers["layer"].notna()]
    adjusted = results["adjusted"]
    assert (adjusted[(adjusted["outcome"] == "correct") & adjusted["layer"].isna()]["low"] > 0).all()
    # The best of two layers is no more certain than each by itself.
    assert (layers["p_max"] >= layers["p"] - 1e-9).all()
    assert (layers["p_max"] <= 2 * layers["p"] + 0.1).all()


def test_a_gap_that_has_nothing_to_do_with_right_answers_is_found_as_often_as_alpha_says(tmp_path):
    hits = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x, right = planted(rng, strength=2 * rng.random((1, N)).repeat(5, 0), difficulty=rng.normal(size=(5, N)))
        table, _, _ = found_in(answered(tmp_path / str(seed), x, right))
        hits += table.loc[WITHIN, "verdict"] == SUPPORTED
    assert hits <= 4  # 0.999 quantile of 12 at a rate of 0.05


def test_a_sign_that_turns_between_languages_is_simpsons_paradox_and_is_said(tmp_path):
    rng = np.random.default_rng(0)
    clear = rng.random((1, N))
    # Languages with higher gaps are better; within a language, items with higher gaps are worse.
    level = np.array([0.3, 0.7, 1.1, 1.5, 1.9])[:, None]
    difficulty = 3 * clear - 1.6 * level + 0.2 * rng.normal(size=(5, N))
    x, right = planted(rng, strength=level * (0.7 + 0.6 * clear), difficulty=difficulty)
    table, results, notes = found_in(answered(tmp_path, x, right))
    assert table.loc[WITHIN, "estimate"] < 0 < table.loc[ACROSS, "estimate"]
    across = results["across"]
    row = across[(across["variant"] == "raw") & (across["outcome"] == "correct") & across["layer"].isna()].iloc[0]
    assert row["signs_differ"]
    assert any("Simpson" in note for note in notes)


def test_answers_that_are_all_right_are_not_testable(tmp_path):
    rng = np.random.default_rng(0)
    x, right = planted(rng, strength=rng.random((5, N)), difficulty=-np.ones((5, N)))
    table, _, _ = found_in(answered(tmp_path, x, right))
    assert set(table.loc[WITHIN, ["verdict"]]) == {NOT_TESTABLE}


def test_one_language_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    x, right = planted(rng, strength=rng.random((5, N)), difficulty=rng.normal(size=(5, N)))
    store = answered(tmp_path, x, right)
    with pytest.raises(BabelScopeError, match="one language"):
        PredictiveValidity(metrics="cs").run(make_study(store, languages=["en"], by=None))
    table = PredictiveValidity(metrics="cs").run(make_study(store, languages=["en", "de"], by=None, n_perm=50))[0].table
    across = table[table["claim"].str.contains("across")]
    assert set(across["verdict"]) == {NOT_TESTABLE}


def test_what_is_missing_is_named(tmp_path):
    rng = np.random.default_rng(0)
    x, right = planted(rng, strength=rng.random((5, N)), difficulty=rng.normal(size=(5, N)))
    with pytest.raises(BabelScopeError, match="which answers are right"):
        found_in(write_store(tmp_path / "bare.acts", {"resid.post": x.astype(np.float32)}, languages=LANGUAGES))
    store = answered(tmp_path, x, right)
    with pytest.raises(BabelScopeError, match="source fr"):
        found_in(store, source="fr")
    with pytest.raises(BabelScopeError, match="partner"):
        found_in(store, partner="some")
