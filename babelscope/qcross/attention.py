"""The joint attention as a function of transformers' AttentionInterface; it keeps nothing between calls."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from babelscope.errors import BabelScopeError
from babelscope.qcross.forms import Form, Joint, attend, cross_share
from babelscope.qcross.masks import Masks

NAME = "babelscope-qcross"

# Set on attention modules whose query projection returns both queries.
MARK = "has_cross_query"


def joint_of(
    module: nn.Module, query: Tensor, key: Tensor, attention_mask: Any, options: dict[str, Any], value: Tensor
) -> Joint | None:
    """What the attention of a module is computed from, or None where it is the ordinary one."""
    masks: Masks | None = options.get("cross_masks")
    if masks is None or not has_cross_query(module):
        return None
    own, cross = query.chunk(2, dim=1)
    return Joint(
        own, cross, repeated(key, own), repeated(value, own), reaching(masks, own, key), allowed(attention_mask),
        scale_of(options, own), bool(options.get("double_count", True)),
    )  # fmt: skip


def reaching(masks: Masks, query: Tensor, key: Tensor) -> Masks:
    """The masks of these queries and keys, which are fewer than the tokens behind a cache.

    Raises
    ------
    BabelScopeError
        If there are more keys than tokens.
    """
    n_tokens, n_keys = masks.own.shape[-1], key.shape[2]
    if n_keys > n_tokens:
        raise BabelScopeError(
            f"{n_tokens} tokens have a language, and the cache holds {n_keys} keys",
            "use a cache that grows with the text (transformers' DynamicCache)",
        )
    return masks.of_last(query.shape[2], n_keys)


def has_cross_query(module: nn.Module) -> bool:
    """Whether an attention module gets two queries for each token."""
    return bool(getattr(module, MARK, False))


def share_of(module: nn.Module, query: Tensor, key: Tensor, attention_mask: Any, options: dict[str, Any]) -> Tensor:
    """Share of the pattern that the cross-lingual query contributes, (prompt, query, head); 0 without masks."""
    joint = joint_of(module, query, key, attention_mask, options, key)
    if joint is None:
        return query.new_zeros(query.shape[0], query.shape[2], query.shape[1] // 2)
    return cross_share(joint).to(query.dtype)


def allowed(attention_mask: Any) -> Tensor | None:
    """The mask that a model file hands over, as True where a key may be seen."""
    if attention_mask is None:
        return None
    mask: Tensor = attention_mask
    return mask if mask.dtype.is_floating_point is False else mask >= 0


def repeated(x: Tensor, like: Tensor) -> Tensor:
    """Keys or values, a copy for each of the heads that share them."""
    return x if x.shape[1] == like.shape[1] else x.repeat_interleave(like.shape[1] // x.shape[1], 1)


def scale_of(options: dict[str, Any], query: Tensor) -> float:
    """What the scores of a call are multiplied by."""
    found = options.get("scaling")
    return float(query.shape[-1] ** -0.5 if found is None else found)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, Tensor | None]:
    dropout = float(options.get("dropout", 0.0)) if module.training else 0.0
    form: Form = options.get("form", "logaddexp")
    joint = joint_of(module, query, key, attention_mask, options, value)
    if joint is not None:
        return attend(joint, form, dropout)
    own = query.chunk(2, dim=1)[0] if has_cross_query(module) else query
    mask, masks = allowed(attention_mask), options.get("cross_masks")
    if masks is not None:  # structured dropout alone: the model query under M1
        rows = reaching(masks, own, key).own
        mask = rows if mask is None else rows & mask
    key, value, scale = repeated(key, own), repeated(value, own), scale_of(options, own)
    if form == "logaddexp":  # step by step, so that scores and pattern can be seen
        scores = own.float() @ key.float().transpose(-1, -2) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, scores.new_tensor(-3e38))
        pattern = scores.softmax(-1).to(value.dtype)
        kept = functional.dropout(pattern, dropout) if dropout else pattern
        return (kept @ value).transpose(1, 2).contiguous(), pattern
    output = functional.scaled_dot_product_attention(own, key, value, attn_mask=mask, dropout_p=dropout, scale=scale)
    return output.transpose(1, 2).contiguous(), None


def _mask(*args: Any, **kwargs: Any) -> Any:
    # Never left out: causal and bidirectional attention are told apart by the mask alone.
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False})


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
