"""Experts: their neurons, indices and weights are the model's own, and listening to them changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import model_zoo
import numpy as np
import pytest
import torch
from model_zoo import LAYERS, MIXTURES
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_laws, load_model, make_plan, run_plan, self_test
from babelscope.hooks import experts as listening
from babelscope.hooks.locate import locate
from babelscope.hooks.place import tapped
from babelscope.hooks.selftest import count_hooks
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch, encode, make_batch
from babelscope.schema import Block, Position, PromptSet, Site

Load = Callable[[str], LoadedModel]
ENDS = ("moe.neurons", "moe.expert", "moe.weight")
# float32 passes in another batch shape, as for the dense sites.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def mixed_layers(name: str) -> list[int]:
    return [i for i in range(LAYERS) if (name, i) != ("qwen2-moe", 1)]


def sites_of(name: str) -> list[str]:
    return [f"{end}@{','.join(map(str, mixed_layers(name)))}" for end in ENDS]


def captured(loaded: LoadedModel, prompts: PromptSet, sites: list[str], *positions: str, **more: object) -> list[Block]:
    plan = make_plan(loaded, prompts, sites=sites, positions=positions, answers="none", block_items=3, **more)
    return list(run_plan(plan, loaded, prompts, [(language, i) for language in plan.languages for i in range(2)]))


def batch_of(loaded: LoadedModel, prompts: PromptSet) -> Batch:
    return make_batch(loaded, encode(loaded.tokenizer, [p.text for p in prompts.prompts]))


def neurons_by_hand(name: str, experts: torch.nn.Module, x: Tensor, expert: int) -> Tensor:
    """One token through one expert, by the formula of the family's paper or model card."""
    if name == "gpt-oss":  # weights (in, out), gate and up interleaved, both clamped, (up + 1) * gate * sigmoid(a gate)
        both = x @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
        gate, up = both[0::2].clamp(max=7.0), both[1::2].clamp(-7.0, 7.0)
        return (up + 1) * gate * torch.sigmoid(1.702 * gate)
    gate, up = (experts.gate_up_proj[expert] @ x).chunk(2)
    return functional.silu(gate) * up


def reference(name: str, loaded: LoadedModel, text: str) -> dict[str, np.ndarray]:
    """(layer, token, ...) of one prompt alone, token by token and slot by slot."""
    model, calls, outs = loaded.model, {}, {}
    handles = []
    for i in mixed_layers(name):
        mlp = model.model.layers[i].mlp
        handles.append(mlp.experts.register_forward_pre_hook(lambda _, args, i=i: calls.update({i: args})))
        handles.append(mlp.register_forward_hook(lambda _, __, out, i=i: outs.update({i: out})))
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([loaded.tokenizer(text)["input_ids"]]))
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, list[Tensor]] = {"mlp.out": [], **{end: [] for end in ENDS}}
    for i, (x, chosen, weight) in calls.items():
        experts = model.model.layers[i].mlp.experts
        rows = [[neurons_by_hand(name, experts, t, e) for e in es] for t, es in zip(x, chosen.tolist(), strict=True)]
        out = outs[i][0] if isinstance(outs[i], tuple) else outs[i]
        found["moe.neurons"].append(torch.stack([torch.stack(row) for row in rows]))
        found["moe.expert"].append(chosen)
        found["moe.weight"].append(weight)
        found["mlp.out"].append(out.reshape(len(x), -1))
    return {kind: torch.stack(values).numpy() for kind, values in found.items()}


