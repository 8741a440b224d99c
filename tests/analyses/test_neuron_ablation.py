"""Neurons that carry an answer are told from others; where neurons carry nothing, shares of it are undefined."""

import copy
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import babelscope as bs
from babelscope import workflows
from babelscope.analyses.directed import directed_verdicts
from babelscope.analyses.faithfulness import (
    Frame,
    advantage,
    control_sets,
    log_weights,
    ratio,
    replaced_units,
    set_sizes,
)
from babelscope.analyses.recipes.neuron_ablation import CONTROLS, FOREIGN, MODES, OWN, NeuronAblation
from babelscope.analyses.statistics import (
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
    bootstrap_weights,
)
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError
from babelscope.hooks import interventions as iv
from babelscope.hooks import load_model
from babelscope.schema import PromptSet, Site


def test_sizes_are_percentages_each_once_and_never_none_or_all():
    assert set_sizes("20,0.01,1,1", 1000) == [1, 10, 200]
    assert set_sizes("99.99", 10) == [9]
    for text in ("", "x", "0", "100", "-1,5"):
        with pytest.raises(BabelScopeError, match="percentages"):
            set_sizes(text, 10)


def test_weights_are_those_of_the_area_over_log_size():
    sizes, values = [3, 10, 200, 555], np.random.default_rng(0).random(4)
    x = np.log(sizes)
    assert log_weights(sizes) @ values == pytest.approx(np.trapezoid(values, x) / (x[-1] - x[0]))
    assert log_weights(sizes).sum() == pytest.approx(1)
    np.testing.assert_array_equal(log_weights([7]), [1])


def test_faithfulness_is_a_ratio_of_means_whose_items_are_resampled_together():
    rng = np.random.default_rng(0)
    frame = Frame(2 + 0.1 * rng.normal(size=12), 0.1 * rng.normal(size=12))
    margin = 1 + 0.1 * rng.normal(size=12)
    weights = bootstrap_weights(12, 300, rng)
    found = ratio(frame.kept(margin), frame, weights)
    draws = []
    for w in weights:
        top = sum(k * (y - none) for k, y, none in zip(w, margin, frame.none, strict=True))
        draws.append(top / sum(k * (f - none) for k, f, none in zip(w, frame.full, frame.none, strict=True)))
    assert found.estimate == pytest.approx(np.mean(margin - frame.none) / np.mean(frame.full - frame.none))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert ratio(frame.kept(frame.full), frame, weights).estimate == 1
    assert ratio(frame.kept(frame.none), frame, weights).estimate == 0


def test_shares_of_nothing_are_undefined_not_zero():
    rng = np.random.default_rng(0)
    weights, nothing = bootstrap_weights(10, 100, rng), rng.normal(size=10)
    assert np.isnan(ratio(np.ones(10), Frame(nothing - nothing.mean(), np.zeros(10)), weights).estimate)
    assert np.isnan(ratio(np.ones(10), Frame(-np.ones(10), np.zeros(10)), weights).low)
    assert np.isnan(ratio(np.full(10, np.nan), Frame(np.ones(10), np.zeros(10)), weights).estimate)


def test_an_advantage_is_found_where_it_is_and_at_the_level_where_it_is_not():
    rng = np.random.default_rng(0)
    sizes, weights = [2, 20, 200], bootstrap_weights(12, 200, rng)
    noise = rng.normal(size=(2, 3, 12))
    found = advantage(3 + noise[0], noise[1], sizes, weights, 199, rng)
    assert found.low > found.null
    assert found.p <= 0.01
    assert found.stability == 1
    assert found.n == 12
    assert found.estimate - found.null == pytest.approx(log_weights(sizes) @ (3 + noise[0] - noise[1]).mean(axis=1))
    p = [advantage(*rng.normal(size=(2, 3, 12)), sizes, weights, 99, rng).p for _ in range(300)]
    assert 0.013 <= np.mean(np.array(p) <= 0.05) <= 0.097  # 0.999 interval of a rate of 0.05


