"""What comes with a model: Python files run on request alone, and attention of its own is kept."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_zoo import tokenizer
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
)  # fmt: skip
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, load_model, make_plan, run_plan, self_test
from babelscope.hooks.interface import attention_through
from babelscope.schema import Block, Position, PromptSet

Load = Callable[[str], LoadedModel]
FolderOf = Callable[[str], Path]

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({trace!r}).write_text("ran")

class OwnConfig(LlamaConfig):
    model_type = "own-code"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own_code(folder_of: FolderOf, tmp_path: Path) -> tuple[Path, Path]:
    """A model whose classes come in a Python file, and the file that this code writes when it runs."""
    folder, trace = tmp_path / "model", tmp_path / "trace"
    shutil.copytree(folder_of("llama"), folder)
    (folder / "own.py").write_text(CODE.format(trace=str(trace)))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own-code", "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder, trace


def test_code_of_a_model_runs_on_request_alone(
    own_code: tuple[Path, Path], load: Load, prompts: PromptSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, trace = own_code
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    with pytest.raises(BabelScopeError, match="custom code") as error:
        load_model(folder, device="cpu")
    assert error.value.hint == "add --trust-remote-code if you trust it"
    assert not trace.exists()
    loaded = load_model(folder, device="cpu", trust_remote_code=True)
    assert trace.read_text() == "ran"
    assert loaded.ref.architecture == "OwnForCausalLM"
    assert loaded.answers_questions
    assert loaded.ref.weights_sha256 == load("llama").ref.weights_sha256
    ours, plain = captured(loaded, prompts), captured(load("llama"), prompts)
    for key, rows in ours.rows.items():
        np.testing.assert_array_equal(rows.values, plain.rows[key].values)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("    def __init__(self, config):\n        raise AttributeError('on purpose')", "AttributeError: on purpose"),
        (
            "    def __init__(self, config):\n        super().__init__(config)\n        self.model.norm.forward = None",
            "TypeError",  # when it is run
        ),
        ("    def forward(self, :", "SyntaxError"),
    ],
)
def test_code_of_a_model_that_fails_is_one_problem(
    more: str, why: str, own_code: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = own_code
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    with (folder / "own.py").open("a") as file:
        file.write(more)
    with pytest.raises(BabelScopeError, match=f"{folder} cannot be loaded: .*{why}") as error:
        load_model(folder, device="cpu", trust_remote_code=True)
    assert error.value.hint == "check its files and its own code"


def test_trust_remote_code_false_passed(folder_of: FolderOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, it would mean that the user is asked on the terminal."""
    passed = []
    for loader in (AutoConfig, AutoTokenizer, AutoModelForCausalLM):
        real = loader.from_pretrained

        def recorded(*arguments: object, real: Callable[..., object] = real, **options: object) -> object:
            passed.append(options["trust_remote_code"])
            return real(*arguments, **options)

        monkeypatch.setattr(loader, "from_pretrained", recorded)
    load_model(folder_of("llama"), device="cpu")
    assert len(passed) >= 3
    assert set(passed) == {False}


def captured(loaded: LoadedModel, prompts: PromptSet) -> Block:
    plan = make_plan(loaded, prompts, sites=["resid.post", "attn.heads"], positions=["last"])
    self_test(loaded, prompts, plan)
    return next(run_plan(plan, loaded, prompts, [("en", 0)]))