@pytest.mark.parametrize("name", MIXTURES)
def test_every_law_of_experts_holds(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    errors = check_laws(loaded.anatomy, batch_of(loaded, prompts))
    assert {*ENDS, "mlp.out", "attn.out"} <= set(errors)
    assert ("mlp.neurons" in errors) == (name == "qwen2-moe")  # its shared expert and its dense layer
    assert max(errors.values()) < 2e-6  # float32 roundings; the experts are summed in another order
    assert set(loaded.anatomy.stacks[""].missing) <= {"activation module"}


@pytest.mark.parametrize("name", MIXTURES)
def test_experts_equal_a_slow_reference_at_every_token(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    mlp_out = f"mlp.out@{','.join(map(str, mixed_layers(name)))}"
    for block in captured(loaded, prompts, [*sites_of(name), mlp_out], "all", "last")[:2]:
        for row, item in enumerate(block.items):
            for kind, expected in reference(name, loaded, prompts.of(block.language)[item].text).items():
                rows = block.rows[kind, Position("all")]
                found = rows.values[:, rows.row_splits[row] : rows.row_splits[row + 1]]
                np.testing.assert_allclose(found, expected, err_msg=kind, **CLOSE)
                last = block.rows[kind, Position("last")].values[:, row]
                np.testing.assert_allclose(last, expected[:, -1], err_msg=kind, **CLOSE)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MIXTURES)
def test_listening_leaves_every_bit_of_the_logits(
    name: str, dtype: str, folder_of: Callable[[str], Path], prompts: PromptSet
) -> None:
    loaded = load_model(folder_of(name), dtype=dtype, device="cpu")
    batch = batch_of(loaded, prompts)
    before = count_hooks(loaded.model)
    places = {(i, end): place_of(loaded.anatomy, Site(end, i)) for i in mixed_layers(name) for end in ENDS}
    seen = []
    with torch.inference_mode():
        bare = loaded.model(**batch.inputs()).logits
        with tapped(places, lambda key, x: seen.append(key)):
            listened = loaded.model(**batch.inputs()).logits
    assert len(seen) == len(places)
    assert torch.equal(bare, listened)
    assert count_hooks(loaded.model) == before


@pytest.mark.parametrize("name", MIXTURES)
def test_bfloat16_experts_keep_their_laws(name: str, folder_of: Callable[[str], Path], prompts: PromptSet) -> None:
    loaded = load_model(folder_of(name), dtype="bfloat16", device="cpu")
    plan = make_plan(loaded, prompts, sites=sites_of(name), positions=["last"], answers="none")
    assert {f"law of {end}" for end in ENDS} < set(self_test(loaded, prompts, plan))


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
def test_rows_do_not_depend_on_how_the_experts_are_computed(
    implementation: str, folder_of: Callable[[str], Path], load: Load, prompts: PromptSet
) -> None:
    other = load_model(folder_of("qwen2-moe"), device="cpu")
    other.model.set_experts_implementation(implementation)
    check_laws(other.anatomy, batch_of(other, prompts))
    ours, theirs = (captured(m, prompts, sites_of("qwen2-moe"), "last")[0] for m in (load("qwen2-moe"), other))
    for key in ours.rows:
        np.testing.assert_allclose(ours.rows[key].values, theirs.rows[key].values, err_msg=str(key), **CLOSE)


FAULTS = {
    "neurons of the neighboring slot": ("moe.neurons", lambda x: x.roll(1, dims=1)),
    "neurons before the gate": ("moe.neurons", lambda x: x.abs()),
    "experts in the order of their index": ("moe.expert", lambda x: x.sort(dim=1, descending=True).values.roll(1, 1)),
    "the next expert": ("moe.expert", lambda x: (x + 1) % 4),
    "weights that were not normalized": ("moe.weight", lambda x: x * 0.9),
    "weights of the other slot": ("moe.weight", lambda x: x.flip(1)),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", MIXTURES)
def test_a_wrong_tensor_of_the_experts_breaks_the_law(
    name: str, fault: str, load: Load, prompts: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(name)
    end, distort = FAULTS[fault]
    honest = listening.listen

    def listen(module: torch.nn.Module, at: str, action: Callable[[Tensor], None]) -> object:
        return honest(module, at, (lambda x: action(distort(x))) if at == end else action)

    monkeypatch.setattr(listening, "listen", listen)
    with pytest.raises(BabelScopeError, match=r"site (moe|mlp)\.\w+@0 .*breaks its law"):
        check_laws(loaded.anatomy, batch_of(loaded, prompts))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda layer, other: {"experts": other.experts}, id="experts of another layer"),
        pytest.param(lambda layer, other: {"mlp": layer.experts.module}, id="routed part for the whole block"),
        pytest.param(lambda layer, other: {"down_projection": other.down_projection}, id="shared of another layer"),
        pytest.param(lambda layer, other: {"down_projection": None}, id="no shared expert"),
        pytest.param(lambda layer, other: {"experts": replace(layer.experts, scale=2.0)}, id="another scale"),
    ],
)
def test_a_wrong_part_of_the_block_breaks_the_law(change: Callable, load: Load, prompts: PromptSet) -> None:
    loaded = load("qwen2-moe")
    stack = loaded.anatomy.stacks[""]
    first, dense, last = stack.layers
    layers = (replace(first, **change(first, last)), dense, last)
    wrong = replace(loaded.anatomy, stacks={"": replace(stack, layers=layers)})
    with pytest.raises(BabelScopeError, match=r"site (moe|mlp)\.\w+@0 .*breaks its law"):
        check_laws(wrong, batch_of(loaded, prompts))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_expert_is_found_however_small_it_is(
    dtype: str, folder_of: Callable[[str], Path], prompts: PromptSet
) -> None:
    loaded = load_model(folder_of("qwen2-moe"), dtype=dtype, device="cpu")
    for i in mixed_layers("qwen2-moe"):
        with torch.no_grad():
            loaded.model.model.layers[i].mlp.shared_expert.down_proj.weight.mul_(
                0.1
            )  # adds about 2 % of the block, below the 3 % that bfloat16 may be off
    anatomy = locate(loaded.model)
    assert not anatomy.stacks[""].missing
    for i in mixed_layers("qwen2-moe"):
        assert anatomy.stacks[""].layers[i].down_projection is loaded.model.model.layers[i].mlp.shared_expert.down_proj
        assert anatomy.stacks[""].layers[i].experts.scale == 1.0
    assert "mlp.neurons" in check_laws(anatomy, batch_of(loaded, prompts))