def test_sets_that_are_not_there_and_three_items_are_not_tested():
    rng = np.random.default_rng(0)
    part = rng.random((2, 8))
    missing = part.copy()
    missing[1] = np.nan
    found = advantage(part, missing, [1, 9], bootstrap_weights(8, 50, rng), 9, rng)
    assert np.isnan([found.null, found.low, found.p]).all()
    assert found.n == 0
    assert np.isnan(advantage(part[:, :3], part[:, 3:6], [1, 9], np.ones((5, 3)), 9, rng).p)


def test_what_is_replaced_is_the_chosen_or_the_rest():
    chosen = np.array([0, 5, 7])
    removed, rest = (replaced_units(chosen, keep, 2, 4) for keep in (False, True))
    assert [u.tolist() for u in removed] == [[0], [1, 3]]
    assert [u.tolist() for u in rest] == [[1, 2, 3], [0, 2]]


def test_claims_have_a_direction_and_need_most_of_the_sizes():
    estimate, low = [1.0, -1.0, 1.0, 1.0, np.nan], [0.5, -1.5, 0.5, -0.1, np.nan]
    high = [1.5, -0.5, 1.5, 2.0, np.nan]
    claims = pd.DataFrame(
        {
            "estimate": estimate,
            "low": low,
            "high": high,
            "null": 0.1,
            "q": 0.01,
            "n": 9,
            "stability": [np.nan, 1.0, 0.5, 1.0, 1.0],
        }
    )
    assert directed_verdicts(claims).tolist() == [
        SUPPORTED, NOT_DISTINGUISHABLE, THRESHOLD_DEPENDENT, NOT_DISTINGUISHABLE, NOT_TESTABLE
    ]  # fmt: skip


