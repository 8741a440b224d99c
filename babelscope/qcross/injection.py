"""Putting the cross-lingual query into a model: beside each query projection, initialized from it."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.qcross import attention
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.masks import PADDING, language_masks

QUERIES = ("query", "q_proj", "q_lin")
KEYS = ("key", "k_proj", "k_lin")

# Largest difference that rounding explains between the model before and after, relative to its largest value.
# Scores are float32, also in float64.
ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2, torch.float64: 1e-4}


class CrossQuery(nn.Linear):
    """The query projection of a layer, whose weights keep their names, and the cross-lingual one beside it.

    Returns both, (..., 2 * heads * dim): model files cut the last axis into heads, so rotations and norms meet both
    alike, and attention gets twice as many query heads.
    """

    def __init__(self, own: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = own.in_features, own.out_features
        self.weight, self.bias = own.weight, own.bias
        self.cross = nn.Linear(
            own.in_features, own.out_features, own.bias is not None, own.weight.device, own.weight.dtype
        )
        self.cross.load_state_dict({name: x for name, x in own.state_dict().items() if "." not in name})

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., 2 * out)."""
        return torch.cat([functional.linear(x, self.weight, self.bias), self.cross(x)], -1)


def inject(model: PreTrainedModel, config: QcrossConfig) -> PreTrainedModel:
    """Give every layer a cross-lingual query, in place; with Qcross = Q the model computes what it did.

    After this `model(..., language_ids=ids)` attends jointly, ids (prompt, token) as in `masks.language_masks`; without
    ids, and in prompts of one language, it is the model as it was.

    Raises
    ------
    BabelScopeError
        If the model has one already, its query projection cannot be told from the others (fused projections), its
        attention does something beside a softmax, or the model comes out changed. It is then left as it came.
    """
    name = type(model).__name__
    if config_of(model) is not None:
        raise BabelScopeError(f"{name} has a cross-lingual query already", "load the base model")
    places = _places(model)
    _check_attention(model, name)
    plain = _checked_input(model)
    was_training, before = model.training, model.config._attn_implementation
    with _undone_where_refused(model, places):
        model.train(mode=False)
        with torch.no_grad():
            expected = _outputs(model, plain)
        if config.cross_query:
            for parent, attribute in places:
                setattr(parent, attribute, CrossQuery(cast(nn.Linear, getattr(parent, attribute))))
                setattr(parent, attention.MARK, True)
        model.set_attn_implementation(attention.NAME)
        model.config.qcross = config.model_dump()
        _check_unchanged(model, plain, expected, before)
    model.base_model.register_forward_pre_hook(_with_masks, with_kwargs=True)
    model.train(was_training)
    return model


def config_of(model: Any) -> QcrossConfig | None:
    """The configuration of an injected model, or None."""
    record = getattr(getattr(model, "config", None), "qcross", None)
    return None if record is None else QcrossConfig.model_validate(record)


def set_config(model: PreTrainedModel, config: QcrossConfig) -> None:
    """Change what is not in the weights: keep probabilities, double count, form."""
    now = config_of(model)
    if now is None or now.cross_query != config.cross_query:
        raise BabelScopeError("only a model with the same queries takes this configuration", "inject it anew")
    model.config.qcross = config.model_dump()


