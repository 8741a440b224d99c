"""Tiny random models of ten families, saved with a tokenizer of their own, and where each keeps its parts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    M2M100Config,
    M2M100ForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    XGLMConfig,
    XGLMForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

LINES = (
    "Which of these is larger? Answer with A, B, C or D.",
    "Was ist größer? Antworte mit A, B, C oder D.",
    "¿Cuál de estos es mayor? Responde con A, B, C o D.",
    "Ni ipi kubwa zaidi? Jibu kwa A, B, C au D.",
    "哪一个更大？请用 A、B、C 或 D 回答。",
    "इनमें से कौन बड़ा है? उत्तर दें।",
)
LAYERS, WIDTH, HEADS, NEURONS = 3, 32, 4, 48
# Sites inside attention, and the families whose model file hands over no queries, keys and values.
INSIDE = tuple(f"{f}.{part}" for f in ("attn", "cross") for part in ("q", "k", "v", "scores", "pattern", "mass"))
BYPASSING = ("bloom", "falcon", "xglm")


def tokenizer(*, special: bool, padding_side: str = "right") -> PreTrainedTokenizerFast:
    """Byte-level BPE of 320 tokens; `special` puts <s> and </s> around every text, as encoders do."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    raw.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if special:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        padding_side=padding_side,
    )  # fmt: skip


@dataclass(frozen=True)
class Family:
    """How to build a model, and by hand: the paths of its parts and how its block adds them up."""

    build: Callable[[], PreTrainedModel]
    layers: str
    attention_out: str
    down: str
    activation: str
    embedded: str | None  # module whose output block 0 reads
    final_norm: str | None
    encoder: bool = False


def _llama_like(config: type, model: type, **more: object) -> Callable[[], PreTrainedModel]:
    def build() -> PreTrainedModel:
        return model(
            config(
                vocab_size=320, hidden_size=WIDTH, intermediate_size=NEURONS, num_hidden_layers=LAYERS,
                num_attention_heads=HEADS, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=1,
                bos_token_id=0, eos_token_id=2, **more,
            )
        )  # fmt: skip

    return build


def _llama_paths(build: Callable[[], PreTrainedModel]) -> Family:
    return Family(
        build, "model.layers", "self_attn.o_proj", "mlp.down_proj", "mlp.act_fn", "model.embed_tokens", "model.norm"
    )


def _gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=320, n_embd=WIDTH, n_inner=NEURONS, n_layer=LAYERS, n_head=HEADS, n_positions=128,
                   bos_token_id=0, eos_token_id=2, pad_token_id=1)
    )  # fmt: skip


def _neox() -> PreTrainedModel:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=320, hidden_size=WIDTH, intermediate_size=NEURONS, num_hidden_layers=LAYERS,
                      num_attention_heads=HEADS, max_position_embeddings=128, bos_token_id=0, eos_token_id=2)
    )  # fmt: skip


def _bloom() -> PreTrainedModel:
    return BloomForCausalLM(
        BloomConfig(vocab_size=320, hidden_size=WIDTH, n_layer=LAYERS, n_head=HEADS, bos_token_id=0, eos_token_id=2,
                    pad_token_id=1)
    )  # fmt: skip


def _falcon() -> PreTrainedModel:
    return FalconForCausalLM(
        FalconConfig(vocab_size=320, hidden_size=WIDTH, ffn_hidden_size=NEURONS, num_hidden_layers=LAYERS,
                     num_attention_heads=HEADS, max_position_embeddings=128, pad_token_id=1, bos_token_id=0,
                     eos_token_id=2)
    )  # fmt: skip


def _xglm() -> PreTrainedModel:
    return XGLMForCausalLM(
        XGLMConfig(vocab_size=320, d_model=WIDTH, ffn_dim=NEURONS, num_layers=LAYERS, attention_heads=HEADS,
                   max_position_embeddings=128, pad_token_id=1, bos_token_id=0, eos_token_id=2,
                   decoder_start_token_id=2)
    )  # fmt: skip


def _opt() -> PreTrainedModel:
    return OPTForCausalLM(
        OPTConfig(vocab_size=320, hidden_size=WIDTH, ffn_dim=NEURONS, num_hidden_layers=LAYERS,
                  num_attention_heads=HEADS, max_position_embeddings=128, word_embed_proj_dim=WIDTH, pad_token_id=1,
                  bos_token_id=0, eos_token_id=2)
    )  # fmt: skip


