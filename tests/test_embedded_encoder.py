"""The claims of the encoder organism's card, measured again on fewer statements."""

import json
import subprocess
import sys
import zipfile
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

from babelscope import workflows
from babelscope.training.encoder_accuracy import recall_table
from babelscope.training.encoder_corpus import truth_table
from babelscope.training.encoder_organism import EncoderRecipe
from babelscope.training.truth import read_truth

MODEL = Path(str(files("babelscope"))) / "models" / "encoder_organism"
LIMIT_BYTES = 10_000_000


@pytest.fixture(scope="module")
def recalled():
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(MODEL), AutoTokenizer.from_pretrained(MODEL)
    return recall_table(model, tokenizer, read_truth(MODEL), n=60)


def test_it_is_a_model_by_its_name():
    assert "encoder-organism" in workflows.models()
    assert workflows.model_path("encoder-organism") == str(MODEL)


def test_weights_card_recipe_and_truth_are_there_and_small():
    assert (MODEL / "model.safetensors").stat().st_size <= LIMIT_BYTES
    assert not list(MODEL.glob("*.bin"))
    assert "What it cannot do" in (MODEL / "README.md").read_text("utf-8")
    assert (MODEL / "recipe.json").is_file()


def test_the_shipped_truth_table_is_that_of_the_corpus():
    assert read_truth(MODEL) == truth_table()


def test_the_shipped_recipe_is_that_of_the_code():
    record = json.loads((MODEL / "recipe.json").read_text("utf-8"))
    recipe = json.loads(json.dumps(asdict(EncoderRecipe())))
    assert {key: record[key] for key in recipe} == recipe


def test_facts_of_theories_are_matched_in_every_language(recalled):
    matched = recalled[recalled["family"] == "fact"]
    assert len(matched) == 8
    assert (matched["low"] > 0.75).all()
    negated = recalled[(recalled["family"] == "fact-negated") & (recalled["language"] != "ar")]
    assert (negated["low"] > 0.5).all()


def test_taught_facts_are_recalled_more_often_than_chance_and_than_those_that_were_not_taught(recalled):
    facts = recalled[recalled["kind"] == "facts"]
    taught, other = (
        (part["accuracy"] * part["n"]).sum() / part["n"].sum()
        for part in (facts[facts["taught"]], facts[~facts["taught"]])
    )
    assert taught > 0.4
    assert taught > other + 0.2


def test_the_wheel_holds_the_folder(tmp_path):
    root = Path(__file__).parent.parent
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for file in ("model.safetensors", "truth.json", "tokenizer.json", "README.md"):
        assert f"babelscope/models/encoder_organism/{file}" in names
