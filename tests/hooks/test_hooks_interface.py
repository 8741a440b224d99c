"""Attention of ours around the model's own: nothing changes that the handler does not change."""

from collections.abc import Callable

import pytest
import torch
from model_zoo import BYPASSING, ENCODER_DECODERS, FAMILIES

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.interface import Attend, Attended, AttentionCall, attention_through, goes_through_interface
from babelscope.hooks.tokens import Batch, decoder_tokens, encode, make_batch
from babelscope.schema import PromptSet

Load = Callable[[str], LoadedModel]
REACHABLE = [name for name in (*FAMILIES, *ENCODER_DECODERS) if name not in BYPASSING]


def batch_of(loaded: LoadedModel, prompts: PromptSet) -> Batch:
    encoded = encode(loaded.tokenizer, [p.text for p in prompts.prompts])
    policy = "copy" if loaded.ref.n_encoder_layers else ""
    return make_batch(loaded, encoded, decoder_tokens(loaded, policy, prompts.prompts, encoded))


def logits(loaded: LoadedModel, batch: Batch) -> torch.Tensor:
    with torch.inference_mode():
        return forward(loaded, batch, head=True).logits[batch.output_mask.bool()]


@pytest.mark.parametrize("name", REACHABLE)
@pytest.mark.parametrize("eager", [False, True])
def test_a_handler_that_only_looks_changes_nothing(name: str, eager: bool, load: Load, prompts: PromptSet) -> None:
    loaded, seen = load(name), []
    batch, before = batch_of(loaded, prompts), load(name).model.config._attn_implementation

    def look(call: AttentionCall, own: Attend) -> Attended:
        out, pattern = own(call)
        assert (pattern is not None) == (eager or before == "eager")
        seen.append(id(call.module))
        return out, pattern

    expected = logits(loaded, batch)
    with attention_through(loaded.model, look, eager=eager):
        found = logits(loaded, batch)
    # The same function with the same mask gives the same bits; eager and SDPA round differently.
    torch.testing.assert_close(found, expected, rtol=0, atol=0 if before == "eager" or not eager else 1e-5)
    layers = [layer for stack in loaded.anatomy.stacks.values() for layer in stack.layers]
    attentions = [a.module for x in layers for a in (x.attention, x.cross_attention) if a is not None]
    assert set(map(id, attentions)) == set(seen)
    assert len(seen) == len(attentions)


def test_handlers_are_nested_and_gone_afterwards(load: Load, prompts: PromptSet) -> None:
    loaded, order = load("llama"), []
    batch = batch_of(loaded, prompts)

    def named(name: str) -> Callable[[AttentionCall, Attend], Attended]:
        def handler(call: AttentionCall, own: Attend) -> Attended:
            order.append(name)
            return own(call)

        return handler

    with attention_through(loaded.model, named("outer")), attention_through(loaded.model, named("inner")):
        logits(loaded, batch)
    assert order == ["inner", "outer"] * 3  # the inner context is nearest to the model file
    with pytest.raises(RuntimeError, match="on purpose"), attention_through(loaded.model, named("x")):
        raise RuntimeError("on purpose")
    assert loaded.model.config._attn_implementation == "sdpa"
    logits(loaded, batch)
    assert len(order) == 6


def test_what_a_handler_returns_is_what_the_model_goes_on_with(load: Load, prompts: PromptSet) -> None:
    loaded = load("qwen3")
    batch = batch_of(loaded, prompts)

    def silence(call: AttentionCall, own: Attend) -> Attended:
        return torch.zeros_like(own(call)[0]), None

    expected = logits(loaded, batch)
    with attention_through(loaded.model, silence):
        assert not torch.allclose(logits(loaded, batch), expected)
    torch.testing.assert_close(logits(loaded, batch), expected, rtol=0, atol=0)


def test_attention_that_bypasses_the_interface_is_refused(load: Load) -> None:
    loaded = load("bloom")
    assert not goes_through_interface(loaded.model)
    with pytest.raises(BabelScopeError, match="cannot be reached"), attention_through(loaded.model, lambda c, o: o(c)):
        pass