def test_control_sets_have_as_many_neurons_of_each_layer_as_the_chosen():
    rng = np.random.default_rng(0)
    score, activity = rng.normal(size=90) + np.repeat([0.0, 1.0, 2.0], 30), rng.exponential(size=90)
    found = control_sets(score, activity, 12, 30, 3, rng)
    (chosen,) = found["chosen"]
    assert set(chosen) == set(np.argsort(score)[-12:])
    layers = np.bincount(chosen // 30, minlength=3)
    for kind in ("random", "matched"):
        assert len(found[kind]) == 3
        for other in found[kind]:
            np.testing.assert_array_equal(np.bincount(other // 30, minlength=3), layers)
    assert not any(set(other) & set(chosen) for other in found["matched"])
    crowded = control_sets(score, activity, 60, 30, 1, rng)
    assert len(crowded["matched"][0]) < 60  # a layer of which more than half is chosen has not enough others


def stored(folder, languages, model="organism", prompts=None, limit=20):
    chosen = prompts or bs.generate("knowledge", languages=languages).select(limit=limit)
    return bs.capture(
        folder / "run.acts", model=str(model), prompts=chosen, sites=["resid.post@5"], self_test=False
    )  # fmt: skip


def run(store, model="", **settings):
    where = str(model or workflows.model_path("organism"))
    study = make_study(store, n_boot=200, n_perm=199, by=None, model=where)
    results = NeuronAblation(**settings).run(study)
    names = ["neuron_ablation", *(f"neuron_ablation_{x}" for x in ("curves", "areas", "languages"))]
    assert [r.name for r in results] == names
    return results


def changed(folder, change):
    """A copy of the organism on disk, with other weights."""
    shutil.copytree(workflows.model_path("organism"), folder / "model")
    loaded = load_model(folder / "model", device="cpu")
    model = copy.deepcopy(loaded.model)
    change(model, loaded)
    model.save_pretrained(folder / "model")
    return folder / "model"


def test_a_planted_neuron_is_chosen_and_its_removal_takes_the_answer_in_both_languages(tmp_path):
    """One neuron of the last layer says B to prompts for which the rest of the model says something else."""
    whole = bs.generate("knowledge", languages=["en", "de"])
    items = [p.item for p in whole.of("en") if p.gold != 1][:20]
    prompts = PromptSet("say B", tuple(replace(p, gold=1) for p in whole.prompts if p.item in items))

    def plant(model, loaded):
        site = Site("mlp.neurons", loaded.ref.n_layers - 1)
        active = iv.neuron_gradients(loaded, prompts.prompts, [site]).activation[:, 0]
        neuron = int(np.abs(active).min(axis=0).argmax())
        letter = loaded.tokenizer.encode(" B", add_special_tokens=False)[-1]
        direction = float(np.sign(active[0, neuron])) * model.get_output_embeddings().weight[letter]
        with torch.no_grad():
            model.model.layers[-1].mlp.down_proj.weight[:, neuron] = 40 * direction

    model = changed(tmp_path, plant)
    store = stored(tmp_path, ["en", "de"], model, prompts)
    claims, curves, areas, pairs = (r.table for r in run(store, model, value="zero", shares="0.03,1"))
    claims = claims.set_index(["claim", "language_a"])
    for mode, says in MODES.items():
        for control in CONTROLS.values():
            assert claims.loc[(f"{says} {control}", "*"), "verdict"] == SUPPORTED
        at = curves[(curves["size"] == 1) & (curves["mode"] == mode)].set_index(["neurons", "language"])["faithfulness"]
        kept = 1 if mode == "keep" else 0
        for language in ("en", "de"):
            for control in ("random", "matched"):
                assert at[control, language] == pytest.approx(1 - kept, abs=0.2)
                assert (2 * kept - 1) * (at["chosen", language] - at[control, language]) > 0.4
    assert claims.loc[(FOREIGN, "*"), "verdict"] == SUPPORTED
    assert claims.loc[(OWN, "*"), "verdict"] == NOT_DISTINGUISHABLE  # it is the same neuron
    assert set(zip(pairs["language_chosen"], pairs["language"], strict=True)) == {("en", "de"), ("de", "en")}
    assert (pairs["low"] > pairs["null"]).all()
    assert len(areas) == 2 * 2 * 3


def test_neurons_that_write_nothing_have_no_advantage_and_no_faithfulness(tmp_path):
    def silence(model, _):
        with torch.no_grad():
            for layer in model.model.layers:
                layer.mlp.down_proj.weight.zero_()

    model = changed(tmp_path, silence)
    claims, curves, areas, pairs = (r.table for r in run(stored(tmp_path, ["en"], model, limit=36), model, shares="5"))
    assert set(claims["verdict"]) == {NOT_DISTINGUISHABLE}
    np.testing.assert_allclose(claims[["estimate", "null"]], 0, atol=1e-4)
    assert curves["faithfulness"].isna().all()
    assert areas["faithfulness"].isna().all()
    assert pairs.empty


@pytest.mark.parametrize(
    ("score", "value"), [("gradient", "resample"), ("direct_logit", "mean"), ("integrated_gradients", "zero")]
)
def test_every_score_and_value_names_neurons_of_the_organism_that_keep_more_than_random_ones(small, score, value):
    claims, curves, *_ = run(small, score=score, value=value, shares="3", steps=1)
    table = claims.table.set_index(["claim", "language_a"])
    row = table.loc[(f"{MODES['remove']} {CONTROLS['random']}", "en")]
    assert row["estimate"] > row["null"]
    assert row["n"] + claims.provenance["n_dropped"]["all"] <= 14
    assert np.isnan(row["stability"])
    if value == "resample":
        again = run(small, score=score, value=value, shares="3", steps=1)
        pd.testing.assert_frame_equal(again[0].table, claims.table)
    assert curves.table["size"].eq(81).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("small"), ["en"], limit=14)


def test_what_is_answered_in_no_language_is_dropped_and_too_little_refused(tmp_path):
    whole = bs.generate("knowledge", languages=["en"]).select(limit=12)
    wrong = PromptSet("wrong", tuple(replace(p, gold=(p.gold + 1) % 4) for p in whole.prompts))
    with pytest.raises(BabelScopeError, match="answered in some language, fewer than 8"):
        run(stored(tmp_path, ["en"], prompts=wrong))
