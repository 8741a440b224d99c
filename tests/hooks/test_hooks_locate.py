"""Parts are found by what they do: in models with odd attention, many encoders, and by paths that a user names."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LongcatFlashConfig,
    LongcatFlashForCausalLM,
    LongformerConfig,
    LongformerForMaskedLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
    ReformerConfig,
    ReformerForMaskedLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, check_laws, load_model
from babelscope.hooks.anatomy_file import AnatomyFile, read_anatomy
from babelscope.hooks.findings import notes_of, unproven
from babelscope.hooks.locate import locate
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.residual import find_residual
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import Site

Load = Callable[[str], LoadedModel]
SMALL = {"vocab_size": 160, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def built(model: type, config: type, **options: object) -> PreTrainedModel:
    torch.manual_seed(0)
    made: PreTrainedModel = model(config(pad_token_id=1, **options)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            noise = 0.15 * torch.randn(parameter.shape)
            _ = parameter.copy_(noise) if parameter.ndim > 1 else parameter.add_(noise)
    return made


@pytest.fixture
def batch() -> Batch:
    mask = torch.tensor([[1] * n + [0] * (12 - n) for n in (12, 9, 5)])
    ids = torch.randint(3, 80, mask.shape, generator=torch.Generator().manual_seed(1))
    return Batch(ids.where(mask.bool(), 1), mask)


@pytest.fixture
def hybrid() -> PreTrainedModel:
    """Gated delta net in layer 0, attention in layer 1; experts beside a shared one."""
    return built(
        Qwen3NextForCausalLM, Qwen3NextConfig, **SMALL, num_key_value_heads=2, head_dim=8, intermediate_size=48,
        moe_intermediate_size=24, shared_expert_intermediate_size=24, num_experts=4, num_experts_per_tok=2,
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip


def test_attention_without_a_softmax_is_found_by_the_tokens_it_mixes(hybrid: PreTrainedModel, batch: Batch) -> None:
    anatomy = locate(hybrid)
    first, second = anatomy.stacks[""].layers
    assert first.attention.output_projection is hybrid.model.layers[0].linear_attn.out_proj
    assert first.attention.module is hybrid.model.layers[0].linear_attn
    assert second.attention.output_projection is hybrid.model.layers[1].self_attn.o_proj
    assert (first.attention.n_heads, second.attention.n_heads) == (None, 4)
    assert not unproven(anatomy)
    assert {"attn.out", "attn.heads", "mlp.out", "moe.neurons", "mlp.neurons"} <= set(check_laws(anatomy, batch))
    with pytest.raises(BabelScopeError, match=r"attn.heads@0: .*attention heads\n.*attn.heads@1"):
        place_of(anatomy, Site("attn.heads", 0))
    (note,) = notes_of(anatomy)
    assert note.startswith("attention heads in layers 0: tokens are mixed without a softmax")


def test_a_mixer_taken_from_another_layer_breaks_its_law(hybrid: PreTrainedModel, batch: Batch) -> None:
    anatomy = locate(hybrid)
    stack = anatomy.stacks[""]
    first, second = stack.layers
    wrong = replace(
        first, attention=replace(first.attention, output_projection=hybrid.model.layers[0].mlp.shared_expert.down_proj)
    )
    with pytest.raises(BabelScopeError, match=r"attn.out@0 .*breaks its law"):
        check_laws(replace(anatomy, stacks={"": replace(stack, layers=(wrong, second))}), batch)


def test_the_blocks_of_text_are_found_beside_an_encoder_of_images(batch: Batch) -> None:
    text = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}
    vision = {
        "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 48,
        "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    model = built(
        Gemma3ForConditionalGeneration, Gemma3Config, text_config=text, vision_config=vision, image_token_index=150,
        boi_token_index=151, eoi_token_index=152, mm_tokens_per_image=4,
    )  # fmt: skip
    anatomy = locate(model)
    assert [layer.module for layer in anatomy.stacks[""].layers] == list(model.model.language_model.layers)
    assert not unproven(anatomy)
    check_laws(anatomy, batch)


def test_rows_of_a_model_that_pads_by_itself_are_those_of_the_prompt(batch: Batch) -> None:
    model = built(LongformerForMaskedLM, LongformerConfig, **SMALL, intermediate_size=48, attention_window=[8, 8],
                  max_position_embeddings=64)  # fmt: skip
    anatomy = locate(model)
    assert not unproven(anatomy)
    check_laws(anatomy, batch)
    kept: list[Tensor] = []
    place = Place(anatomy.stacks[""].layers[-1].module, "output")
    with torch.inference_mode(), tapped({0: place}, lambda _, x: kept.append(x.clone())):
        expected = anatomy.body(**batch.inputs()).last_hidden_state
    assert kept[0].shape[1] == 16  # two windows
    torch.testing.assert_close(by_prompt(kept[0], batch.mask), expected)


def test_an_equation_with_a_factor_of_zero_proves_nothing() -> None:
    # Reversible layers add the MLP to another stream: post = pre + attn holds whatever is called the MLP.
    model = built(ReformerForMaskedLM, ReformerConfig, vocab_size=160, hidden_size=32, num_attention_heads=4,
                  attention_head_size=8, attn_layers=["local", "local"], feed_forward_size=48, axial_pos_embds=False,
                  is_decoder=False, local_attn_chunk_length=8, max_position_embeddings=64)  # fmt: skip
    assert "an equation that proves the MLP" in unproven(locate(model))
    pre, attention, mlp = torch.randn(3, 1, 9, 32, generator=torch.Generator().manual_seed(0)).unbind(0)
    seen = {"resid.pre": pre, "attn.out": attention, "mlp.out": mlp}
    assert find_residual([], {**seen, "resid.post": pre + attention}) is None
    found = find_residual([], {**seen, "resid.post": pre + 0.25 * attention + 0.5 * mlp})
    assert (found.attention_scale, found.mlp_scale) == pytest.approx((0.25, 0.5), rel=1e-5)


def test_a_block_that_adds_more_after_its_mlp_is_proven_up_to_there(batch: Batch) -> None:
    text = {
        **SMALL, "num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 8, "intermediate_size": 48,
        "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 160, "num_kv_shared_layers": 0,
    }  # fmt: skip
    model = built(Gemma4ForCausalLM, Gemma4TextConfig, **text)
    anatomy = locate(model)
    stack = anatomy.stacks[""]
    assert not unproven(anatomy)
    first, *rest = stack.layers
    assert first.residual.end is model.model.layers[0].per_layer_input_gate
    assert first.down_projection is model.model.layers[0].mlp.down_proj
    assert {"attn.out", "mlp.out", "mlp.neurons"} <= set(check_laws(anatomy, batch))
    whole = replace(first, residual=replace(first.residual, end=None))
    with pytest.raises(BabelScopeError, match=r"mlp.out@0 .*breaks its law"):
        check_laws(replace(anatomy, stacks={"": replace(stack, layers=(whole, *rest))}), batch)


def test_a_state_space_beside_attention_is_not_taken_for_the_mlp() -> None:
    model = built(
        FalconH1ForCausalLM, FalconH1Config, **SMALL, num_key_value_heads=2, head_dim=8, intermediate_size=48,
        mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1,
    )  # fmt: skip
    assert {"an equation that proves the MLP", "an equation that proves attention"} <= set(unproven(locate(model)))


def test_two_pairs_of_attention_and_mlp_in_a_block_are_not_taken_for_one() -> None:
    model = built(
        LongcatFlashForCausalLM, LongcatFlashConfig, vocab_size=160, hidden_size=32, num_layers=1, head_dim=8,
        num_attention_heads=4, ffn_hidden_size=48, expert_ffn_hidden_size=24, q_lora_rank=16, kv_lora_rank=16,
        qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, moe_topk=2, n_routed_experts=4, zero_expert_num=2,
    )  # fmt: skip
    assert "an equation that proves the MLP" in unproven(locate(model))


def test_a_stream_of_another_form_is_refused_by_its_shape() -> None:
    model = built(XLNetLMHeadModel, XLNetConfig, vocab_size=160, d_model=32, n_layer=2, n_head=4, d_inner=48)
    with pytest.raises(BabelScopeError, match=r"its blocks read \(9, 1, 32\) for a prompt of 9 tokens"):
        locate(model)


class Chain(nn.Module):
    """Blocks in a container that is no ModuleList."""

    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        for i, block in enumerate(blocks):
            self.add_module(f"block_{i}", block)

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self.children())

    def __getitem__(self, index: slice) -> list[nn.Module]:
        return list(self.children())[index]


@pytest.fixture
def unlocatable() -> PreTrainedModel:
    model = built(LlamaForCausalLM, LlamaConfig, **SMALL, intermediate_size=48)
    model.model.layers = Chain(model.model.layers)
    return model


NAMES = """
layers: model.layers.block_{layer}
attention_output: model.layers.block_{layer}.self_attn.o_proj
down_projection: model.layers.block_{layer}.mlp.down_proj
activation: model.layers.block_{layer}.mlp.act_fn
final_norm: model.norm
embedding: model.embed_tokens
"""


def names(tmp_path: Path, text: str) -> AnatomyFile:
    (tmp_path / "anatomy.yaml").write_text(text)
    return read_anatomy(tmp_path / "anatomy.yaml")


@pytest.mark.parametrize("n_lines", [1, 6])
def test_blocks_that_are_not_located_can_be_named(
    n_lines: int, unlocatable: PreTrainedModel, batch: Batch, tmp_path: Path
) -> None:
    with pytest.raises(BabelScopeError, match=r"no list of transformer blocks was found\n.*--anatomy"):
        locate(unlocatable)
    anatomy = locate(unlocatable, names(tmp_path, "\n".join(NAMES.strip().splitlines()[:n_lines])))
    assert not anatomy.stacks[""].missing
    assert max(check_laws(anatomy, batch).values()) < 1e-6


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("attention_output", "mlp.down_proj"),
        ("attention_output", "self_attn.q_proj"),
        ("down_projection", "self_attn.o_proj"),
        ("down_projection", "mlp.up_proj"),
        ("activation", "input_layernorm"),
    ],
)
def test_a_part_that_is_named_wrongly_is_refused_by_its_law(
    part: str, path: str, unlocatable: PreTrainedModel, tmp_path: Path
) -> None:
    paths = [line for line in NAMES.strip().splitlines() if not line.startswith(part)]
    wrong = names(tmp_path, "\n".join([*paths, f"{part}: model.layers.block_{{layer}}.{path}"]))
    with pytest.raises(BabelScopeError, match=r"in layer 0 of LlamaForCausalLM no equation holds"):
        locate(unlocatable, wrong)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("embedding: model.norm", "the embedding that is named returns something else"),
        ("final_norm: model.layers.block_1.input_layernorm", "the final_norm that is named reads something else"),
        ("embedding: model.embed", r"embedding 'model.embed' leads to no module .*\n.*inside model there is embed_tok"),
        (
            "down_projection: model.layers.block_{layer}.ffn",
            r"leads to no module .*\n.*block_0 there is self_attn, mlp",
        ),
        ("activation: model.layers.block_{layer}.mlp.{x}", r"activation 'model.*\{x\}' leads to no module"),
        ("activation: model.layers.block_{0}.{layer}.mlp", r"activation 'model.*mlp' leads to no module"),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    line: str, problem: str, unlocatable: PreTrainedModel, tmp_path: Path
) -> None:
    with pytest.raises(BabelScopeError, match=problem):
        locate(unlocatable, names(tmp_path, f"layers: model.layers.block_{{layer}}\n{line}"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no part"),
        ("- layers", "names no part"),
        ("layers: [", "is no YAML"),
        ("layer: model.layers", "layer: Extra inputs"),
        ("down_projection: mlp.down_proj", r"lacks \{layer\}"),
        ("enc:\n  activation: act", r"enc: .*lacks \{layer\}"),
        ('layers: ""', "layers names nothing"),
        ("final_norm:", "final_norm names nothing"),
        ("dec: {}", "dec names nothing"),
    ],
)
def test_a_file_that_says_something_else_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match=problem):
        names(tmp_path, text)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match=r"none\.yaml cannot be read"):
        read_anatomy(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("name", "text", "problem", "hint"),
    [
        ("llama", "layers: model", r"layers 'model' of LlamaForCausalLM are no blocks: they read", "leave layers out"),
        ("llama", "layers: model.layers.{layer}.{x}", r"layers 'model.*\{x\}' leads to no module", "there is"),
        ("llama", "layers: lm_head.{layer}", r"layers 'lm_head.*' leads to no module", "there is"),
        ("llama", "enc:\n  layers: encoder.block", "enc: this model has one stack", "at the top"),
        ("mt5", "layers: encoder.block", "layers: this model has an encoder and a decoder", "write layers below enc:"),
    ],
)
def test_no_line_of_a_file_is_ignored(
    name: str, text: str, problem: str, hint: str, load: Load, tmp_path: Path
) -> None:
    with pytest.raises(BabelScopeError, match=f"anatomy file: {problem}") as error:
        locate(load(name).model, names(tmp_path, text))
    assert hint in error.value.hint


def test_the_stacks_of_an_encoder_decoder_are_named_apart(load: Load, tmp_path: Path) -> None:
    text = "dec:\n  down_projection: decoder.block.{layer}.layer.2.DenseReluDense.wo"
    model = load("mt5").model
    assert not unproven(locate(model, names(tmp_path, text)))
    with pytest.raises(BabelScopeError, match=r"layer 0 of MT5.* no equation holds with the down_projection"):
        locate(model, names(tmp_path, text.replace("wo", "wi_1")))


def test_naming_parts_is_part_of_the_identity_of_a_capture(
    folder_of: Callable[[str], Path], load: Load, tmp_path: Path
) -> None:
    (tmp_path / "anatomy.yaml").write_text("final_norm: model.norm")
    named = load_model(folder_of("llama"), device="cpu", anatomy=tmp_path / "anatomy.yaml")
    assert named.ref != load("llama").ref
    assert named.ref == replace(load("llama").ref, anatomy_sha256=named.ref.anatomy_sha256)
