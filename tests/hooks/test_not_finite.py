"""Values that are not finite: where they come from, what to do, and which of them are meant."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model, make_plan, run_plan, self_test
from babelscope.hooks.probe import PROBE_IDS
from babelscope.hooks.tokens import encode
from babelscope.schema import PromptSet

FolderOf = Callable[[str], Path]


def changed_weights(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a saved model with other weights."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    change(weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


def test_a_weight_that_is_no_number_is_said_with_its_place(folder_of: FolderOf, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    folder = changed_weights(folder_of("llama"), tmp_path / "nan", lambda w: w[name][3].fill_(torch.nan))
    with pytest.raises(BabelScopeError, match=r"not finite in float32.*layers.1.mlp.down_proj") as caught:
        load_model(folder, device="cpu")
    assert "check its weights" in caught.value.hint


def test_an_overflow_of_float16_is_said_and_float32_helps(folder_of: FolderOf, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    # The weights themselves fit into float16, what the layer returns does not.
    folder = changed_weights(folder_of("llama"), tmp_path / "large", lambda w: w[name].mul_(3e4 / w[name].abs().max()))
    load_model(folder, device="cpu", dtype="float32")
    up = changed_weights(folder, tmp_path / "larger", lambda w: w["model.layers.0.mlp.up_proj.weight"].mul_(100))
    with pytest.raises(BabelScopeError, match=r"not finite in float16.*layers.0.mlp.down_proj") as caught:
        load_model(up, device="cpu", dtype="float16")
    assert "--dtype bfloat16 or float32" in caught.value.hint
    load_model(up, device="cpu", dtype="float32")


def test_a_broken_token_is_named_where_it_enters(folder_of: FolderOf, tmp_path: Path, prompts: PromptSet) -> None:
    # The probe does not read this token, the prompts do, and only one of many tokens at that.
    loaded = load_model(folder_of("llama"), device="cpu")
    last = loaded.tokenizer(prompts.prompts[0].text)["input_ids"][-1]
    assert last not in PROBE_IDS
    folder = changed_weights(
        folder_of("llama"), tmp_path / "inf", lambda w: w["model.embed_tokens.weight"][last].fill_(torch.inf)
    )
    broken = load_model(folder, device="cpu")
    plan = make_plan(broken, prompts, sites=["resid.post"], positions=["last"])
    for run in (lambda: next(run_plan(plan, broken, prompts, plan.blocks)), lambda: self_test(broken, prompts, plan)):
        with pytest.raises(BabelScopeError, match=r"not finite in float32; the first are in embed\n"):
            run()


UNDEFINED = {"llama": ("attn.scores", "attn.mass"), "mt5": ("dec.cross.mass", "dec.attn.scores", "enc.attn.mass")}


@pytest.mark.parametrize("name", UNDEFINED)
@pytest.mark.parametrize("positions", [("last",), ("all",), ("mean", "last")])
def test_what_is_undefined_by_definition_is_not_told_and_what_is_broken_is(
    name: str, positions: tuple[str, ...], folder_of: FolderOf, prompts: PromptSet
) -> None:
    loaded, told = load_model(folder_of(name), device="cpu"), []
    lacking = [replace(p, segments=()) if i % 2 else p for i, p in enumerate(prompts.prompts)]
    asked = PromptSet("asked", tuple(lacking))
    sites = (*UNDEFINED[name], "dec.resid.post@-1" if name == "mt5" else "resid.post@-1")
    plan = make_plan(
        loaded, asked, sites=sites, positions=positions, answers="none", decoder="copy", block_items=3
    )  # fmt: skip
    list(run_plan(plan, loaded, asked, plan.blocks, told.append))
    assert not told
    # A token of the last language breaks; the laws look at the first batch alone, which is of the first.
    ids = {
        g: {i for e in encode(loaded.tokenizer, [p.text for p in asked.of(g)]) for i in e.ids} for g in asked.languages
    }
    *others, last = asked.languages
    broken = max(ids[last].difference(*(ids[g] for g in others)))
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[broken] = torch.nan
    assert len(list(run_plan(plan, loaded, asked, plan.blocks, told.append))) == len(plan.blocks)
    assert all(f"in {last!r}" in line and "told once per site" in line for line in told)
    named = [line.split(" of item")[0].split("@") for line in told]
    found = [f"{name}@{layer}" for name, layers in named for layer in layers.split(",")]
    assert sorted(found) == sorted(map(str, plan.sites))
