"""One tiny forward pass in which every module reports what it read and what it returned."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.generic import ModelOutput

from babelscope.hooks.experts import is_experts, routed
from babelscope.hooks.interface import Attend, Attended, AttentionCall, attention_through, goes_through_interface
from babelscope.hooks.interior import SOFTMAX
from babelscope.hooks.placement import input_device

# Nine distinct ids in no arithmetic order, so that no tensor of positions can be mistaken for them.
PROBE_IDS = (7, 4, 12, 5, 9, 6, 11, 8, 10)


Blocks: TypeAlias = Mapping[str, Sequence[nn.Module]]  # of each stack


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One call of one module: its place in the order of the pass, the block (stack, layer), copies of its tensors."""

    module: nn.Module
    began: int
    ended: int
    layer: tuple[str, int] | None
    read: Tensor | None
    returned: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class Attending:
    """The moment when attention was computed: inside which module, with how many heads; None where none were seen."""

    module: nn.Module
    at: int
    layer: tuple[str, int] | None
    n_heads: int | None


@dataclass(frozen=True, slots=True, eq=False)
class HandedOver:
    """What a model file gave to its attention function, (heads, dim) each, and got back, (prompt, token, head, dim)."""

    query: tuple[int, int]
    key: tuple[int, int]
    value: tuple[int, int]
    attended: Tensor


@dataclass(slots=True)
class Probe:
    """What happened in the pass, in order of completion; `handed_over` by the identity of the attention module."""

    ids: Tensor
    decoder_ids: Tensor
    calls: list[Call] = field(default_factory=list)
    attending: list[Attending] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)  # id of an experts module -> experts that read one token
    handed_over: dict[int, HandedOver] = field(default_factory=dict)

    def in_layer(self, layer: tuple[str, int]) -> list[Call]:
        """Calls inside one block, in order of completion."""
        return [c for c in self.calls if c.layer == layer]

    def n_calls(self, module: nn.Module) -> int:
        """How often a module was called; a part called twice belongs to more than one layer."""
        return sum(c.module is module for c in self.calls)


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a matrix product: by its attributes, since quantized and adapted ones have other classes."""
    return isinstance(module, Conv1D) or (hasattr(module, "in_features") and hasattr(module, "out_features"))


def columns_read(linear: nn.Module) -> int:
    """Width of what a linear reads."""
    width = linear.weight.shape[0] if isinstance(linear, Conv1D) else linear.in_features
    assert isinstance(width, int)
    return width


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """The module and its descendants, without the insides of linears (an adapter counts as one linear)."""
    yield module
    if not is_linear(module):
        for child in module.children():
            yield from _outermost(child)


def _first(output: Any) -> Any:
    """What stands first in a tuple or in an output of transformers; None in anything else."""
    if isinstance(output, Sequence | ModelOutput) and len(output):
        return output[0]
    return None


class _AttentionWatch(TorchFunctionMode):
    """Sees every scaled dot product and every softmax over keys, whichever way a model file spells them."""

    def __init__(self, n_tokens: int, seen: Callable[[int], None]) -> None:
        super().__init__()
        self._n_tokens, self._seen = n_tokens, seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            self._seen(args[0].shape[1] if args else kwargs["query"].shape[1])
        elif func in SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            # (batch, head, query, key) or (batch * head, query, key) of one prompt; sinks add a key.
            if scores.ndim >= 3 and scores.shape[-2] == self._n_tokens and scores.shape[-1] >= self._n_tokens:
                self._seen(scores.shape[-3])
        return func(*args, **kwargs)


def probe(model: PreTrainedModel, body: nn.Module, blocks: Blocks) -> Probe:
    """Run nine tokens through the body and record every call.

    Parameters
    ----------
    model : PreTrainedModel
        Only its configuration and embedding are asked.
    body : Module
        The transformer without its head.
    blocks : mapping
        Stack -> its blocks. A decoder reads the same nine tokens in the opposite order.
    """
    table = model.get_input_embeddings().weight
    assert isinstance(table, Tensor)
    device, vocabulary = input_device(model), table.shape[0]
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)
    # Padding ids are skipped by some models when they count positions.
    ids = torch.tensor([[i + 6 if i == pad else i for i in PROBE_IDS]], device=device) % vocabulary
    result = Probe(ids, ids.flip(1))
    decoder = {"decoder_input_ids": result.decoder_ids} if "dec" in blocks else {}
    training = body.training
    body.eval()
    try:
        with torch.inference_mode(), _recording(result, model, body, blocks):
            body(input_ids=ids, attention_mask=torch.ones_like(ids), **decoder)
    finally:
        body.train(training)
    return result


@contextmanager
def _recording(result: Probe, model: PreTrainedModel, body: nn.Module, blocks: Blocks) -> Iterator[None]:
    index = {id(block): (tag, i) for tag, stack in blocks.items() for i, block in enumerate(stack)}
    clock = iter(range(10**9))
    running: list[tuple[nn.Module, int, Tensor | None]] = []

    def layer_now() -> tuple[str, int] | None:
        return next((index[id(m)] for m, _, _ in running if id(m) in index), None)

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        read = args[0] if args else kwargs.get("hidden_states", kwargs.get("input_ids"))
        running.append((module, next(clock), read.clone() if isinstance(read, Tensor) else None))
        if is_experts(module) and (call := routed(args, kwargs)) is not None:
            result.slots[id(module)] = call.expert.shape[1]

    def after(module: nn.Module, _: Any, output: Any) -> None:
        returned = output if isinstance(output, Tensor) else _first(output)
        layer = layer_now()
        _, began, read = running.pop()
        copy = returned.clone() if isinstance(returned, Tensor) else None
        result.calls.append(Call(module, began, next(clock), layer, read, copy))

    def attention(n_heads: int) -> None:
        result.attending.append(Attending(running[-1][0], next(clock), layer_now(), n_heads))

    def handed_over(call: AttentionCall, own: Attend) -> Attended:
        out, pattern = own(call)
        query, key, value = ((x.shape[1], x.shape[-1]) for x in (call.query, call.key, call.value))
        result.handed_over[id(call.module)] = HandedOver(query, key, value, out.clone())
        return out, pattern

    with ExitStack() as stack:
        if goes_through_interface(model):
            stack.enter_context(attention_through(model, handed_over))
        for module in _outermost(body):
            stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(after).remove)
        stack.enter_context(_AttentionWatch(result.ids.shape[1], attention))
        yield