def cross_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> weight or bias of every cross-lingual query."""
    return {name: p for name, p in model.named_parameters() if ".cross." in name}


def has_adapted_query(model: nn.Module) -> bool:
    """Whether a layer of an adapter stands around a query projection; it knows nothing of the second query."""
    return any(isinstance(getattr(module, "base_layer", None), CrossQuery) for module in model.modules())


def _places(model: PreTrainedModel) -> list[tuple[nn.Module, str]]:
    found = [
        (module, name)
        for module in model.modules()
        for name in QUERIES
        if isinstance(getattr(module, name, None), nn.Linear) and any(hasattr(module, key) for key in KEYS)
    ]
    if not found:
        raise BabelScopeError(
            f"{type(model).__name__} has no query projection of its own: queries, keys and values come from one matrix",
            "choose a family with separate projections, as BERT, XLM-R, Llama, Mistral, Qwen or Gemma",
        )
    return found


def _check_attention(model: PreTrainedModel, name: str) -> None:
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None):
        raise BabelScopeError(
            f"{name} caps its attention scores, which the joint attention does not define",
            "choose a family without softcap, as Gemma, Gemma 3, Llama, Mistral, Qwen, BERT or XLM-R",
        )
    if model.config.is_encoder_decoder:
        raise BabelScopeError(f"{name} has an encoder and a decoder", "choose a model with one stack")
    if not model._can_set_attn_implementation():
        raise BabelScopeError(
            f"the attention of {name} cannot be replaced: its model file computes it by itself",
            "choose a family that goes through transformers' AttentionInterface",
        )


@contextmanager
def _undone_where_refused(model: PreTrainedModel, places: list[tuple[nn.Module, str]]) -> Iterator[None]:
    """A model that is refused inside is left as it came."""
    own = [getattr(parent, attribute) for parent, attribute in places]
    was_training, before = model.training, model.config._attn_implementation
    try:
        yield
    except (BabelScopeError, RuntimeError) as error:
        for (parent, attribute), linear in zip(places, own, strict=True):
            setattr(parent, attribute, linear)
            parent.__dict__.pop(attention.MARK, None)
        model.set_attn_implementation(before)
        vars(model.config).pop("qcross", None)
        model.train(was_training)
        if isinstance(error, BabelScopeError):
            raise
        raise BabelScopeError(
            f"{type(model).__name__} does not take two queries from one projection: {str(error).splitlines()[0]}",
            "choose a family that cuts what it returns into heads at once, as BERT, XLM-R, Llama, Mistral, Qwen, Gemma",
        ) from error


def _with_masks(
    body: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook that turns `language_ids` into masks once for all layers, where the body of the model is entered."""
    ids = kwargs.pop("language_ids", None)
    if ids is None:
        return args, kwargs
    config = config_of(body)
    assert config is not None
    given = inspect.signature(body.forward).bind_partial(*args, **kwargs).arguments
    _check_languages(ids, given)
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        ids = ids.masked_fill(mask == 0, PADDING)
    keep_cross, keep_same = config.kept(training=body.training)
    masks = language_masks(ids, keep_cross=keep_cross, keep_same=keep_same)
    form = config.form
    if form == "auto":
        form = "partition" if body.training and not keep_cross and not keep_same else "logaddexp"
    return args, {**kwargs, "cross_masks": masks, "double_count": config.double_count, "form": form}


def _check_languages(ids: Tensor, given: dict[str, Any]) -> None:
    """Fewer languages than tokens would be broadcast, and a text in two of them be read as one in one."""
    tokens = given.get("input_ids")
    tokens = given.get("inputs_embeds") if tokens is None else tokens
    past = given.get("past_key_values")
    assert tokens is not None
    expected = (tokens.shape[0], tokens.shape[1] + (0 if past is None else past.get_seq_length()))
    if tuple(ids.shape) != expected:
        raise BabelScopeError(
            f"language_ids have shape {tuple(ids.shape)}, and the tokens, those of the cache included, {expected}",
            "give the language of every token",
        )


def _checked_input(model: PreTrainedModel) -> Tensor:
    config = model.config.get_text_config()
    start = max(2, (getattr(config, "pad_token_id", None) or 0) + 1)
    ids = torch.arange(start, start + 12) % config.vocab_size
    placed: Tensor = ids.reshape(2, 6).to(model.device)
    return placed


def _outputs(model: PreTrainedModel, ids: Tensor, **more: Any) -> Tensor:
    body = model.base_model
    cache = {"use_cache": False} if "use_cache" in inspect.signature(body.forward).parameters else {}
    found = body(input_ids=ids, attention_mask=torch.ones_like(ids), **cache, **more)[0]
    return torch.as_tensor(found).float()


def _check_unchanged(model: PreTrainedModel, plain: Tensor, expected: Tensor, before: str | None) -> None:
    """The laws of a model whose cross-lingual queries are its own: no mask, and masks that are open, change nothing."""
    name, size = type(model).__name__, expected.abs().amax().clamp_min(1e-6)
    limit = ROUNDING[model.dtype]
    languages = torch.tensor([[0, 0, 0, 1, 1, 1]], device=plain.device).expand_as(plain)
    opened = language_masks(languages, keep_cross=1.0, keep_same=1.0)
    with torch.no_grad():
        for what, more in (("without languages", {}), ("with every mask open", {"cross_masks": opened})):
            error = float((_outputs(model, plain, **more) - expected).abs().amax() / size)
            if not error <= limit:
                raise BabelScopeError(
                    f"{name} computes something else with the joint attention {what}: relative error {error:.1e}",
                    f"its attention is more than a softmax over keys; it ran with {before}",
                )
        separated = _outputs(model, plain, cross_masks=language_masks(languages))
    if torch.equal(separated, _outputs(model, plain)) or not separated.isfinite().all():
        raise BabelScopeError(
            f"{name} does not hand languages on to its attention", "choose BERT, XLM-R, Llama, Mistral, Qwen or Gemma"
        )
