"""Options of capture that say how a model is loaded reach the model, the identity and the provenance."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import babelscope as bs
from babelscope.activations_store import ActivationStore
from tests.cli.conftest import Finished
from tests.cli.test_errors import assert_one_problem

Cli = Callable[..., Finished]

QUICK = ("--prompts", "knowledge", "--languages", "en,sw", "--limit", "4", "--site", "mlp.neurons")
CHAT = "{% for m in messages %}<s>user: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}bot:{% endif %}"


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
    return folder


def captured(cli: Cli, *arguments: object) -> ActivationStore:
    done = cli("capture", "run.acts", *QUICK, *arguments, "--overwrite")
    assert done.code == 0, done.err
    return bs.open("run.acts")


def rows(store: ActivationStore) -> np.ndarray:
    return store.select("mlp.neurons@1").numpy()


def test_an_adapter_is_in_the_rows_the_identity_and_the_provenance(cli: Cli, tiny_model: Path, adapter: Path) -> None:
    plain = captured(cli, "--model", tiny_model)
    base, fingerprint = rows(plain), plain.plan.fingerprint
    beside = captured(cli, "--model", tiny_model, "--adapter", adapter)
    assert np.abs(rows(beside) - base).max() > 1e-3
    assert beside.plan.fingerprint != fingerprint
    assert beside.provenance["adapter"] == str(adapter)
    assert beside.provenance["self_test"]["adapter active"] > 0
    assert "peft" in beside.provenance["versions"]
    found = rows(beside)
    merged = captured(cli, "--model", tiny_model, "--adapter", adapter, "--merge-adapter")
    np.testing.assert_allclose(rows(merged), found, rtol=1e-4, atol=1e-5)  # float32, another order of adding
    assert merged.plan.model.adapter_merged
    alone = captured(cli, "--model", adapter)
    np.testing.assert_array_equal(rows(alone), found)
    done = cli("capture", "run.acts", *QUICK, "--model", tiny_model, "--resume")
    assert_one_problem(done, "another plan: model.adapter_sha256", "repeat the first command")


def test_an_adapter_for_another_base_is_noted_and_the_note_is_kept(cli: Cli, tiny_model: Path, adapter: Path) -> None:
    shutil.copytree(adapter, "other")
    config = json.loads(Path("other/adapter_config.json").read_text())
    Path("other/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "org/instruct"}))
    said: list[str] = []
    store = bs.capture(
        "noted.acts", model=str(tiny_model), adapter="other", prompts="knowledge", limit=2, note=said.append
    )
    (note,) = store.provenance["model_notes"]
    assert note in said
    assert "was made for org/instruct" in note
    assert captured(cli, "--model", tiny_model, "--adapter", adapter).provenance["model_notes"] == []


def test_the_attention_that_was_chosen_is_part_of_the_identity(cli: Cli, tiny_model: Path) -> None:
    own = captured(cli, "--model", tiny_model)
    assert own.plan.model.attn_implementation == "sdpa"
    assert captured(cli, "--model", tiny_model, "--attention", "sdpa").plan.fingerprint == own.plan.fingerprint
    done = cli("capture", "run.acts", *QUICK, "--model", tiny_model, "--attention", "eager", "--resume")
    assert_one_problem(done, "another plan: model.attn_implementation", "repeat the first command")
    assert captured(cli, "--model", tiny_model, "--attention", "eager").plan.model.attn_implementation == "eager"


def test_a_model_on_the_disk_resumes_what_one_in_memory_began(cli: Cli, tiny_model: Path) -> None:
    expected = rows(captured(cli, "--model", tiny_model, "--block-items", 1))
    for shard in sorted(Path("run.acts/shards/l-sw").glob("*.h5"))[1:]:
        shard.unlink()
    parts = ("model.embed_tokens", "model.rotary_emb", "model.layers.0", "model.layers.1", "model.norm", "lm_head")
    Path("map.json").write_text(json.dumps(dict.fromkeys(parts, "disk")))
    options = ("--block-items", 1, "--device-map", "map.json", "--resume")
    done = cli("capture", "run.acts", *QUICK, "--model", tiny_model, *options)
    assert done.code == 0, done.err
    np.testing.assert_array_equal(rows(bs.open("run.acts")), expected)


def test_a_chat_template_wraps_the_prompts(cli: Cli, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "chat")
    (Path("chat") / "chat_template.jinja").write_text(CHAT)
    plain = captured(cli, "--model", "chat")
    assert plain.plan.model.chat_template_sha256 == ""
    done = cli("capture", "run.acts", *QUICK, "--model", "chat", "--chat-template", "--resume")
    assert_one_problem(done, "model.chat_template_sha256", "repeat the first command")
    store = captured(cli, "--model", "chat", "--chat-template", "--position", "segment:question", "--position", "last")
    assert store.plan.model.chat_template_sha256
    done = cli("capture", "other.acts", *QUICK, "--model", tiny_model, "--chat-template")
    assert_one_problem(done, "no chat template", "leave --chat-template out")


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (["--device-map", "nowhere.json"], "nowhere.json", "give auto"),
        (["--device-map", "auto", "--device", "cpu"], "contradict", "one of them"),
        (["--quantize", "int3"], "no quantization 'int3'", "nf4 or int8"),
        (["--adapter", "nowhere/at/all"], "nowhere/at/all is no adapter", "adapter_config.json"),
        (["--merge-adapter"], "no adapter to merge", "--adapter"),
        (["--attention", "sdap"], "no attention implementation called 'sdap'", "did you mean sdpa"),
    ],
)
def test_an_option_that_cannot_be_met_leaves_nothing(
    cli: Cli, tiny_model: Path, arguments: list[str], problem: str, hint: str
) -> None:
    assert_one_problem(cli("capture", "run.acts", *QUICK, "--model", tiny_model, *arguments), problem, hint)
    assert list(Path().iterdir()) == []


def test_whether_code_of_the_model_was_run_is_recorded(cli: Cli, tiny_model: Path) -> None:
    assert captured(cli, "--model", tiny_model).provenance["trust_remote_code"] is False
    assert captured(cli, "--model", tiny_model, "--trust-remote-code").provenance["trust_remote_code"] is True
