"""Adapters are found in the identity, in the rows and in the self-test, merged or not."""

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from model_zoo import LAYERS, tokenizer
from peft import LoraConfig, PeftConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, LlamaForCausalLM, PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_laws, load_model, make_plan, merged_copy, run_plan, self_test
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.tokens import encode, make_batch
from babelscope.schema import Block, PromptSet

Load = Callable[[str], LoadedModel]
FolderOf = Callable[[str], Path]
AdapterOf = Callable[[str], Path]

# Projections of attention and MLP, fused ones among them: the output and the down projection too, which are sites.
TARGETS = {
    "llama": ["q_proj", "o_proj", "gate_proj", "down_proj"],
    "gemma2": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj"],
    "bert": ["query", "value", "dense"],
}
SITES = ["embed", "resid.post", "attn.out", "attn.heads", "mlp.act", "mlp.neurons", "mlp.out"]
# Merging adds BA to W in float32 before the product instead of after it; measured 9e-6 at most on values up to 11,
# while the adapter itself changes these rows by 4 to 10.
CLOSE = {"rtol": 2e-4, "atol": 2e-5}


@pytest.fixture(scope="module")
def adapter_of(folder_of: FolderOf, tmp_path_factory: pytest.TempPathFactory) -> AdapterOf:
    """Folder of an adapter for a family, as if trained: none of its matrices is zero."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = save_adapter(folder_of(name), tmp_path_factory.mktemp(f"{name}-lora"), TARGETS[name])
        return made[name]

    return folder


def wrap(model: PreTrainedModel, config: PeftConfig) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks for what transformers has renamed
        return get_peft_model(model, config)


def save_adapter(base: Path, folder: Path, targets: list[str], *, scale: float = 0.2, **options: object) -> Path:
    torch.manual_seed(3)
    model = load_model(base, device="cpu").model
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, fan_in_fan_out="c_attn" in targets, **options)
    wrapped = wrap(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape) * scale)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the head is saved with its adapter
        wrapped.save_pretrained(folder)
    return folder


def captured(loaded: LoadedModel, prompts: PromptSet) -> list[Block]:
    plan = make_plan(loaded, prompts, sites=SITES, positions=["last", "mean"])
    return list(run_plan(plan, loaded, prompts, [(language, 0) for language in plan.languages]))


def difference(ours: list[Block], theirs: list[Block]) -> float:
    pairs = [
        (rows.values, b.rows[key].values) for a, b in zip(ours, theirs, strict=True) for key, rows in a.rows.items()
    ]
    return max(float(np.abs(x - y).max()) for x, y in pairs)


@pytest.mark.parametrize("name", TARGETS)
def test_rows_with_an_adapter_are_those_of_the_merged_model(
    name: str, load: Load, folder_of: FolderOf, adapter_of: AdapterOf, prompts: PromptSet
) -> None:
    beside = load_model(folder_of(name), adapter=adapter_of(name), device="cpu")
    merged = load_model(folder_of(name), adapter=adapter_of(name), merge_adapter=True, device="cpu")
    rows, expected = captured(beside, prompts), captured(merged, prompts)
    for a, b in zip(rows, expected, strict=True):
        for key, found in a.rows.items():
            np.testing.assert_allclose(found.values, b.rows[key].values, err_msg=str(key), **CLOSE)
    assert difference(rows, captured(load(name), prompts)) > 0.1


@pytest.mark.parametrize("name", TARGETS)
def test_a_linear_with_an_adapter_is_one_linear(
    name: str, load: Load, folder_of: FolderOf, adapter_of: AdapterOf, prompts: PromptSet
) -> None:
    loaded = load_model(folder_of(name), adapter=adapter_of(name), device="cpu")
    stack, plain = loaded.anatomy.stacks[""], load(name).anatomy.stacks[""]
    assert not stack.missing
    paths, expected = ({id(m): p for p, m in x.model.named_modules()} for x in (loaded, load(name)))
    for layer, same in zip(stack.layers, plain.layers, strict=True):
        # The outer module: hooks on the inner one would record what the adapter has not touched yet.
        for part in ("down_projection", "activation"):
            assert paths[id(getattr(layer, part))] == expected[id(getattr(same, part))]
        assert paths[id(layer.attention.output_projection)] == expected[id(same.attention.output_projection)]
        assert hasattr(layer.down_projection, "base_layer")
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    errors = check_laws(loaded.anatomy, make_batch(loaded, encoded))
    assert max(errors.values()) < 2e-6  # a few float32 roundings of one block


@pytest.mark.parametrize("name", TARGETS)
def test_the_self_test_tells_how_much_the_adapter_does(
    name: str, folder_of: FolderOf, adapter_of: AdapterOf, prompts: PromptSet
) -> None:
    loaded = load_model(folder_of(name), adapter=adapter_of(name), device="cpu")
    found = self_test(loaded, prompts, make_plan(loaded, prompts, sites=SITES, positions=["last"]))
    assert found["adapter active"] > 0.05
    merged = load_model(folder_of(name), adapter=adapter_of(name), merge_adapter=True, device="cpu")
    assert merged.switch is None
    assert "adapter active" not in self_test(
        merged, prompts, make_plan(merged, prompts, sites=SITES, positions=["last"])
    )


def test_an_adapter_that_does_nothing_is_found_out(folder_of: FolderOf, tmp_path: Path, prompts: PromptSet) -> None:
    idle = save_adapter(folder_of("llama"), tmp_path, ["q_proj"], scale=0.0)
    loaded = load_model(folder_of("llama"), adapter=idle, device="cpu")
    with pytest.raises(BabelScopeError, match="changes nothing in LlamaForCausalLM"):
        self_test(loaded, prompts, make_plan(loaded, prompts, sites=["resid.post"], positions=["last"]))
    with pytest.raises(BabelScopeError, match="changes nothing in LlamaForCausalLM"):
        load_model(folder_of("llama"), adapter=idle, merge_adapter=True, device="cpu")


def test_an_adapter_that_was_disabled_is_found_out(
    folder_of: FolderOf, adapter_of: AdapterOf, prompts: PromptSet
) -> None:
    loaded = load_model(folder_of("llama"), adapter=adapter_of("llama"), device="cpu")
    plan = make_plan(loaded, prompts, sites=["resid.post"], positions=["last"])
    loaded.switch.base_model.disable_adapter_layers()
    with pytest.raises(BabelScopeError, match="changes nothing"):
        self_test(loaded, prompts, plan)
    loaded.switch.base_model.enable_adapter_layers()
    self_test(loaded, prompts, plan)


def test_an_adapter_of_the_head_alone_is_active(folder_of: FolderOf, tmp_path: Path, prompts: PromptSet) -> None:
    adapter = save_adapter(folder_of("llama"), tmp_path, ["lm_head"])
    loaded = load_model(folder_of("llama"), adapter=adapter, device="cpu")
    plan = make_plan(loaded, prompts, sites=["resid.post"], positions=["last"])
    assert self_test(loaded, prompts, plan)["adapter active"] > 0.05


def test_the_identity_holds_the_adapter_and_the_way_it_is_run(
    load: Load, folder_of: FolderOf, adapter_of: AdapterOf, prompts: PromptSet, tmp_path: Path
) -> None:
    base, folder = load("llama"), folder_of("llama")
    beside = load_model(folder, adapter=adapter_of("llama"), device="cpu")
    merged = load_model(folder, adapter=adapter_of("llama"), merge_adapter=True, device="cpu")
    copied = load_model(folder, adapter=shutil.copytree(adapter_of("llama"), tmp_path / "copy"), device="cpu")
    assert {x.ref.weights_sha256 for x in (base, beside, merged)} == {base.ref.weights_sha256}
    assert beside.ref.adapter == str(adapter_of("llama"))
    plans = [make_plan(x, prompts, sites=["embed"], positions=["last"]) for x in (base, beside, merged, copied)]
    assert len({p.fingerprint for p in plans}) == 3
    assert plans[1].fingerprint == plans[3].fingerprint  # where it lies is provenance
    assert next(run_plan(plans[1], copied, prompts, [("en", 0)])) is not None
    with pytest.raises(BabelScopeError, match="another model"):
        next(run_plan(plans[1], merged, prompts, [("en", 0)]))
    weights = load_file(tmp_path / "copy" / "adapter_model.safetensors")
    first = sorted(weights)[0]
    weights[first].view(torch.int32)[0, 0] ^= 1
    save_file(weights, tmp_path / "copy" / "adapter_model.safetensors", metadata={"format": "pt"})
    assert load_model(folder, adapter=tmp_path / "copy", device="cpu").ref.adapter_sha256 != beside.ref.adapter_sha256


def test_the_hash_of_an_adapter_sees_its_scale_and_not_the_name_of_its_base(
    folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path
) -> None:
    def sha256(**change: object) -> str:
        folder = shutil.copytree(adapter_of("llama"), tmp_path / f"{change}")
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
        return load_model(folder_of("llama"), adapter=folder, device="cpu").ref.adapter_sha256

    assert sha256() == sha256(base_model_name_or_path="org/name")
    assert sha256(lora_alpha=9) != sha256(lora_alpha=8)


def test_a_folder_that_is_an_adapter_is_loaded_with_its_base(
    folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path
) -> None:
    named = load_model(folder_of("gpt2"), adapter=adapter_of("gpt2"), device="cpu")
    alone = load_model(adapter_of("gpt2"), device="cpu")
    assert alone.ref.nameless == named.ref.nameless
    assert alone.ref.source == str(adapter_of("gpt2"))
    # With a tokenizer beside it, that one counts.
    folder = shutil.copytree(adapter_of("gpt2"), tmp_path / "chat")
    tokenizer(special=True).save_pretrained(folder)
    own = load_model(folder, device="cpu")
    assert own.ref.tokenizer_sha256 != alone.ref.tokenizer_sha256
    assert own.ref.adapter_sha256 == alone.ref.adapter_sha256


@pytest.mark.parametrize(
    ("base", "adapter", "problem"),
    [
        ("gpt2", "llama", "does not fit the model: Target modules"),
        ("gemma2", "llama", "does not fit the model"),  # the same names, other layers
    ],
)
def test_an_adapter_for_another_base_is_refused(
    base: str, adapter: str, problem: str, folder_of: FolderOf, adapter_of: AdapterOf
) -> None:
    with pytest.raises(BabelScopeError, match=problem) as error:
        load_model(folder_of(base), adapter=adapter_of(adapter), device="cpu")
    assert error.value.hint == f"it was made for {folder_of(adapter)}"


def test_an_adapter_for_another_base_of_the_same_shape_is_noted(
    folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path
) -> None:
    def notes(base: Path, named: str) -> tuple[str, ...]:
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": named}))
        return load_model(base, adapter=adapter, device="cpu").notes

    llama, adapter = folder_of("llama"), shutil.copytree(adapter_of("llama"), tmp_path / "adapter")
    cached = shutil.copytree(llama, tmp_path / "hub" / "models--org--base" / "snapshots" / "main")
    (tmp_path / "link").symlink_to(llama)
    (note,) = notes(llama, "org/base")
    assert note == f"adapter {adapter} was made for org/base; that {llama} is this model cannot be checked"
    assert len(notes(cached, str(llama))) == 1  # moved or copied: the same weights, which nobody but the user knows
    assert notes(llama, str(llama)) == notes(llama, str(tmp_path / "link")) == notes(cached, "org/base") == ()
    assert load_model(llama, device="cpu").notes == load_model(adapter_of("llama"), device="cpu").notes == ()


@pytest.fixture
def hub(folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with `org/base`, whose `v2` differs from `main`, and `org/adapter`, whose `v2` is made for that.

    Only that `v2` has a tokenizer of its own.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(repository: str, revision: str, folder: Path) -> Path:
        commit = ("a" if revision == "main" else "b") * 40
        place = tmp_path / f"models--org--{repository}"
        (place / "refs").mkdir(parents=True, exist_ok=True)
        (place / "refs" / revision).write_text(commit)
        return shutil.copytree(folder, place / "snapshots" / commit)

    put("base", "main", folder_of("llama"))
    weights = put("base", "v2", folder_of("llama")) / "model.safetensors"
    save_file({k: 2 * w for k, w in load_file(weights).items()}, weights, metadata={"format": "pt"})
    for revision, base in (("main", None), ("v2", "v2")):
        adapter = put("adapter", revision, adapter_of("llama"))
        config = json.loads((adapter / "adapter_config.json").read_text())
        config |= {"base_model_name_or_path": "org/base", "revision": base, "lora_alpha": 8 if base else 4}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        if base:
            tokenizer(special=True).save_pretrained(adapter)
    return tmp_path


@pytest.mark.usefixtures("hub")
def test_a_revision_is_that_of_what_was_named_and_the_base_has_the_one_of_its_adapter() -> None:
    base, second = load_model("org/base", device="cpu"), load_model("org/base", revision="v2", device="cpu")
    old, new = (load_model("org/adapter", revision=r, device="cpu") for r in (None, "v2"))
    beside = load_model("org/base", revision="v2", adapter="org/adapter", device="cpu")
    assert base.ref.weights_sha256 == old.ref.weights_sha256 != second.ref.weights_sha256
    assert new.ref.weights_sha256 == beside.ref.weights_sha256 == second.ref.weights_sha256
    assert old.ref.adapter_sha256 == beside.ref.adapter_sha256 != new.ref.adapter_sha256
    assert old.ref.tokenizer_sha256 == base.ref.tokenizer_sha256 != new.ref.tokenizer_sha256
    assert old.notes == new.notes == beside.notes == ()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_hidden_layers": 2}, "8 weights without a place, .*layers.2"),
        ({"num_hidden_layers": 4}, "lacks 8 weights, .*layers.3"),
        ({"intermediate_size": 64}, "size mismatch"),
    ],
)
def test_an_adapter_for_a_model_of_another_shape_is_refused(
    change: dict[str, int], problem: str, folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path
) -> None:
    assert LAYERS == 3
    config = load_model(folder_of("llama"), device="cpu").model.config
    for key, value in change.items():
        setattr(config, key, value)
    if "num_hidden_layers" in change:
        config.layer_types = None
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer(special=False).save_pretrained(tmp_path)
    with pytest.raises(BabelScopeError, match=problem):
        load_model(tmp_path, adapter=adapter_of("llama"), device="cpu")


def test_an_adapter_that_was_cut_off_is_refused(folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path) -> None:
    shutil.copytree(adapter_of("llama"), tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BabelScopeError, match=r"weights of adapter .* cannot be read") as error:
        load_model(folder_of("llama"), adapter=tmp_path)
    assert error.value.hint == "get them again"


def test_prompt_tuning_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    model = load_model(folder_of("llama"), device="cpu").model
    wrap(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).save_pretrained(tmp_path)
    with pytest.raises(BabelScopeError, match="PROMPT_TUNING: it writes tokens of its own"):
        load_model(folder_of("llama"), adapter=tmp_path, device="cpu")


def test_what_is_no_adapter_is_refused(folder_of: FolderOf, adapter_of: AdapterOf, tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match="is no adapter"):
        load_model(folder_of("llama"), adapter=tmp_path, device="cpu")
    with pytest.raises(BabelScopeError, match="itself an adapter"):
        load_model(adapter_of("llama"), adapter=adapter_of("llama"), device="cpu")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(BabelScopeError, match="does not say which model"):
        load_model(tmp_path, device="cpu")


def test_a_merged_copy_computes_the_same_and_shares_nothing(
    load: Load, folder_of: FolderOf, adapter_of: AdapterOf, prompts: PromptSet
) -> None:
    for loaded in (load("gpt2"), load_model(folder_of("gpt2"), adapter=adapter_of("gpt2"), device="cpu")):
        batch = make_batch(loaded, encode(loaded.tokenizer, [p.text for p in prompts.of("en")]))
        before = {name: p.clone() for name, p in loaded.model.state_dict().items()}
        copied: PreTrainedModel = merged_copy(loaded)
        assert not any("lora" in name for name, _ in copied.named_modules())
        with torch.inference_mode():
            expected = forward(loaded, batch, head=True).logits
            torch.testing.assert_close(copied(**batch.inputs(), use_cache=False).logits, expected, **CLOSE)
            for parameter in copied.parameters():
                parameter.zero_()
        assert all(torch.equal(p, before[name]) for name, p in loaded.model.state_dict().items())


def test_an_adapter_on_a_bare_body_works(folder_of: FolderOf, tmp_path: Path, prompts: PromptSet) -> None:
    AutoModel.from_pretrained(folder_of("bert")).save_pretrained(tmp_path / "body")
    tokenizer(special=True).save_pretrained(tmp_path / "body")
    adapter = save_adapter(tmp_path / "body", tmp_path / "lora", TARGETS["bert"])
    loaded = load_model(tmp_path / "body", adapter=adapter, device="cpu")
    assert self_test(loaded, prompts, make_plan(loaded, prompts, sites=SITES, positions=["last"]))["adapter active"] > 0


def test_without_peft_the_command_to_install_it_is_told(
    folder_of: FolderOf, adapter_of: AdapterOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, adapter = folder_of("llama"), adapter_of("llama")  # made with peft, unless another test made them before
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BabelScopeError, match="adapters need peft") as error:
        load_model(model, adapter=adapter, device="cpu")
    assert "pip install" in error.value.hint