@pytest.fixture
def custom_attention() -> Iterator[list[int]]:
    """An attention that reads every query backwards, registered as a cross-lingual query would be; counts its calls."""
    calls: list[int] = []

    def backwards(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        calls.append(module.layer_idx)
        return sdpa_attention_forward(module, query.flip(-1), key, value, mask, **options)

    AttentionInterface.register("test_backwards", backwards)
    AttentionMaskInterface.register("test_backwards", sdpa_mask)
    yield calls
    AttentionInterface._global_mapping.pop("test_backwards")
    AttentionMaskInterface._global_mapping.pop("test_backwards")


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_custom_attention_is_kept_while_capturing(
    name: str, load: Load, folder_of: FolderOf, prompts: PromptSet, custom_attention: list[int]
) -> None:
    loaded = load_model(folder_of(name), device="cpu", attn_implementation="test_backwards")
    assert loaded.ref.attn_implementation == "test_backwards"
    custom_attention.clear()
    block = captured(loaded, prompts)
    assert set(custom_attention) == set(range(3))
    prompt = prompts.of("en")[2]
    ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"]])
    seen = []
    handle = (
        loaded.anatomy.stacks[""]
        .layers[1]
        .attention.output_projection.register_forward_pre_hook(lambda _, args: seen.append(args[0][0, -1]))
    )
    with torch.inference_mode():
        states = loaded.model(ids, output_hidden_states=True).hidden_states
    handle.remove()
    # float32 passes in another batch shape
    close = {"rtol": 1e-4, "atol": 2e-5}
    np.testing.assert_allclose(block.rows["resid.post", Position("last")].values[1, 2], states[2][0, -1], **close)
    np.testing.assert_allclose(block.rows["attn.heads", Position("last")].values[1, 2].reshape(-1), seen[0], **close)
    plain = captured(load(name), prompts)
    for key, rows in block.rows.items():
        assert np.abs(rows.values - plain.rows[key].values).max() > 0.01


def test_custom_attention_is_kept_by_the_workflow(
    folder_of: FolderOf, prompts: PromptSet, custom_attention: list[int], tmp_path: Path
) -> None:
    options = {"model": str(folder_of("llama")), "prompts": prompts, "device": "cpu"}
    sites = ["resid.post", "attn.heads", "attn.q", "attn.mass"]
    for n_sites in (1, 2, 4):
        custom_attention.clear()
        out = tmp_path / f"{n_sites}.acts"
        store = bs.capture(out, sites=sites[:n_sites], attn_implementation="test_backwards", **options)
        assert set(custom_attention) == {0, 1, 2}
        assert store.plan.model.attn_implementation == "test_backwards"
        loaded = load_model(folder_of("llama"), device="cpu", attn_implementation="test_backwards")
        expected = captured(loaded, prompts).rows["resid.post", Position("last")].values[1]
        found = store.select("resid.post@1", languages=["en"]).numpy().reshape(expected.shape)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)  # float32 passes in another batch shape
    plain = bs.capture(tmp_path / "plain.acts", sites=sites[:1], **options)
    assert np.abs(plain.select("resid.post@1", languages=["en"]).numpy().reshape(expected.shape) - found).max() > 0.01


@pytest.mark.parametrize("eager", [False, True])
def test_custom_attention_is_kept_when_we_look_inside(
    eager: bool, folder_of: FolderOf, prompts: PromptSet, custom_attention: list[int]
) -> None:
    loaded = load_model(folder_of("llama"), device="cpu", attn_implementation="test_backwards")
    expected = captured(loaded, prompts)
    custom_attention.clear()
    with attention_through(loaded.model, lambda call, own: own(call), eager=eager):
        found = captured(loaded, prompts)
    assert set(custom_attention) == {0, 1, 2}
    for key, rows in expected.rows.items():
        np.testing.assert_array_equal(found.rows[key].values, rows.values)


def test_an_attention_that_nobody_registered_is_refused(folder_of: FolderOf) -> None:
    with pytest.raises(BabelScopeError, match="no_such_attention"):
        load_model(folder_of("llama"), device="cpu", attn_implementation="no_such_attention")
    with pytest.raises(BabelScopeError, match="BloomForCausalLM does not support") as error:
        load_model(folder_of("bloom"), device="cpu", attn_implementation="sdpa")
    assert error.value.hint == "leave --attention out, or name another one"


def test_a_model_whose_blocks_share_their_weights_is_refused_with_one_hint(tmp_path: Path) -> None:
    config = AlbertConfig(
        vocab_size=320, embedding_size=16, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    AlbertModel(config).save_pretrained(tmp_path)
    tokenizer(special=True).save_pretrained(tmp_path)
    with pytest.raises(BabelScopeError, match="Albert") as error:
        load_model(tmp_path, device="cpu")
    assert error.value.hint
