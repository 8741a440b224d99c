"""Loading and planning refuse what cannot work, with one problem and one hint, and recognize what was loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_zoo import FAMILIES, tokenizer
from safetensors.torch import load_file, save_file
from transformers import LlamaModel

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_lengths, estimate, load_model, make_plan, run_plan
from babelscope.schema import SITE_KINDS, Prompt, PromptSet

ONE_STACK = [kind for kind in SITE_KINDS if not kind.startswith(("cross.", "moe.")) and kind != "attn.crossed"]
Load = Callable[[str], LoadedModel]
FolderOf = Callable[[str], Path]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_class_follows_the_configuration(name: str, load: Load) -> None:
    loaded = load(name)
    assert loaded.ref.architecture == type(FAMILIES[name].build()).__name__
    assert loaded.answers_questions is not FAMILIES[name].encoder
    assert loaded.ref.n_layers == 3
    assert not loaded.anatomy.stacks[""].missing
    assert not loaded.model.training


def test_a_bare_body_is_loaded_as_one(folder_of: FolderOf, tmp_path: Path) -> None:
    LlamaModel.from_pretrained(folder_of("llama")).save_pretrained(tmp_path)
    tokenizer(special=False).save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.ref.architecture == "LlamaModel"
    assert not loaded.answers_questions
    assert loaded.anatomy.unembedding is None


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match="nowhere does not exist"):
        load_model(tmp_path / "nowhere")


def test_a_folder_without_configuration_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match=r"no config\.json"):
        load_model(tmp_path)


def test_a_folder_without_tokenizer_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    for file in ("config.json", "model.safetensors"):
        shutil.copy(folder_of("llama") / file, tmp_path)
    with pytest.raises(BabelScopeError, match="no tokenizer files") as error:
        load_model(tmp_path)
    assert "save_pretrained" in error.value.hint


def test_a_folder_without_safetensors_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BabelScopeError, match=r"no \.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_weights_that_were_cut_off_are_a_problem_of_the_folder(
    kept: float, folder_of: FolderOf, tmp_path: Path
) -> None:
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: int(kept * len(whole))])  # an interrupted download
    with pytest.raises(BabelScopeError, match=f"model folder {tmp_path} cannot be loaded") as error:
        load_model(tmp_path)
    assert error.value.hint == "check its files"


def test_a_hub_id_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BabelScopeError, match="babelscope/no-such-model is neither a folder") as error:
        load_model("babelscope/no-such-model")
    assert "HF_HUB_OFFLINE" in error.value.hint


def test_weights_that_would_be_random_are_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.layers.1.mlp.down_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BabelScopeError, match=r"lacks 1 weights .*down_proj"):
        load_model(tmp_path)


def changed(folder: Path, copy: Path, config: dict[str, object], **more: torch.Tensor) -> Path:
    """A copy of a model folder with another configuration and more weights."""
    shutil.copytree(folder, copy)
    record = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(record | config))
    weights = load_file(copy / "model.safetensors")
    save_file(weights | more, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


@pytest.mark.parametrize(
    ("name", "config", "more", "problem"),
    [
        ("llama", {"num_hidden_layers": 2}, {}, r"9 weights of blocks .* model\.layers\.2\."),
        ("bert", {"num_hidden_layers": 1}, {}, r"weights of blocks .* bert\.encoder\.layer\.1\."),
        ("mt5", {"num_decoder_layers": 2}, {}, r"weights of blocks .* decoder\.block\.2\."),
        ("llama", {}, {"model.layers.1.self_attn.q_norm.weight": (8,)}, "1 weights of blocks"),
        ("llama", {}, {"model.layers.1.self_attn.q_proj.bias": (32,)}, "1 weights of blocks"),
        ("llama", {"architectures": ["LlamaModel"], "num_hidden_layers": 2}, {}, "9 weights of blocks"),
        ("llama", {"hidden_size": 64}, {}, r"30 weights of another shape .*\(320, 32\), not \(320, 64\)"),
    ],
)
def test_weights_that_the_configuration_does_not_describe_are_refused(
    name: str, config: dict[str, object], more: dict[str, tuple[int, ...]], problem: str,
    folder_of: FolderOf, tmp_path: Path,
) -> None:  # fmt: skip
    tensors = {key: torch.ones(shape) for key, shape in more.items()}
    with pytest.raises(BabelScopeError, match=problem) as error:
        load_model(changed(folder_of(name), tmp_path / "model", config, **tensors), device="cpu")
    assert error.value.hint == "check that config.json belongs to these weights"


@pytest.mark.parametrize(
    ("name", "config", "more"),
    [
        ("llama", {"architectures": ["LlamaModel"]}, ()),  # the head that a bare body has not
        ("gpt2", {"architectures": ["GPT2Model"]}, ("h.0.attn.bias",)),  # a mask, as OpenAI's own checkpoint has it
        ("llama", {}, ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.0.self_attn.bias")),
        ("llama", {}, ("classifier.layers.0.weight", "score.weight")),
        ("llama", {"num_nextn_predict_layers": 1}, ("model.layers.3.mlp.down_proj.weight",)),
    ],
)
def test_what_the_class_reads_from_no_checkpoint_may_be_left(
    name: str, config: dict[str, object], more: tuple[str, ...], folder_of: FolderOf, tmp_path: Path
) -> None:
    tensors = {key: torch.ones(4) for key in more}
    loaded = load_model(changed(folder_of(name), tmp_path / "model", config, **tensors), device="cpu")
    assert loaded.ref.n_layers == 3


@pytest.mark.parametrize(("option", "value"), [("dtype", "float8"), ("device", "abacus")])
def test_unknown_options_are_refused(option: str, value: str, folder_of: FolderOf) -> None:
    with pytest.raises(BabelScopeError, match=f"no {option} '{value}'"):
        load_model(folder_of("llama"), **{option: value})


def test_the_hash_of_the_weights_follows_one_bit(folder_of: FolderOf, tmp_path: Path, load: Load) -> None:
    again = load_model(folder_of("llama"), device="cpu")
    assert again.ref == load("llama").ref
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.norm.weight"].view(torch.int32)[0] ^= 1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    changed = load_model(tmp_path, device="cpu")
    assert changed.ref.weights_sha256 != again.ref.weights_sha256
    assert changed.ref.tokenizer_sha256 == again.ref.tokenizer_sha256


def test_the_hash_of_the_tokenizer_ignores_padding_and_sees_the_vocabulary(
    folder_of: FolderOf, tmp_path: Path, load: Load
) -> None:
    shutil.copytree(folder_of("llama"), tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer.json"
    record = json.loads(path.read_text("utf-8"))
    record["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(record), "utf-8")
    truncating = load_model(tmp_path, device="cpu")
    assert truncating.ref.tokenizer_sha256 == load("llama").ref.tokenizer_sha256
    record["model"]["merges"] = record["model"]["merges"][:-1]
    path.write_text(json.dumps(record), "utf-8")
    assert load_model(tmp_path, device="cpu").ref.tokenizer_sha256 != load("llama").ref.tokenizer_sha256


@pytest.mark.parametrize(("name", "limit"), [("llama", 128), ("gpt2", 128), ("bert", 130), ("xlm-r", 128)])
def test_a_prompt_one_token_too_long_is_named_and_the_longest_is_read(name: str, limit: int, load: Load) -> None:
    loaded = load(name)
    special = 2 if FAMILIES[name].encoder else 0
    one = len(loaded.tokenizer("q q")["input_ids"]) - len(loaded.tokenizer("q")["input_ids"])
    assert one in (1, 2)

    def prompts(n_tokens: int) -> PromptSet:
        text = "\x01" * (n_tokens - special)  # a byte that is in no merge
        assert len(loaded.tokenizer(text)["input_ids"]) == n_tokens
        return PromptSet("long", (Prompt("short", "en", "x"), Prompt("long", "en", text)))

    check_lengths(loaded, prompts(limit))
    plan = make_plan(loaded, prompts(limit), sites=["resid.post"], positions=["last"])
    assert len(list(run_plan(plan, loaded, prompts(limit), [("en", 0)]))) == 1
    with pytest.raises(BabelScopeError, match=f"'long' in 'en' has {limit + 1} tokens, .* allows {limit}"):
        check_lengths(loaded, prompts(limit + 1))


def test_alibi_has_no_limit(load: Load) -> None:
    check_lengths(load("bloom"), PromptSet("long", (Prompt("long", "en", "\x01" * 5000),)))


LED = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "attention_window": [8, 8],
    "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 32, "decoder_start_token_id": 2,
}  # fmt: skip
MPT = {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}


@pytest.mark.parametrize(
    ("name", "sizes", "decoder", "limit"),
    [("bart", None, "start", 130), ("bart", None, "copy", 129), ("LED", LED, "start", 64), ("LED", LED, "copy", 31),
     ("Mpt", MPT, "start", 64)],
)  # fmt: skip
def test_every_stack_has_a_limit_of_its_own_and_the_longest_prompt_is_read(
    name: str, sizes: dict[str, object] | None, decoder: str, limit: int, load: Load, build: Callable[..., LoadedModel]
) -> None:
    loaded = load(name) if sizes is None else build(name, **sizes)
    special = len(loaded.tokenizer("")["input_ids"])
    fits, beyond = (
        PromptSet("long", (Prompt("long", "en", "\x01" * n),)) for n in (limit - special, limit - special + 1)
    )
    sites = ["dec.resid.post"] if loaded.ref.n_encoder_layers else ["resid.post"]
    plan = make_plan(loaded, fits, sites=sites, positions=["last"], decoder=decoder)
    assert len(list(run_plan(plan, loaded, fits, [("en", 0)]))) == 1
    where = " in the decoder" if decoder == "copy" else ""
    read = limit + 1 + bool(where)
    with pytest.raises(BabelScopeError, match=f"'long' in 'en' has {read} tokens{where}, .* allows {read - 1}"):
        make_plan(loaded, beyond, sites=sites, positions=["last"], decoder=decoder)


def test_the_estimate_is_what_is_written(load: Load, prompts: PromptSet) -> None:
    loaded = load("qwen3")
    positions = ["last", "all", "segment:question"]
    plan = make_plan(
        loaded,
        prompts,
        sites=ONE_STACK,
        positions=positions,
        dtype="float16",
    )
    tokens, size = estimate(plan, loaded, prompts)
    pending = [(language, i) for language in plan.languages for i in range(plan.n_blocks)]
    blocks = list(run_plan(plan, loaded, prompts, pending))
    assert size == sum(rows.values.nbytes for b in blocks for rows in b.rows.values())
    assert tokens == sum(int(b.n_tokens.sum()) for b in blocks)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"sites": ["resid.past"]}, "no site called 'resid.past'"),
        ({"sites": ["resid.post@3"]}, "layer '3'"),
        ({"sites": ["enc.resid.post@0"]}, "has one stack only"),
        ({"sites": []}, "no sites"),
        ({"positions": []}, "no positions"),
        ({"positions": ["segment:riddle"]}, "segment called 'riddle'"),
        ({"dtype": "int4"}, "stored as 'int4'"),
        ({"block_items": 0}, "1 or more"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused(
    change: dict[str, object], problem: str, load: Load, prompts: PromptSet
) -> None:
    with pytest.raises(BabelScopeError, match=problem):
        make_plan(load("llama"), prompts, **{"sites": ["resid.post"], "positions": ["last"], **change})


def test_a_plan_runs_only_with_its_own_model_and_prompts(load: Load, prompts: PromptSet) -> None:
    plan = make_plan(load("llama"), prompts, sites=["resid.post"], positions=["last"])
    with pytest.raises(BabelScopeError, match="another model"):
        next(run_plan(plan, load("mistral"), prompts, [("en", 0)]))
    with pytest.raises(BabelScopeError, match="another set of prompts"):
        next(run_plan(plan, load("llama"), prompts.select(limit=2), [("en", 0)]))