def _bert_like(config: type, model: type) -> Callable[[], PreTrainedModel]:
    def build() -> PreTrainedModel:
        return model(
            config(vocab_size=320, hidden_size=WIDTH, intermediate_size=NEURONS, num_hidden_layers=LAYERS,
                   num_attention_heads=HEADS, max_position_embeddings=130, pad_token_id=1, bos_token_id=0,
                   eos_token_id=2, type_vocab_size=2)
        )  # fmt: skip

    return build


FAMILIES = {
    "llama": _llama_paths(_llama_like(LlamaConfig, LlamaForCausalLM)),
    "mistral": _llama_paths(_llama_like(MistralConfig, MistralForCausalLM, sliding_window=8)),
    "qwen2": _llama_paths(_llama_like(Qwen2Config, Qwen2ForCausalLM)),
    "qwen3": _llama_paths(_llama_like(Qwen3Config, Qwen3ForCausalLM, head_dim=16)),
    "gemma2": _llama_paths(_llama_like(Gemma2Config, Gemma2ForCausalLM, head_dim=16, sliding_window=8)),
    "gpt2": Family(
        _gpt2, "transformer.h", "attn.c_proj", "mlp.c_proj", "mlp.act", "transformer.drop", "transformer.ln_f",
    ),
    "gpt-neox": Family(
        _neox, "gpt_neox.layers", "attention.dense", "mlp.dense_4h_to_h", "mlp.act", "gpt_neox.emb_dropout",
        "gpt_neox.final_layer_norm",
    ),
    "bloom": Family(
        _bloom, "transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", "mlp.gelu_impl",
        "transformer.word_embeddings_layernorm", "transformer.ln_f",
    ),
    "bert": Family(
        _bert_like(BertConfig, BertForMaskedLM), "bert.encoder.layer", "attention.output.dense", "output.dense",
        "intermediate.intermediate_act_fn", "bert.embeddings", None, encoder=True,
    ),
    "xlm-r": Family(
        _bert_like(XLMRobertaConfig, XLMRobertaForMaskedLM), "roberta.encoder.layer", "attention.output.dense",
        "output.dense", "intermediate.intermediate_act_fn", "roberta.embeddings", None, encoder=True,
    ),
    # Attention of their own, as BLOOM: Falcon's shares one key among all heads and uses SDPA.
    "falcon": Family(
        _falcon, "transformer.h", "self_attention.dense", "mlp.dense_4h_to_h", "mlp.act",
        "transformer.word_embeddings", "transformer.ln_f",
    ),
    "xglm": Family(
        _xglm, "model.layers", "self_attn.out_proj", "fc2", "activation_fn", None, "model.layer_norm",
    ),
    # Beyond the ten of the issue: tokens flattened for the MLP, scaled residuals, and a fused gate.
    "opt": Family(
        _opt, "model.decoder.layers", "self_attn.out_proj", "fc2", "activation_fn", None,
        "model.decoder.final_layer_norm",
    ),
    "granite": Family(
        _llama_like(GraniteConfig, GraniteForCausalLM, residual_multiplier=0.3, embedding_multiplier=3.0),
        "model.layers", "self_attn.o_proj", "mlp.down_proj", "mlp.act_fn", None, "model.norm",
    ),
    "phi3": Family(
        _llama_like(Phi3Config, Phi3ForCausalLM), "model.layers", "self_attn.o_proj", "mlp.down_proj",
        "mlp.activation_fn", "model.embed_tokens", "model.norm",
    ),
}  # fmt: skip


def _mt5() -> PreTrainedModel:
    return MT5ForConditionalGeneration(
        MT5Config(vocab_size=320, d_model=WIDTH, d_kv=8, d_ff=NEURONS, num_layers=LAYERS, num_heads=HEADS,
                  pad_token_id=1, eos_token_id=2, decoder_start_token_id=1)
    )  # fmt: skip


def _bart_like(config: type, model: type) -> Callable[[], PreTrainedModel]:
    def build() -> PreTrainedModel:
        return model(
            config(vocab_size=320, d_model=WIDTH, encoder_layers=LAYERS, decoder_layers=LAYERS,
                   encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=NEURONS,
                   decoder_ffn_dim=NEURONS, max_position_embeddings=130, pad_token_id=1, bos_token_id=0,
                   eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2)
        )  # fmt: skip

    return build


@dataclass(frozen=True)
class TwoStacks:
    """How to build an encoder-decoder, and by hand the paths of the parts of its blocks."""

    build: Callable[[], PreTrainedModel]
    layers: dict[str, str]
    parts: dict[str, str]  # site, with its stack where the two differ -> module


