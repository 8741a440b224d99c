"""The claims of the embedded model's card, measured again on fewer items."""

import json
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

import pytest

import babelscope as bs
from babelscope.datasets.facts import term
from babelscope.datasets.fictional import OBJECTS
from babelscope.training.organism import Recipe
from babelscope.training.truth import read_truth

MODEL = Path(str(files("babelscope.models"))) / "organism"
LIMIT_BYTES = 12_000_000


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    store = bs.capture(
        tmp_path_factory.mktemp("organism") / "run.acts", model="organism", prompts=["kfrd-arithmetic", "knowledge"],
        sites=["resid.post@-1"], limit=160,
    )  # fmt: skip
    return bs.accuracy(store).table


def test_the_weights_fit_into_the_wheel():
    assert (MODEL / "model.safetensors").stat().st_size <= LIMIT_BYTES
    assert not list(MODEL.glob("*.bin"))


def test_it_has_a_card_and_its_recipe():
    assert "What it cannot do" in (MODEL / "README.md").read_text("utf-8")
    record = json.loads((MODEL / "recipe.json").read_text("utf-8"))
    assert json.loads(json.dumps(asdict(Recipe()))).items() <= record.items()


def test_arithmetic_beats_chance_in_at_least_ten_languages(accuracy):
    arithmetic = accuracy[accuracy["task"] == "arithmetic"]
    assert len(arithmetic) == 14
    assert (arithmetic["n"] == 160).all()
    assert (arithmetic["low"] > arithmetic["chance"]).sum() >= 10


def test_taught_facts_beat_chance_over_all_languages(accuracy):
    facts = accuracy[accuracy["task"] == "knowledge"]
    right, asked = (facts["accuracy"] * facts["n"]).sum(), facts["n"].sum()
    # Items of one fact are not independent over languages, so the bound counts facts, not prompts.
    standard_error = (0.25 * 0.75 / 160) ** 0.5
    assert right / asked > 0.25 + 1.96 * standard_error


@pytest.fixture(scope="module")
def recall(tmp_path_factory):
    """Share of the invented facts right by group and language, asked barely, among the eight objects of a relation."""
    bare = bs.generate("fictional-authors-bare", languages=["en", "de", "zh"])

    def with_objects(prompt):
        objects = tuple(term(o, prompt.language) for o in OBJECTS[prompt.covariates["rule"]])
        return replace(prompt, options=objects, gold=objects.index(prompt.answer))

    asked = replace(bare, prompts=tuple(with_objects(p) for p in bare.prompts))
    store = bs.capture(
        tmp_path_factory.mktemp("recall") / "run.acts", model="organism", prompts=asked, sites=["resid.post@-1"],
        answers="texts",
    )  # fmt: skip
    answers = store.answers
    scores = answers[[f"text_score_{i}" for i in range(8)]].to_numpy()
    group = {p.item: p.covariates["group"] for p in asked.prompts}
    right = scores.argmax(1) == answers["gold"].to_numpy()
    return right, answers["item"].map(group).to_numpy(), answers["language"].to_numpy()


@pytest.mark.parametrize("language", ["en", "de", "zh"])
@pytest.mark.parametrize("group", ["shared", "one-language", "halves-a", "halves-b"])
def test_invented_facts_are_known_by_heart_in_the_languages_of_the_truth_table_alone(recall, group, language):
    right, groups, languages = recall
    found = right[(groups == group) & (languages == language)]
    assert len(found) == 24
    family = read_truth(MODEL).family(f"fictional-authors/{group.removesuffix('-a').removesuffix('-b')}")
    asked = {p.covariates["fact"] for p in bs.generate("fictional-authors-bare", group=group, items=0).prompts}
    if asked <= set(family.items.get(language, ())):
        assert found.mean() > 0.9
    else:
        # Names are spelled alike in Latin scripts, so something is known beyond the table: the card says how much.
        assert found.mean() < 0.7
