"""Queries, keys, values, scores and patterns of the model's own computation, listened to and changed inside attention.

Model files that go through transformers' AttentionInterface hand us queries, keys and values, and their own function
is watched while it runs. Those with attention of their own (BLOOM, Falcon, XGLM, GPT-J) are watched while their
attention module runs: scores and patterns pass there as well, but nothing says which tensors are the queries.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
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
from babelscope.qcross.attention import share_of

# query, key, value  (prompt, token, head, dim) as they enter the dot product
# attended           (prompt, token, head, dim) as the attention function returns it
# scores, pattern    (prompt, query, head, key): input and output of the softmax
# sinks              (prompt, query, head, sink): what of the softmax falls on no key, in families that have such
# mass               (prompt, query, head, summary), see `Reduction`
# crossed            (prompt, query, head): of models with a cross-lingual query
Interior: TypeAlias = Literal["query", "key", "value", "attended", "scores", "pattern", "sinks", "mass", "crossed"]
INTERIOR: frozenset[str] = frozenset(get_args(Interior))
_GIVEN = frozenset({"query", "key", "value"})
_HANDED_OVER = _GIVEN | {"attended", "crossed"}
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
    replaces : bool
        Whether the model goes on with what `keep` returns; for queries, keys, values, scores and patterns.
    """

    end: str
    keep: Callable[[Tensor], Any]
    reduction: Reduction | None = None
    replaces: bool = False


# Attention module -> its listeners, those of outer contexts first.
_LISTENING: dict[int, list[Listener]] = {}


