"""What the self-test asks of a model itself, in plain passes: what its blocks return, and whether that is right."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.adapters import disabled
from babelscope.hooks.anatomy import Stack
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, by_prompt, tapped
from babelscope.hooks.tokens import Batch
from babelscope.hooks.tolerance import largest_error, typical_error

Block: TypeAlias = tuple[str, int]  # stack, layer


def block_outputs(loaded: LoadedModel) -> dict[Block, Place]:
    """Where the blocks of all stacks end."""
    stacks = loaded.anatomy.stacks.items()
    return {(tag, i): Place(x.module, "output") for tag, stack in stacks for i, x in enumerate(stack.layers)}


def returned(loaded: LoadedModel, batch: Batch, *blocks: Block) -> dict[Block, Tensor]:
    """What blocks return in a plain pass, (prompt, token, dim)."""
    kept: dict[Block, Tensor] = {}
    places = block_outputs(loaded)
    with torch.inference_mode(), tapped({b: places[b] for b in blocks}, lambda b, x: kept.update({b: x.clone()})):
        forward(loaded, batch, head=False)
    return kept


def last_block(loaded: LoadedModel) -> Block:
    """Of the stack that the unembedding reads."""
    stack = loaded.anatomy.output_stack
    return stack.tag, len(stack.layers) - 1


def at_real_tokens(x: Tensor, mask: Tensor) -> Tensor:
    """(token, *unit) of all prompts, without padding."""
    return by_prompt(x, mask)[mask.bool().to(x.device)]


def body_output(loaded: LoadedModel, batch: Batch) -> Tensor:
    """Last hidden states of the real tokens of the stack that the unembedding reads."""
    last = last_block(loaded)
    return at_real_tokens(returned(loaded, batch, last)[last], batch.output_mask)


def adapter_effect(loaded: LoadedModel, batch: Batch, bare: Tensor) -> float:
    """How much the last hidden states change when the adapter is disabled; the logits where it adapts the head alone.

    Raises
    ------
    BabelScopeError
        If nothing changes.
    """
    with disabled(loaded.switch):
        change = typical_error(body_output(loaded, batch), bare)
    if change:
        return change
    with torch.inference_mode():
        adapted = forward(loaded, batch, head=True)[0]
        with disabled(loaded.switch):
            change = typical_error(forward(loaded, batch, head=True)[0], adapted)
    if not change:
        raise BabelScopeError(
            f"self-test: the adapter {loaded.ref.adapter} changes nothing in {loaded.anatomy.name}",
            "train it first, or leave it out",
        )
    return change


def hidden_states_error(loaded: LoadedModel, batch: Batch) -> float | None:
    """Error of block inputs and of the last output against `output_hidden_states`, over all stacks.

    None where the model returns none of its own for some stack: the laws have to suffice.

    Raises
    ------
    BabelScopeError
        If there are not as many as there are blocks.
    """
    anatomy, seen = loaded.anatomy, dict[Block, Tensor]()
    places: dict[Block, Place] = {}
    for tag, stack in anatomy.stacks.items():
        places |= {(tag, i): Place(layer.module, "input") for i, layer in enumerate(stack.layers)}
        places[tag, len(stack.layers)] = Place(stack.layers[-1].module, "output")
    with torch.inference_mode(), tapped(places, lambda key, x: seen.update({key: x.clone()})):
        output = forward(loaded, batch, head=False, output_hidden_states=True)
    errors = [_state_error(stack, output, seen, batch) for stack in anatomy.stacks.values()]
    compared = [error for error in errors if error is not None]
    return max(compared) if len(compared) == len(errors) else None


def _state_error(stack: Stack, output: Any, seen: Mapping[Block, Tensor], batch: Batch) -> float | None:
    field = {"": "hidden_states", "enc": "encoder_hidden_states", "dec": "decoder_hidden_states"}[stack.tag]
    states, n = getattr(output, field, None), len(stack.layers)
    if states is None:
        return None
    if len(states) != n + 1:
        raise BabelScopeError(
            f"self-test of {stack.name} failed: it returns {len(states)} hidden states, which is not one more than "
            f"the {n} blocks that were located",
            "name its blocks in an anatomy file (--anatomy, see docs/anatomy.md); --no-self-test goes on regardless",
        )
    ours = [seen[stack.tag, i] for i in range(n + 1)]
    if stack.final_norm is not None:
        # The model's last hidden state is taken after the final norm, so it is not resid.post.
        with torch.inference_mode():
            ours[n] = stack.final_norm.forward(ours[n])
    real = batch.mask_of(stack.tag).bool()
    return max(
        largest_error(x[real.to(x.device)], state[real.to(state.device)]) for x, state in zip(ours, states, strict=True)
    )
