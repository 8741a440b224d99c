"""Which linear reads a mixture of tokens, found by changing one token and looking where the change arrives.

Attention without a softmax over keys (linear attention, state spaces, windows, kernels) shows no scores, but it does
what attention is for: it carries information from one token to others.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from babelscope.hooks.probe import Attending, Blocks, Call, Probe, is_linear, probe

CHANGED = 4  # in the middle of the nine, so that mixing from the left, from the right and in windows shows


def disturbed(model: PreTrainedModel, blocks: Blocks, seen: Probe) -> Probe:
    """The pass of `seen` once more, one token changed in what each block reads; all else it reads stays as it was."""
    reads = {id(c.module): c.read for c in seen.calls}
    with ExitStack() as stack:
        for block in (b for found in blocks.values() for b in found):
            if (read := reads.get(id(block))) is not None:
                stack.callback(_reading(block, _changed(read)).remove)
        return probe(model, model.base_model, blocks)


def token_mixer(seen: Probe, other: Probe, block: Call) -> Attending | None:
    """The part of a block that mixes tokens, or None where no linear to the residual width follows it.

    Parameters
    ----------
    seen, other : Probe
        The plain pass and the disturbed one.
    block : Call
        Of the block in the plain pass.
    """
    assert block.layer is not None
    assert block.read is not None
    pairs = list(zip(seen.in_layer(block.layer), other.in_layer(block.layer), strict=False))
    if any(a.module is not b.module for a, b in pairs):
        return None
    mixed = {a.began for a, b in pairs if _mixed(a.read, b.read)}
    width = block.read.shape[-1]
    linears = [a for a, _ in pairs if is_linear(a.module) and a.returned is not None and a.returned.shape[-1] == width]
    projection = min((a for a in linears if a.began in mixed), key=lambda a: a.began, default=None)
    if projection is None:
        return None
    around = [a for a, _ in pairs if a.began < projection.began and a.ended > projection.ended]
    inner = min((a for a in around if a.began not in mixed), key=lambda a: a.ended, default=block)
    return Attending(inner.module, projection.began - 1, block.layer, None)


def _changed(read: Tensor) -> Tensor:
    changed = read.clone()
    # Not a multiple of what was there: a norm would undo that.
    changed[:, CHANGED] += torch.linspace(-1, 1, read.shape[-1], device=read.device, dtype=read.dtype)
    return changed


def _reading(module: nn.Module, tensor: Tensor) -> RemovableHandle:
    """A hook by which a module reads this tensor, whatever it is given."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        read = tensor.clone()  # some models change it in place
        return ((read, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": read})

    return module.register_forward_pre_hook(before, with_kwargs=True)


def _mixed(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether tokens differ beside the one that was changed."""
    if a is None or b is None or a.shape != b.shape or a.ndim not in (2, 3) or a.is_complex():
        return False
    rows = (a != b).any(-1)
    differing = (rows[0] if a.ndim == 3 else rows).nonzero().flatten().tolist()
    return any(token != CHANGED for token in differing)