def test_sites_that_some_layers_lack_are_refused_by_naming_those_that_have_them(load: Load, prompts: PromptSet) -> None:
    loaded = load("qwen2-moe")
    with pytest.raises(BabelScopeError, match=r"moe.neurons@1: in layer 1 .*\n.*moe.neurons@0,2"):
        make_plan(loaded, prompts, sites=["moe.neurons"], positions=["last"])
    block = captured(loaded, prompts, ["mlp.neurons@0,2", "mlp.out", "resid.post"], "last")[0]
    assert block.rows["mlp.neurons", Position("last")].values.shape[2:] == (model_zoo.SHARED_NEURONS,)
    assert len(block.rows["mlp.out", Position("last")].values) == LAYERS
    assert captured(loaded, prompts, ["mlp.neurons@1"], "last")[0].rows["mlp.neurons", Position("last")].values.size


def test_neurons_of_a_block_of_experts_alone_are_refused_by_naming_the_site(load: Load, prompts: PromptSet) -> None:
    with pytest.raises(BabelScopeError, match=r"mlp.neurons@0: .*down projection\n.*moe.neurons"):
        make_plan(load("mixtral"), prompts, sites=["mlp.neurons"], positions=["last"])


def test_averages_over_tokens_with_different_experts_are_refused(load: Load, prompts: PromptSet) -> None:
    for site in ("moe.expert@0", "moe.neurons@0"):
        with pytest.raises(BabelScopeError, match=r"position mean would average over different ones"):
            make_plan(load("mixtral"), prompts, sites=[site], positions=["last", "mean"])
    assert captured(load("mixtral"), prompts, ["moe.weight@0"], "mean")


def test_indices_that_the_stored_dtype_cannot_count_to_are_refused(tmp_path: Path, prompts: PromptSet) -> None:
    config = Qwen3MoeConfig(
        vocab_size=320, hidden_size=8, intermediate_size=8, moe_intermediate_size=4, num_hidden_layers=1, head_dim=4,
        num_attention_heads=2, num_key_value_heads=2, num_experts=300, num_experts_per_tok=2, pad_token_id=1,
    )  # fmt: skip
    folder = model_zoo.save(Qwen3MoeForCausalLM(config), tmp_path, special=False)
    loaded = load_model(folder, device="cpu")
    with pytest.raises(BabelScopeError, match="indices up to 299 are not exact in bfloat16, which counts to 256"):
        make_plan(loaded, prompts, sites=["moe.expert"], positions=["last"], dtype="bfloat16")
    with pytest.raises(BabelScopeError, match="not exact in int8"):
        make_plan(loaded, prompts, sites=["moe.expert"], positions=["last"], dtype="int8")
    blocks = captured(loaded, prompts, ["moe.expert"], "all", dtype="float16")
    indices = np.concatenate([b.rows["moe.expert", Position("all")].values.ravel() for b in blocks])
    assert indices.max() > 256
    np.testing.assert_array_equal(indices, indices.astype(int))


def test_a_store_gives_back_experts_with_their_axes(tmp_path: Path, load: Load, prompts: PromptSet) -> None:
    loaded = load("qwen3-moe")
    plan = make_plan(loaded, prompts, sites=list(ENDS), positions=["last"], answers="none")
    blocks = run_plan(plan, loaded, prompts, [(language, 0) for language in plan.languages])
    with StoreWriter.create(tmp_path / "run.acts", plan, prompts, {}) as writer:
        for block in blocks:
            writer.put(block)
    with ActivationStore.open(tmp_path / "run.acts") as store:
        neurons = store.select("moe.neurons@1").numpy()
        experts = store.select("moe.expert@1").numpy()
    assert neurons.shape == (3, 5, 2, model_zoo.EXPERT_NEURONS)
    assert experts.shape == (3, 5, 2)
    np.testing.assert_array_equal(experts, experts.astype(int))
