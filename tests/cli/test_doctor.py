"""What `doctor` prints, and what it exits with."""

import inspect
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM, XLMConfig, XLMWithLMHeadModel

import babelscope.hooks.selftest
from babelscope import workflows
from babelscope.cli import capture, doctor
from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model
from babelscope.hooks.anatomy_file import StackPaths
from tests.cli import tiny
from tests.cli.conftest import Finished

Cli = Callable[..., Finished]
PAGE = Path(__file__).parents[2] / "docs" / "anatomy.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("llama"))


def test_a_model_that_is_located_and_proven_exits_0(cli: Cli, folder: Path) -> None:
    done = cli("doctor", folder)
    assert done.code == 0, done.err
    rows = [re.split(r"  +", line.strip()) for line in done.out.splitlines()]
    assert ["down projection", "2 of 2", "model.layers.1.mlp.down_proj"] in rows
    assert ["output projection", "2 of 2", "model.layers.1.self_attn.o_proj"] in rows
    assert ["residual", "2 of 2", "sum"] in rows
    assert {row[0] for row in rows} >= {"mlp.neurons", "attn.heads", "single equals batched", "mask is honored"}
    assert "problems" not in done.out


def test_json_is_what_python_gives(cli: Cli, folder: Path) -> None:
    done = cli("doctor", folder, "--json")
    found = json.loads(done.out)
    assert found == json.loads(json.dumps(workflows.doctor(str(folder)).to_json()))
    assert found["problems"] == []
    assert max(found["laws"].values()) < 1e-5


def test_a_model_that_is_not_located_exits_1_and_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny.save_model(tmp_path)
    config = XLMConfig(vocab_size=900, emb_dim=32, n_layers=2, n_heads=4, architectures=["XLMWithLMHeadModel"])
    XLMWithLMHeadModel(config).save_pretrained(tmp_path)
    done = cli("doctor", tmp_path)
    assert done.code == 1
    assert "XLMWithLMHeadModel: not located in every layer: " in done.err
    assert "hint: " in done.err
    assert "down projection" in done.out  # in the table, as not found
    assert "notes" in done.out


def test_sites_that_differ_from_layer_to_layer_are_listed_apart(cli: Cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny.save_model(tmp_path)
    config = Qwen2MoeConfig(
        vocab_size=900, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, mlp_only_layers=[1], moe_intermediate_size=24,
        shared_expert_intermediate_size=40, pad_token_id=2,
    )  # fmt: skip
    Qwen2MoeForCausalLM(config).save_pretrained(tmp_path)
    done = cli("doctor", tmp_path, "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert {"mlp.neurons@0,2", "mlp.neurons@1", "moe.neurons@0,2", "mlp.out"} <= set(found["sites"])
    assert {"moe.expert", "moe.weight", "mlp.neurons"} <= set(found["laws"])
    (experts,) = (p for p in found["parts"] if p["name"] == "experts")
    assert (experts["path"], experts["n_found"], experts["n_layers"]) == ("model.layers.2.mlp.experts", 2, 3)


def test_a_self_test_that_fails_exits_1(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(babelscope.hooks.selftest, "_masked", lambda *_: 1.0)
    done = cli("doctor", folder)
    assert done.code == 1
    assert "mask is honored: error 1.0e+00" in done.err
    assert "can be captured" not in done.err
    assert "output projection" in done.out


def test_every_command_loads_a_model_by_the_same_options() -> None:
    names = set(inspect.signature(load_model).parameters) - {"source"}
    verbs = [inspect.signature(verb).parameters for verb in (load_model, workflows.capture, workflows.doctor)]
    defaults = [{name: verb[name].default for name in names} for verb in verbs]
    assert defaults[0] == defaults[1] == defaults[2]
    shown = {"attention" if name == "attn_implementation" else name for name in names}
    options = [inspect.signature(command.run).parameters for command in (capture, doctor)]
    assert {n: options[0][n] for n in shown} == {n: options[1][n] for n in shown}


def test_the_options_reach_the_model(cli: Cli, folder: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(tmp_path)
    found = workflows.doctor(str(folder), adapter=str(tmp_path), attn_implementation="eager")
    assert found.self_test["adapter active"] > 0
    config.base_model_name_or_path = "org/other"
    config.save_pretrained(tmp_path)
    done = cli("doctor", folder, "--adapter", tmp_path, "--attention", "eager", "--trust-remote-code")
    assert done.code == 0, done.err
    assert "adapter active" in done.out
    assert f"-adapter{tmp_path}wasmadefororg/other;" in "".join(done.out.split())  # a long path is broken
    for wrong, problem in (
        (["--quantize", "int3"], "no quantization 'int3'"),
        (["--device-map", "nowhere.json"], "nowhere.json"),
        (["--attention", "sdap"], "no attention implementation called 'sdap'\n  hint: did you mean sdpa?"),
        (["--merge-adapter"], "no adapter to merge"),
    ):
        done = cli("doctor", folder, *wrong)
        assert done.code == 1
        assert problem in done.err


def test_a_wrong_anatomy_file_is_refused(cli: Cli, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("down_projection: model.layers.{layer}.mlp.up_proj")
    done = cli("doctor", folder, "--anatomy", file)
    assert done.code == 1
    assert "no equation holds with the down_projection that is named" in done.err
    with pytest.raises(BabelScopeError, match="no equation holds"):
        workflows.capture(tmp_path / "run.acts", model=str(folder), prompts="knowledge", limit=2, anatomy=file)


def test_the_example_of_the_page_runs(cli: Cli, tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n# anatomy.yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "anatomy.yaml").write_text(text)
    assert "python cli.py doctor organism --anatomy anatomy.yaml" in PAGE.read_text(encoding="utf-8")
    done = cli("doctor", "organism", "--anatomy", tmp_path / "anatomy.yaml")
    assert done.code == 0, done.err


def test_the_page_explains_every_part_that_can_be_named() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in StackPaths.model_fields)