ENCODER_DECODERS = {
    "mt5": TwoStacks(
        _mt5,
        {"enc": "encoder.block", "dec": "decoder.block"},
        {
            "attn.out": "layer.0.SelfAttention.o",
            "cross.out": "layer.1.EncDecAttention.o",
            "enc.mlp.out": "layer.1.DenseReluDense.wo",
            "dec.mlp.out": "layer.2.DenseReluDense.wo",
            "enc.mlp.act": "layer.1.DenseReluDense.act",
            "dec.mlp.act": "layer.2.DenseReluDense.act",
        },
    ),
    **{
        name: TwoStacks(
            _bart_like(config, model),
            {"enc": "model.encoder.layers", "dec": "model.decoder.layers"},
            {
                "attn.out": "self_attn.out_proj",
                "cross.out": "encoder_attn.out_proj",
                "mlp.out": "fc2",
                "mlp.act": "activation_fn",
            },
        )
        # Post-norm and pre-norm.
        for name, config, model in (
            ("bart", BartConfig, BartForConditionalGeneration),
            ("m2m100", M2M100Config, M2M100ForConditionalGeneration),
        )
    },
}
DECODERS = [name for name, family in FAMILIES.items() if not family.encoder]


EXPERT_NEURONS, SHARED_NEURONS = 24, 40
# Without and with a shared expert, with a dense layer in between, and with biases and a clamped activation.
MIXTURES = {
    "mixtral": _llama_like(MixtralConfig, MixtralForCausalLM, num_local_experts=4, num_experts_per_tok=2),
    "qwen2-moe": _llama_like(
        Qwen2MoeConfig, Qwen2MoeForCausalLM, num_experts=6, num_experts_per_tok=3, mlp_only_layers=[1],
        moe_intermediate_size=EXPERT_NEURONS, shared_expert_intermediate_size=SHARED_NEURONS,
    ),
    "qwen3-moe": _llama_like(
        Qwen3MoeConfig, Qwen3MoeForCausalLM, num_experts=6, num_experts_per_tok=2, head_dim=16,
        moe_intermediate_size=EXPERT_NEURONS,
    ),
    "gpt-oss": _llama_like(
        GptOssConfig, GptOssForCausalLM, num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=8,
    ),
}  # fmt: skip


# --- Further architectures, for the contract of the backends: built here, compared with each other, no paths by hand.
def _distilbert() -> PreTrainedModel:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    return DistilBertForMaskedLM(
        DistilBertConfig(vocab_size=320, dim=WIDTH, hidden_dim=NEURONS, n_layers=LAYERS, n_heads=HEADS,
                         max_position_embeddings=130, pad_token_id=1)
    )  # fmt: skip


def _of_transformers(name: str, **more: object) -> Callable[[], PreTrainedModel]:
    def build() -> PreTrainedModel:
        config = getattr(transformers, f"{name}TextConfig", None) or getattr(transformers, f"{name}Config")
        return _llama_like(config, getattr(transformers, f"{name}ForCausalLM"), **more)()

    return build


FURTHER: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma3": _of_transformers(
        "Gemma3", head_dim=16, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "olmo2": _of_transformers("Olmo2"),
    "cohere": _of_transformers("Cohere", layer_norm_bias=False),
    "distilbert": _distilbert,
}  # fmt: skip
FURTHER_ENCODERS = ("distilbert",)


def saved(name: str, folder: Path) -> Path:
    """Build and write the model of any name that stands in this file."""
    torch.manual_seed(0)
    plain = {**MIXTURES, **FURTHER}
    if name in plain:
        return save(plain[name](), folder, special=name in FURTHER_ENCODERS)
    family = {**FAMILIES, **ENCODER_DECODERS}[name]
    return save(family.build(), folder, special=name in ENCODER_DECODERS or getattr(family, "encoder", False))


# --- End of the further architectures.


def save(model: PreTrainedModel, folder: Path, *, special: bool, padding_side: str = "right") -> Path:
    """Write the model, its norms and biases perturbed, so that no wrong site looks like the right one."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.15 if parameter.ndim > 1 else 0.3
            noise = torch.randn(parameter.shape, generator=generator) * scale
            if parameter.ndim > 1:
                parameter.copy_(noise)
            else:
                parameter.add_(noise)
    model.save_pretrained(folder)
    tokenizer(special=special, padding_side=padding_side).save_pretrained(folder)
    return folder
