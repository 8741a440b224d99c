"""The claims of the embedded model's card, measured again on fewer items."""

from importlib.resources import files
from pathlib import Path

import pytest

import babelscope as bs

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
    assert (MODEL / "recipe.json").is_file()


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
