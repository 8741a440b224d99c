import dataclasses
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope.training.corpus import MATCHING, Ingredient, examples
from babelscope.training.organism import STAGES, Recipe, train_organism
from babelscope.training.stages import Phase, Stage
from tests.forked import forked

TINY = Recipe(
    languages=("en", "sw"),
    stages=(
        Stage((Phase((Ingredient(MATCHING, 1, parameters={"numbers": 9}),), 16, 4),), 1e-3),
        Stage((Phase((Ingredient("kfrd-arithmetic", 1), Ingredient("knowledge-bare", 1)), 32, 4),), 1e-3),
    ),
    vocabulary=1400, width=32, layers=2, heads=2, mlp_width=48,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("organism") / "model"
    train_organism(TINY, folder)
    return folder


def weights(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_folder_loads_as_any_other_model(trained):
    model = AutoModelForCausalLM.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model(**tokenizer("Answer:", return_tensors="pt")).logits.shape[-1] == len(tokenizer)


def test_the_same_recipe_gives_the_same_weights(trained, tmp_path):
    train_organism(TINY, tmp_path / "again")
    for name, tensor in weights(trained).items():
        torch.testing.assert_close(weights(tmp_path / "again")[name], tensor, rtol=0, atol=0)


def test_another_seed_gives_other_weights(trained, tmp_path):
    train_organism(dataclasses.replace(TINY, seed=1), tmp_path / "other")
    assert any(not torch.equal(t, weights(tmp_path / "other")[n]) for n, t in weights(trained).items())


def test_a_killed_training_is_resumed_to_the_weights_of_an_undisturbed_one(tmp_path):
    long = Stage((Phase(TINY.stages[0].phases[0].mixture, 400, 4),), 1e-3)
    recipe = dataclasses.replace(TINY, stages=(long, TINY.stages[1]))
    train_organism(recipe, tmp_path / "whole")
    with forked(train_organism, recipe, tmp_path / "cut", cwd=tmp_path) as process:
        while not list((tmp_path / "cut").glob("checkpoints/*/*/trainer_state.json")):
            assert process.is_alive(), "it ended before it could be killed"
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "cut/model.safetensors").exists()
    train_organism(recipe, tmp_path / "cut", resume=True)
    for name, tensor in weights(tmp_path / "whole").items():
        # The optimizer state is restored bit by bit; sums of a batch may be split differently over threads.
        torch.testing.assert_close(weights(tmp_path / "cut")[name], tensor, rtol=0, atol=1e-6)


def test_every_number_up_to_999_is_one_token_and_any_text_survives(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained)
    for number in range(1000):
        assert len(tokenizer(str(number), add_special_tokens=False).input_ids) == 1
    for text in ("Jibu: 12; 385", "答え：\u202f🙂", "שלום  עולם\n"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_no_training_prompt_shows_a_problem_of_the_test_split():
    from babelscope.datasets.generators.kfrd_arithmetic import KfrdArithmetic

    mixtures = [phase.mixture for stage in STAGES for phase in stage.phases]
    arithmetic = [p for mixture in mixtures for p in mixture if p.dataset == "kfrd-arithmetic"]
    assert {p.parameters.get("compat", "corrected") for p in arithmetic} == {"corrected", "paper"}
    drawn = [e for part in arithmetic for e in examples(("en",), (part,), 2000, seed=0)]
    shown = {e.prompt.split("\nA)")[0] for e in drawn}
    tested = {p.text.split("\nA)")[0] for p in KfrdArithmetic(items=1000).generate(["en"]).prompts}
    assert not shown & tested


def test_examples_are_deterministic_and_evenly_spread_over_languages():
    part = (Ingredient("knowledge", 1),)
    first = examples(("en", "sw"), part, 100, seed=3)
    assert first == examples(("en", "sw"), part, 100, seed=3)
    swahili = np.mean(["Jibu" in e.prompt for e in first])
    assert swahili == 0.5
