import os

import numpy as np
import pytest

import babelscope as bs
from babelscope import workflows
from babelscope.analyses.references import ceiling, paraphrases
from babelscope.analyses.statistics import NOT_TESTABLE
from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model
from babelscope.hooks.random_init import random_init
from tests.analyses.planted import write_store


def planted(path, *, said_again, between):
    """English, its paraphrase and two languages: how much of an item they share with English."""
    rng = np.random.default_rng(0)
    item = rng.normal(size=(1, 40, 64))
    noise = rng.normal(size=(2, 4, 40, 64))
    shared = np.array([1.0, said_again, between, between])[:, None, None]
    x = shared * item + noise
    languages = ("en", "en-x-para", "de", "sw")
    return write_store(path / "run.acts", {"resid.post": x.astype(np.float32)}, languages=languages)


def test_a_paraphrase_is_the_language_before_its_private_use_part():
    assert paraphrases(["en", "en-x-para", "zh-Hant-x-a", "de"]) == {"en-x-para": "en"}


def test_the_share_of_the_ceiling_is_that_of_the_mean_gaps(tmp_path):
    store = planted(tmp_path, said_again=1.0, between=0.5)
    table = ceiling(store, ["cs"], n_boot=200, n_perm=99).table
    row = table[(table["variant"] == "centered") & table["layer"].isna()].iloc[0]
    assert row["share"] == pytest.approx(row["gap"] / row["ceiling"])
    assert row["low"] < row["share"] < row["high"] < 1
    assert row["p"] <= 0.05
    assert row["n"] == 40


def test_without_a_gap_of_the_paraphrase_there_is_no_share(tmp_path):
    table = ceiling(planted(tmp_path, said_again=0.0, between=0.5), ["cs"], n_boot=200, n_perm=99).table
    assert table["share"].isna().all()
    assert set(table["verdict"]) == {NOT_TESTABLE}


def test_a_paraphrase_is_no_partner_of_other_languages(tmp_path):
    analysis = workflows.analyze(planted(tmp_path, said_again=1.0, between=0.5), "cs")
    table = analysis["cs"].table
    assert set(table["language_a"]) | set(table["language_b"]) == {"en", "de", "sw", "*"}
    assert "ceiling" in analysis.summary()
    assert analysis.report(tmp_path / "report.html").is_file()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    prompts = bs.generate("knowledge", languages=["en", "de"]).select(limit=24)
    path = tmp_path_factory.mktemp("references") / "run.acts"
    return bs.capture(path, model="organism", prompts=prompts, sites=["resid.post"], self_test=False)


def test_the_floor_is_the_gap_of_the_same_prompts_with_random_weights(store):
    before = set(os.listdir(store.path.parent))
    analysis = workflows.analyze(store, "cs", mode="corrected", baseline="random-init")
    assert set(os.listdir(store.path.parent)) == before
    floor = analysis["floor"].table
    overall = floor[floor["layer"].isna() & (floor["variant"] == "centered")].iloc[0]
    model = analysis["cs"].table.query("variant == 'centered' and layer.isna() and language_a == '*'").iloc[0]
    assert overall["gap_model"] == pytest.approx(model["gap"])
    assert overall["gap_random"] < overall["gap_model"]
    assert overall["verdict"] == "supported"
    assert f"{overall['gap_random']:.3f}" in analysis.summary()
    again = workflows.analyze(store, "cs", mode="corrected", baseline="random-init")["floor"].table
    assert again.equals(floor)


def test_random_weights_are_of_the_same_shapes_and_of_no_training():
    loaded = load_model(workflows.model_path("organism"), device="cpu")
    untrained = random_init(loaded)
    own, other = dict(loaded.model.named_parameters()), dict(untrained.model.named_parameters())
    assert {n: p.shape for n, p in own.items()} == {n: p.shape for n, p in other.items()}
    assert not any(own[n].equal(other[n]) for n in own if own[n].std() > 0)
    assert untrained.ref.weights_sha256 == random_init(loaded).ref.weights_sha256
    assert untrained.ref.weights_sha256 != random_init(loaded, seed=1).ref.weights_sha256


def test_a_model_that_is_not_the_one_of_the_store_is_refused(store):
    with pytest.raises(BabelScopeError, match="not the model of"):
        workflows.analyze(store, "cs", baseline="random-init", model="encoder-organism")