class Watch(TorchFunctionMode):
    """Remembers the last softmax over at least a matrix and the last scaled dot product computed inside.

    Parameters
    ----------
    edits : sequence of Listener
        They replace the input (scores) or the output (pattern) of a softmax over all keys.
    shape : tuple of int
        Prompts, queries, keys.
    """

    def __init__(self, edits: Sequence[Listener], shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.edits, self.shape, self.n_edited = edits, shape, 0
        self.softmax: tuple[Tensor, Tensor] | None = None
        self.dots: DotProducts | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in SOFTMAX:
            scores = args[0] if args else kwargs["input"]
            if self.edits and _over_all_keys(scores, self.shape):
                scores = self._edited("scores", scores)
                args, kwargs = (scores, *args[1:]), {name: x for name, x in kwargs.items() if name != "input"}
                result = self._edited("pattern", func(*args, **kwargs))
                self.n_edited += 1
            else:
                result = func(*args, **kwargs)
            if scores.ndim >= 3:
                self.softmax = scores, result
            return result
        result = func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            self.dots = dot_products(*args, **kwargs)
        return result

    def _edited(self, end: str, x: Tensor) -> Tensor:
        for edit in self.edits:
            if edit.end == end:
                rows, n_keys = _unfolded(x, self.shape[0]), self.shape[2]
                new = edit.keep(rows[..., :n_keys].transpose(1, 2)).transpose(1, 2)
                x = torch.cat([new, rows[..., n_keys:]], -1).reshape(x.shape)
        return x


def _over_all_keys(scores: Tensor, shape: tuple[int, int, int]) -> bool:
    return scores.ndim >= 3 and scores.shape[-2] == shape[1] and scores.shape[-1] >= shape[2]


def _unfolded(x: Tensor, n_prompts: int) -> Tensor:
    """(prompt, head, query, key): BLOOM and XGLM fold heads into prompts; sinks stand behind the keys."""
    return x.reshape(n_prompts, -1, *x.shape[-2:])


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
    modules = {id(module): module for module, _ in places}
    eager = any(listener.end in STEP_BY_STEP for _, listener in places)
    with ExitStack() as stack:
        watched_already = set(_LISTENING)
        for module, listener in places:
            stack.enter_context(_registered(module, listener))
        if goes_through_interface(model):
            stack.enter_context(attention_through(model, _handled, eager=eager))
        else:
            if eager:
                stack.enter_context(eagerly(model))
            for key in set(modules) - watched_already:
                stack.enter_context(_watched(modules[key]))
        yield


@contextmanager
def _registered(module: nn.Module, listener: Listener) -> Iterator[None]:
    found = _LISTENING.setdefault(id(module), [])
    found.append(listener)
    try:
        yield
    finally:
        found.remove(listener)
        if not found:
            del _LISTENING[id(module)]


def _handled(call: AttentionCall, own: Attend) -> Attended:
    listeners = _LISTENING.get(id(call.module), ())
    for listener in listeners:  # before attention runs: a model file may scale its queries in place
        if listener.end in _GIVEN:
            found = listener.keep(getattr(call, listener.end).transpose(1, 2))
            if listener.replaces:
                call = replace(call, **{listener.end: found.transpose(1, 2)})
        if listener.end == "crossed":
            listener.keep(share_of(call.module, call.query, call.key, call.mask, call.options))
    watching = [x for x in listeners if x.end not in _HANDED_OVER]
    if watching and "form" in call.options:  # of a cross-lingual query: all forms agree, and this one has a pattern
        call = replace(call, options={**call.options, "form": "logaddexp"})
    shape = (len(call.query), call.query.shape[2], call.key.shape[2])
    with ExitStack() as stack:
        watch = stack.enter_context(Watch(_edits(watching), shape)) if watching else None
        result = own(call)
    for listener in listeners:
        if listener.end == "attended":
            listener.keep(result[0])
    if watch is not None:
        _tell(watching, watch, call.module, call.value.dtype)
    return result


def _edits(listeners: Sequence[Listener]) -> list[Listener]:
    return [listener for listener in listeners if listener.replaces]


@contextmanager
def _watched(module: nn.Module) -> Iterator[None]:
    if any(listener.end in _HANDED_OVER for listener in _LISTENING[id(module)]):
        raise BabelScopeError(
            f"queries, keys and values of {type(module).__name__} cannot be reached: it computes attention by itself",
            "leave these sites out; attn.heads, attn.pattern and attn.mass can be reached",
        )
    forward, replaced = module.forward, "forward" in vars(module)

    def watching(*args: Any, **kwargs: Any) -> Any:
        listeners = _LISTENING[id(module)]
        hidden = args[0] if args else kwargs["hidden_states"]
        # Attention to the own stack alone bypasses the interface, so there are as many keys as queries.
        with Watch(_edits(listeners), (*hidden.shape[:2], hidden.shape[1])) as watch:
            output = forward(*args, **kwargs)
        _tell(listeners, watch, module, hidden.dtype)
        return output

    module.forward = watching  # a hook behind the module would not run if it fails
    try:
        yield
    finally:
        if replaced:
            module.forward = forward
        else:
            del module.forward


def _tell(listeners: Sequence[Listener], watch: Watch, module: nn.Module, dtype: torch.dtype) -> None:
    """Hand over what was watched, the pattern in the dtype in which it meets the values."""
    for listener in listeners:
        if listener.end == "mass" and watch.softmax is None and watch.dots is not None:
            assert listener.reduction is not None
            listener.keep(listener.reduction.of_dot_products(watch.dots))
            continue
        shown = watch.softmax is not None and _over_all_keys(watch.softmax[0], watch.shape)
        if watch.softmax is None or not shown or (listener.replaces and watch.n_edited != 1):
            raise NotShownError(
                f"{listener.end} of {type(module).__name__} is not reachable: attention is computed in another way "
                "than a softmax over all keys",
                "choose --attention sdpa (for mass), or --attention eager (for scores and patterns as well)",
            )
        if not listener.replaces:
            passed = watch.softmax[0 if listener.end == "scores" else 1]
            listener.keep(at_softmax(listener.end, passed, watch.shape, dtype, listener.reduction))


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
    passed = _unfolded(passed, n_prompts)
    if end == "sinks":
        return passed[..., n_keys:].to(dtype).transpose(1, 2)
    on_keys = passed[..., :n_keys]
    if end == "mass":
        assert reduction is not None
        return reduction.of_pattern(on_keys)
    return (on_keys if end == "scores" else on_keys.to(dtype)).transpose(1, 2)
