"""Last-layer pruning: in the last block that is run, only the last token of each prompt is computed.

The residual stream of the block keeps its length. What attention and MLP add to it is computed for one token per
prompt, (prompt, 1, width), and broadcasts into the stream: right at that token, undefined at every other one. No
model file has to know about it, whichever norms stand around the parts and whether they run one after the other.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from babelscope.hooks.anatomy import Layer
from babelscope.hooks.interface import Attend, Attended, AttentionCall, attention_through, goes_through_interface
from babelscope.hooks.probe import is_linear

# Their masks are (prompt, head, query, key), so that a row of them can be taken.
ROW_BY_ROW = ("sdpa", "eager")


@dataclass(frozen=True, slots=True, eq=False)
class PrunedBlock:
    """Where a block can be cut down to one token per prompt.

    Parameters
    ----------
    model : PreTrainedModel
    entrances : tuple of Module
        They read a token at a time, and nothing but what they return needs the other tokens: the output
        projection, the norm behind attention, and the linears of the MLP.
    attention : Module or None
        Its attention function is given one query; None where that cannot be reached.
    query_projection : Module or None
        A linear that makes queries alone.
    """

    model: PreTrainedModel
    entrances: tuple[nn.Module, ...]
    attention: nn.Module | None = None
    query_projection: nn.Module | None = None


def prunable(model: PreTrainedModel, layer: Layer) -> PrunedBlock:
    """What can be cut in a block by its parts; the query projection is not known from them."""
    attention = layer.attention
    if attention is None or attention.module is layer.module:
        return PrunedBlock(model, ())
    inside = {id(m) for m in attention.module.modules()}
    linears = [m for m in layer.module.modules() if is_linear(m) and id(m) not in inside]
    middle = layer.residual.middle if layer.residual else None
    entrances = [m for m in (attention.output_projection, middle, *linears) if m is not None]
    reachable = goes_through_interface(model) and model.config._attn_implementation in ROW_BY_ROW
    unique = tuple({id(m): m for m in entrances}.values())
    return PrunedBlock(model, unique, attention.module if reachable else None)


def with_query_projection(block: PrunedBlock, layer: Layer) -> Iterator[PrunedBlock]:
    """The block with each linear in its attention as the query projection; a wrong one is found out by its numbers."""
    if block.attention is not None and layer.attention is not None:
        for module in block.attention.modules():
            if is_linear(module) and module is not layer.attention.output_projection:
                yield replace(block, query_projection=module)


@contextmanager
def pruned(block: PrunedBlock, last: Tensor, n_tokens: int) -> Iterator[None]:
    """Inside, the block computes one token of each prompt.

    Parameters
    ----------
    last : Tensor
        (prompt,) index of that token among those that are run.
    n_tokens : int
        That are run in each prompt, padding included.
    """
    rows = torch.arange(len(last), device=last.device)

    def pick(x: Tensor) -> Tensor:
        if n_tokens == 1 or x.ndim < 3 or x.shape[:2] != (len(last), n_tokens):
            return x  # cut already, or one long list of tokens, which nothing could be broadcast into
        return x[rows.to(x.device), last.to(x.device)].unsqueeze(1)

    with ExitStack() as stack:
        for module in block.entrances:
            stack.callback(module.register_forward_pre_hook(partial(_cut, pick=pick), with_kwargs=True).remove)
        if block.attention is not None and n_tokens > 1:
            stack.enter_context(attention_through(block.model, partial(_one_query, block.attention, last)))
        if block.query_projection is not None and n_tokens > 1:
            query = block.query_projection
            stack.callback(query.register_forward_pre_hook(partial(_cut, pick=pick), with_kwargs=True).remove)
            stack.callback(query.register_forward_hook(partial(_spread, n_tokens)).remove)
        yield


def _cut(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], *, pick: Any) -> tuple[Any, Any]:
    if args:
        return (pick(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": pick(kwargs["hidden_states"])}


def _spread(n_tokens: int, _: nn.Module, __: Any, output: Tensor) -> Tensor:
    # The model goes on to rotate queries by position; the one rotated by its own position is then taken.
    return output.expand(-1, n_tokens, *output.shape[2:])


def _one_query(attention: nn.Module, last: Tensor, call: AttentionCall, own: Attend) -> Attended:
    if call.module is not attention:
        return own(call)
    n, n_tokens = call.query.shape[0], call.query.shape[2]
    rows, columns = torch.arange(n, device=call.query.device), last.to(call.query.device)
    query = call.query[rows, :, columns].unsqueeze(2)
    out, _ = own(replace(call, query=query, mask=_mask_row(call, rows, columns)))
    return out.expand(-1, n_tokens, -1, -1), None


def _mask_row(call: AttentionCall, rows: Tensor, columns: Tensor) -> Tensor | None:
    mask: Tensor | None = call.mask
    if mask is not None:
        return mask.expand(len(rows), -1, -1, -1)[rows, :, columns].unsqueeze(2)
    causal = call.options.get("is_causal")
    if not (getattr(call.module, "is_causal", True) if causal is None else causal):
        return None
    # Without a mask the function would have been told to be causal, which says nothing to a single query.
    keys = torch.arange(call.key.shape[2], device=columns.device)
    future = keys > columns[:, None] + (call.key.shape[2] - call.query.shape[2])
    return torch.zeros(future.shape, dtype=call.query.dtype, device=columns.device).masked_fill_(future, float("-inf"))[
        :, None, None
    ]
