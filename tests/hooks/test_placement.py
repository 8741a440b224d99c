"""Weights that lie elsewhere give the same rows, and options that cannot be met here are refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_zoo import FAMILIES

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, load_model, make_plan, run_plan, self_test
from babelscope.hooks.placement import default_device, input_device, is_dispatched, weights
from babelscope.schema import Block, PromptSet

Load = Callable[[str], LoadedModel]
FolderOf = Callable[[str], Path]

# Embedding on the host, everything from the second block on read from the disk whenever it is needed.
MAPS = {
    "llama": ("model.embed_tokens model.rotary_emb model.layers.0", "model.layers.1 model.layers.2 model.norm lm_head"),
    "gpt2": ("transformer.wte lm_head transformer.wpe transformer.drop transformer.h.0", "transformer.h.1 "
             "transformer.h.2 transformer.ln_f"),
    "bert": ("bert.embeddings cls bert.encoder.layer.0", "bert.encoder.layer.1 bert.encoder.layer.2"),
    "gemma2": ("model.embed_tokens lm_head model.rotary_emb model.layers.0", "model.layers.1 model.layers.2 "
               "model.norm"),
}  # fmt: skip


def map_file(name: str, folder: Path, *, everything: bool = False) -> Path:
    host, disk = MAPS[name]
    placed = dict.fromkeys(host.split(), "disk" if everything else "cpu") | dict.fromkeys(disk.split(), "disk")
    path = folder / "map.json"
    path.write_text(json.dumps(placed))
    return path


def captured(loaded: LoadedModel, prompts: PromptSet) -> list[Block]:
    sites = ["embed", "resid.post", "attn.heads", "mlp.neurons"]
    plan = make_plan(loaded, prompts, sites=sites, positions=["last", "mean"])
    self_test(loaded, prompts, plan)
    return list(run_plan(plan, loaded, prompts, [(language, 0) for language in plan.languages]))


def assert_same_rows(ours: list[Block], theirs: list[Block]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.rows.keys() == b.rows.keys()
        for key, rows in a.rows.items():
            np.testing.assert_array_equal(rows.values, b.rows[key].values, err_msg=str(key))
        if a.answers is not None:
            np.testing.assert_array_equal(a.answers.scores, b.answers.scores)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("name", MAPS)
def test_a_model_on_host_and_disk_is_the_same_model(
    name: str, everything: bool, load: Load, folder_of: FolderOf, prompts: PromptSet, tmp_path: Path
) -> None:
    whole = load(name)
    spread = load_model(folder_of(name), device_map=map_file(name, tmp_path, everything=everything))
    assert is_dispatched(spread.model)
    assert any(p.is_meta for p in spread.model.parameters())
    assert spread.ref == whole.ref  # the hash reads the weights where they are
    assert spread.device == torch.device("cpu")
    # The same functions on the same bits.
    assert_same_rows(captured(spread, prompts), captured(whole, prompts))


def test_the_weights_on_disk_are_hashed_and_not_their_names_alone(folder_of: FolderOf, tmp_path: Path) -> None:
    spread = load_model(folder_of("llama"), device_map=map_file("llama", tmp_path)).model
    state = weights(spread)
    assert not any(state[name].is_meta for name in state)
    assert spread.state_dict()["model.layers.2.mlp.down_proj.weight"].is_meta


def test_an_automatic_map_without_a_gpu_is_the_host(folder_of: FolderOf, load: Load) -> None:
    loaded = load_model(folder_of("llama"), device_map="auto")
    assert loaded.ref == load("llama").ref
    assert input_device(loaded.model) == loaded.device


@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ({"device_map": "nowhere.json"}, "nowhere.json: No such file", "give auto"),
        ({"device_map": "auto", "device": "cpu"}, "contradict", "one of them"),
        ({"quantize": "int4"}, "no quantization 'int4'", "nf4 or int8"),
        ({"quantize": "nf4", "merge_adapter": True}, "not merged into quantized", "leave --merge-adapter out"),
        ({"merge_adapter": True}, "no adapter to merge", "--adapter"),
    ],
)
def test_options_that_cannot_be_met_are_refused(
    options: dict[str, object], problem: str, hint: str, folder_of: FolderOf
) -> None:
    with pytest.raises(BabelScopeError, match=problem) as error:
        load_model(folder_of("llama"), **options)
    assert hint in error.value.hint


@pytest.mark.parametrize("text", ["[1]", "{", "{}", '{"lm_head": [0]}'])
def test_a_map_that_is_no_map_is_refused(text: str, folder_of: FolderOf, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(BabelScopeError, match=r"not a JSON object of module -> device") as error:
        load_model(folder_of("llama"), device_map=tmp_path / "map.json")
    assert "lm_head" in error.value.hint


def test_a_map_that_leaves_parts_out_is_told(folder_of: FolderOf, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"model.layers.0": "cpu", "model.layers.1": "disk"}')
    with pytest.raises(BabelScopeError, match=r"cannot be loaded: .*device_map"):
        load_model(folder_of("llama"), device_map=tmp_path / "map.json")


def test_a_map_that_separates_tied_weights_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    path = map_file("gpt2", tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lm_head": "disk"}))
    with pytest.raises(BabelScopeError, match=r"lm_head.weight on the disk, .* tied") as error:
        load_model(folder_of("gpt2"), device_map=path)
    assert "the same place" in error.value.hint


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_quantization_says_what_it_lacks(quantize: str, folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("babelscope.hooks.placement.find_spec", lambda _: None)
    with pytest.raises(BabelScopeError, match="needs bitsandbytes") as error:
        load_model(folder_of("llama"), quantize=quantize)
    assert "pip install bitsandbytes" in error.value.hint
    monkeypatch.setattr("babelscope.hooks.placement.find_spec", lambda _: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BabelScopeError, match="needs a CUDA device"):
        load_model(folder_of("llama"), quantize=quantize)


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert default_device() == torch.device("cuda:0")
    for rank in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert default_device() == torch.device("cuda", rank % 2)


def test_a_model_without_a_padding_token_pads_with_another_and_gives_the_same_rows(
    folder_of: FolderOf, load: Load, prompts: PromptSet, tmp_path: Path
) -> None:
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    for file, names in (("config.json", ["pad_token_id"]), ("generation_config.json", ["pad_token_id"]),
                        ("tokenizer_config.json", ["pad_token"])):  # fmt: skip
        record = json.loads((tmp_path / file).read_text())
        for name in names:
            record.pop(name, None)
        (tmp_path / file).write_text(json.dumps(record))
    without = load_model(tmp_path, device="cpu")
    assert without.tokenizer.pad_token_id is None
    assert without.model.config.pad_token_id is None
    assert_same_rows(captured(without, prompts), captured(load("llama"), prompts))


def test_every_family_says_where_its_inputs_go(load: Load) -> None:
    assert {str(input_device(load(name).model)) for name in FAMILIES} == {"cpu"}
