"""Trainings that start from each other."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.training.chain import read_chain
from tests.cli import tiny

FAST = {"learning_rate": 1e-3, "batch": 4, "max_length": 512}
PROMPTS = {"prompts": ["kfrd-arithmetic"], "parameters": {"items": 8}, "languages": ["de"]}


def test_the_ladder_goes_up_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    model = tiny.save_model(tmp_path / "tiny")
    (tmp_path / "text.txt").write_text("Ein Satz und noch einer.\n" * 12, "utf-8")
    chain = {
        "model": str(model),
        "stages": {
            "sft": {"method": "full", "data": PROMPTS, "optimization": FAST},
            "cpt": {"method": "full", "data": {"text": [str(tmp_path / "text.txt")]}, "optimization": FAST},
            "cpt-sft": {"after": "cpt", "method": "full", "data": PROMPTS, "optimization": FAST},
        },
    }
    planned = bs.train_chain(chain, tmp_path / "ladder", dry_run=True)
    assert [plan.examples for plan in planned.values()] == [8, 12, 8]
    assert not (tmp_path / "ladder").exists()
    done = bs.train_chain(chain, tmp_path / "ladder")
    assert list(done) == ["sft", "cpt", "cpt-sft"]
    card = json.loads((done["cpt-sft"] / "run_card.json").read_text())
    assert card["config"]["model"] == str(done["cpt"])
    weights = {name: load_file(folder / "model.safetensors") for name, folder in done.items()}
    assert not torch.equal(weights["sft"]["lm_head.weight"], weights["cpt-sft"]["lm_head.weight"])
    stamp = (done["cpt"] / "run_card.json").stat().st_mtime_ns
    (done["cpt-sft"] / "model.safetensors").unlink()
    for file in done["cpt-sft"].iterdir():
        file.unlink()
    done["cpt-sft"].rmdir()
    again = bs.train_chain(chain, tmp_path / "ladder")
    assert (again["cpt"] / "run_card.json").stat().st_mtime_ns == stamp
    found = load_file(again["cpt-sft"] / "model.safetensors")
    assert all(torch.equal(x, weights["cpt-sft"][name]) for name, x in found.items())


def test_a_chain_that_cannot_be_is_refused() -> None:
    def chain(**stages: dict) -> dict:
        return {"model": "m", "stages": stages}

    plain = {"method": "full", "data": PROMPTS, "optimization": FAST}
    lora = {**plain, "method": "lora"}
    for found, problem in (
        (chain(a={**plain, "after": "b"}, b=plain), "'a' comes after 'b', which is no earlier stage"),
        (chain(a=lora, b={**plain, "after": "a"}), "set lora.merge in 'a'"),
        (chain(a={**plain, "shade": 1}), "stage a: shade is no field"),
        ({"model": "m"}, "stages"),
    ):
        with pytest.raises(BabelScopeError, match=problem):
            read_chain(found)
    read_chain(chain(a={**lora, "lora": {"merge": True}}, b={**plain, "after": "a"}))
    assert list(read_chain("chain-ladder").stages) == ["sft", "cpt", "cpt-sft"]
