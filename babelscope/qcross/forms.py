"""The joint attention of two queries over the same keys, in three forms that agree (arXiv:2310.15258, section 4).

`P = (exp(S + M1) + exp(S' + M2)) / sum over keys (exp(S + M1) + exp(S' + M2))`, `S = Q K' / sqrt(d)`,
`S' = Qcross K' / sqrt(d)`: one normalizer for both terms, not the mean of two softmaxes.
"""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional

from babelscope.qcross.masks import Masks

# logaddexp  the reference: softmax of log(exp S + exp S'), in float32
# doubled    one scaled dot product over twice as many keys, which holds no pattern
# partition  where every pair but those of the bridge is open in one mask alone: no second exponential
Form = Literal["logaddexp", "doubled", "partition"]
FORMS: tuple[Form, ...] = get_args(Form)


class Joint(NamedTuple):
    """What attention is computed from.

    Parameters
    ----------
    query, cross, key, value : Tensor
        (prompt, head, token, dim), as many heads each.
    masks : Masks
    allowed : Tensor of bool or None
        (prompt, 1, query, key): padding and the future; None where everything may be seen.
    scale : float
    double_count : bool
        Whether a pair that is open in both masks counts twice, as published: with Qcross = Q that adds log 2 to its
        score. False takes the log 2 off again.
    """

    query: Tensor
    cross: Tensor
    key: Tensor
    value: Tensor
    masks: Masks
    allowed: Tensor | None
    scale: float
    double_count: bool = True


def attend(joint: Joint, form: Form, dropout: float = 0.0) -> tuple[Tensor, Tensor | None]:
    """Output (prompt, query, head, dim), and the pattern (prompt, head, query, key) where the form has one.

    Dropout falls on the joint pattern; in the doubled form on each of its two terms.
    """
    if form == "doubled":
        return _doubled(joint, dropout).transpose(1, 2).contiguous(), None
    scores = _partitioned(joint) if form == "partition" else _joint_scores(joint)
    pattern = scores.softmax(-1).to(joint.value.dtype)
    kept = functional.dropout(pattern, dropout) if dropout else pattern
    return (kept @ joint.value).transpose(1, 2).contiguous(), pattern


def cross_share(joint: Joint) -> Tensor:
    """Share of the pattern that the cross-lingual query contributes, (prompt, query, head), float32."""
    own, cross = _masked(joint)
    both = torch.logaddexp(own, cross)
    weights = _corrected(both, joint).softmax(-1)
    # exp(S') / (exp S + exp S') of every pair; a pair that is masked in both has no weight.
    return (weights * torch.sigmoid(cross - own)).sum(-1).transpose(1, 2)


def _scores(joint: Joint) -> tuple[Tensor, Tensor]:
    # Before the product: bfloat16 rounds a score of 100 by half a nat, float16 overflows.
    keys = joint.key.float().transpose(-1, -2)
    return joint.query.float() @ keys * joint.scale, joint.cross.float() @ keys * joint.scale


def _masked(joint: Joint) -> tuple[Tensor, Tensor]:
    lowest = torch.finfo(torch.float32).min / 2  # half of it, so that no difference of two scores overflows
    own, cross = _scores(joint)
    own_mask, cross_mask = _open(joint)
    return own.masked_fill(~own_mask, lowest), cross.masked_fill(~cross_mask, lowest)


def _open(joint: Joint) -> tuple[Tensor, Tensor]:
    masks, allowed = joint.masks, joint.allowed
    return (masks.own, masks.cross) if allowed is None else (masks.own & allowed, masks.cross & allowed)


def _joint_scores(joint: Joint) -> Tensor:
    return _corrected(torch.logaddexp(*_masked(joint)), joint)


def _corrected(scores: Tensor, joint: Joint) -> Tensor:
    if joint.double_count:
        return scores
    return scores - math.log(2) * (joint.masks.own & joint.masks.cross)


def _partitioned(joint: Joint) -> Tensor:
    own, cross = _scores(joint)
    scores = torch.where(joint.masks.own, own, cross)
    extra = 0.0 if joint.double_count else math.log(2)
    bridge = joint.masks.bridge
    is_bridged = (bridge >= 0)[:, None, None, None]
    n_queries, n_keys = scores.shape[-2:]
    at = bridge.clamp_min(0)[:, None, None, None]
    column = at.expand(*scores.shape[:-1], 1)
    both = torch.logaddexp(own.gather(-1, column), cross.gather(-1, column)) - extra
    scores = scores.scatter(-1, column, torch.where(is_bridged, both, scores.gather(-1, column)))
    if n_queries == n_keys:  # behind a cache the bridge is no query
        row = at.expand(*scores.shape[:-2], 1, n_keys)
        both = torch.logaddexp(own.gather(-2, row), cross.gather(-2, row)) - extra
        scores = scores.scatter(-2, row, torch.where(is_bridged, both, scores.gather(-2, row)))
    if joint.allowed is None:
        return scores
    return scores.masked_fill(~joint.allowed, torch.finfo(torch.float32).min / 2)


def _doubled(joint: Joint, dropout: float) -> Tensor:
    """Queries [q; q'], keys [[k; 0], [0; k]] and values twice: one softmax over both kinds of pairs, exactly."""
    nothing = torch.zeros_like(joint.key)
    queries = torch.cat([joint.query, joint.cross], -1)
    keys = torch.cat([torch.cat([joint.key, nothing], -1), torch.cat([nothing, joint.key], -1)], -2)
    mask = torch.cat(_open(joint), -1)
    if not joint.double_count:
        less = math.log(2) * (joint.masks.own & joint.masks.cross).to(queries.dtype)
        weight = torch.zeros_like(mask, dtype=queries.dtype).masked_fill(~mask, torch.finfo(queries.dtype).min)
        mask = weight - torch.cat([less, less], -1)
    return functional.scaled_dot_product_attention(
        queries, keys, torch.cat([joint.value, joint.value], -2), attn_mask=mask, dropout_p=dropout, scale=joint.scale
    )
