"""Listening inside attention: queries, keys, values, scores and patterns of the model's own computation.

Model files that go through transformers' AttentionInterface hand us queries, keys and values, and their own function
is watched while it runs. Those with attention of their own (BLOOM, Falcon, XGLM, GPT-J) are watched while their
attention module runs: scores and patterns pass there as well, but nothing says which tensors are the queries.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from babelscope.errors import BabelScopeError
from babelscope.hooks.interface import (
    Attend,
    Attended,
    AttentionCall,
    attention_through,
    eagerly,
    goes_through_interface,
)
from babelscope.hooks.mass import DotProducts, Reduction

# query, key, value  (prompt, token, head, dim) as they enter the dot product
# attended           (prompt, token, head, dim) as the attention function returns it
# scores, pattern    (prompt, query, head, key): input and output of the softmax
# sinks              (prompt, query, head, sink): what of the softmax falls on no key, in families that have such
# mass               (prompt, query, head, summary), see `Reduction`
Interior: TypeAlias = Literal["query", "key", "value", "attended", "scores", "pattern", "sinks", "mass"]
INTERIOR: frozenset[str] = frozenset(get_args(Interior))
_HANDED_OVER = frozenset({"query", "key", "value", "attended"})
STEP_BY_STEP = frozenset({"scores", "pattern", "sinks"})

SOFTMAX = frozenset({torch.softmax, functional.softmax, Tensor.softmax, torch.special.softmax})


class NotShownError(BabelScopeError):
    """Attention is computed by something that can be listened to from outside alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """What to do with one tensor of one attention module.

    Parameters
    ----------
    end : str
        One of `INTERIOR`.
    keep : callable
        Must copy what it wants to hold on to.
    reduction : Reduction or None
        For `mass`.
    """

    end: str
    keep: Callable[[Tensor], None]
    reduction: Reduction | None = None


class Watch(TorchFunctionMode):
    """Remembers the last softmax over at least a matrix and the last scaled dot product computed inside."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax: tuple[Tensor, Tensor] | None = None
        self.dots: DotProducts | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            if scores.ndim >= 3:
                self.softmax = scores, result
        elif func is functional.scaled_dot_product_attention:
            self.dots = dot_products(*args, **kwargs)
        return result


def dot_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> DotProducts:
    """A call of `scaled_dot_product_attention`, by its own names of the arguments."""
    return DotProducts(query, key, attn_mask, is_causal, 1 / math.sqrt(query.shape[-1]) if scale is None else scale)


@contextmanager
def listening_inside(model: PreTrainedModel, places: Sequence[tuple[nn.Module, Listener]]) -> Iterator[None]:
    """Call the listeners whenever their attention module has computed; everything is as before on leaving.

    Scores and patterns make the model compute step by step ("eager") inside; nothing else does.

    Raises
    ------
    BabelScopeError
        For queries, keys and values of a model that does not hand them over; inside, where attention is computed
        by a kernel that shows neither softmax nor scaled dot product.
    """
    inside: dict[int, list[Listener]] = {}
    modules = {id(module): module for module, _ in places}
    for module, listener in places:
        inside.setdefault(id(module), []).append(listener)
    eager = any(listener.end in STEP_BY_STEP for _, listener in places)
    with ExitStack() as stack:
        if goes_through_interface(model):
            stack.enter_context(attention_through(model, partial(_handled, inside), eager=eager))
        else:
            if eager:
                stack.enter_context(eagerly(model))
            for key, listeners in inside.items():
                stack.enter_context(_watched(modules[key], listeners))
        yield


def _handled(inside: Mapping[int, Sequence[Listener]], call: AttentionCall, own: Attend) -> Attended:
    listeners = inside.get(id(call.module), ())
    given = {"query": call.query, "key": call.key, "value": call.value}
    for listener in listeners:  # before attention runs: a model file may scale its queries in place
        if listener.end in given:
            listener.keep(given[listener.end].transpose(1, 2))
    watching = [x for x in listeners if x.end not in _HANDED_OVER]
    with ExitStack() as stack:
        watch = stack.enter_context(Watch()) if watching else None
        result = own(call)
    for listener in listeners:
        if listener.end == "attended":
            listener.keep(result[0])
    if watch is not None:
        shape = (len(call.query), call.query.shape[2], call.key.shape[2])
        _tell(watching, watch, call.module, shape, call.value.dtype)
    return result


@contextmanager
def _watched(module: nn.Module, listeners: Sequence[Listener]) -> Iterator[None]:
    if any(listener.end in _HANDED_OVER for listener in listeners):
        raise BabelScopeError(
            f"queries, keys and values of {type(module).__name__} cannot be reached: it computes attention by itself",
            "leave these sites out; attn.heads, attn.pattern and attn.mass can be reached",
        )
    forward, replaced = module.forward, "forward" in vars(module)

    def watching(*args: Any, **kwargs: Any) -> Any:
        with Watch() as watch:
            output = forward(*args, **kwargs)
        hidden = args[0] if args else kwargs["hidden_states"]
        # Attention to the own stack alone bypasses the interface, so there are as many keys as queries.
        _tell(listeners, watch, module, (*hidden.shape[:2], hidden.shape[1]), hidden.dtype)
        return output

    module.forward = watching  # a hook behind the module would not run if it fails
    try:
        yield
    finally:
        if replaced:
            module.forward = forward
        else:
            del module.forward


def _tell(
    listeners: Sequence[Listener],
    watch: Watch,
    module: nn.Module,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> None:
    """Hand over what was watched: (prompts, queries, keys), the pattern in the dtype in which it meets the values."""
    _, n_queries, n_keys = shape
    for listener in listeners:
        if listener.end == "mass" and watch.softmax is None and watch.dots is not None:
            assert listener.reduction is not None
            listener.keep(listener.reduction.of_dot_products(watch.dots))
            continue
        if watch.softmax is None or watch.softmax[0].shape[-2] != n_queries or watch.softmax[0].shape[-1] < n_keys:
            raise NotShownError(
                f"{listener.end} of {type(module).__name__} is not reachable: attention is computed in another way "
                "than a softmax over all keys",
                "choose --attention sdpa (for mass), or --attention eager (for scores and patterns as well)",
            )
        passed = watch.softmax[0 if listener.end == "scores" else 1]
        listener.keep(at_softmax(listener.end, passed, shape, dtype, listener.reduction))


def at_softmax(
    end: str, passed: Tensor, shape: tuple[int, int, int], dtype: torch.dtype, reduction: Reduction | None = None
) -> Tensor:
    """What a softmax was given (`scores`) or gave (all others), laid out as that end of an attention module.

    Parameters
    ----------
    shape : tuple of int
        Prompts, queries, keys.
    dtype : dtype
        In which patterns meet the values.
    reduction : Reduction or None
        For `mass`.
    """
    n_prompts, _, n_keys = shape
    # BLOOM and XGLM fold heads into prompts; sinks stand behind the keys.
    passed = passed.reshape(n_prompts, -1, *passed.shape[-2:])
    if end == "sinks":
        return passed[..., n_keys:].to(dtype).transpose(1, 2)
    on_keys = passed[..., :n_keys]
    if end == "mass":
        assert reduction is not None
        return reduction.of_pattern(on_keys)
    return (on_keys if end == "scores" else on_keys.to(dtype)).transpose(1, 2)
