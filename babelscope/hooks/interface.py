"""Running a model with functions of ours around its own attention, through transformers' AttentionInterface.

A handler sees the queries, keys and values of every attention of the model, the mask, and a function that computes
what the model would have computed. Whatever implementation the model was loaded with (SDPA, flash, eager, a custom
one such as the cross-lingual query) goes on computing, and its masks go on being built, unless `eager` is asked for.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from babelscope.errors import BabelScopeError

NAME = "babelscope"

Attended: TypeAlias = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True, eq=False)
class AttentionCall:
    """What a model file hands to its attention function.

    Parameters
    ----------
    module : Module
        The attention module; the layer it belongs to is found by its identity (`layer_idx` can be None).
    query, key, value : Tensor
        (prompt, head, token, dim), behind rotations and norms; key and value may have fewer heads.
    mask : Tensor or None
        In the form that the model's own implementation reads.
    options : mapping
        `scaling`, `dropout`, and what the family adds (`position_bias`, `sliding_window`, `softcap`).
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    options: dict[str, Any] = field(default_factory=dict)


Attend: TypeAlias = Callable[[AttentionCall], Attended]
Handler: TypeAlias = Callable[[AttentionCall, Attend], Attended]


@dataclass(slots=True)
class _Running:
    """The handlers at work, innermost last, and what the model computes with by itself."""

    own: str
    handlers: list[Handler] = field(default_factory=list)


_RUNNING: list[_Running] = []


def goes_through_interface(model: PreTrainedModel) -> bool:
    """Whether a model file asks the interface for its attention function; BLOOM, Falcon and XGLM do not."""
    return model._can_set_attn_implementation()


@contextmanager
def attention_through(model: PreTrainedModel, handler: Handler, *, eager: bool = False) -> Iterator[None]:
    """Inside, every attention of the model is computed by `handler(call, own)`; contexts may be nested.

    A handler that is at work already is not added a second time.

    Parameters
    ----------
    handler : callable
        Returns what `own(call)` returns, or something else in its place: (prompt, token, head, dim) and, from
        eager functions, the pattern (prompt, head, query, key).
    eager : bool
        Let `own` be the model file's eager function, the only one that has a pattern. The whole model is switched,
        since masks are built once for all layers. A custom implementation is never replaced.

    Raises
    ------
    BabelScopeError
        If the model file does not use the interface.
    """
    if not goes_through_interface(model):
        raise BabelScopeError(
            f"the attention of {type(model).__name__} cannot be reached from inside",
            "its model file has attention of its own; leave these sites out",
        )
    if _RUNNING and model.config._attn_implementation == NAME:
        with _added(_RUNNING[-1], handler), _computing(_RUNNING[-1], eager=eager):
            yield
        return
    _RUNNING.append(_Running(model.config._attn_implementation or "eager"))
    try:
        with _switched(model, NAME), _added(_RUNNING[-1], handler), _computing(_RUNNING[-1], eager=eager):
            yield
    finally:
        _RUNNING.pop()


@contextmanager
def eagerly(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model computes its attention step by step; a custom implementation is left alone."""
    if (model.config._attn_implementation or "eager") in _built_in():
        with _switched(model, "eager"):
            yield
    else:
        yield


@contextmanager
def _switched(model: PreTrainedModel, name: str) -> Iterator[None]:
    configs = {id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}.values()
    before = [(config, config._attn_implementation_internal) for config in configs]
    try:
        for config, _ in before:
            config._attn_implementation_internal = name
        yield
    finally:
        for config, own in before:
            config._attn_implementation_internal = own


@contextmanager
def _computing(running: _Running, *, eager: bool) -> Iterator[None]:
    own = running.own
    running.own = "eager" if eager and own in _built_in() else own
    try:
        yield
    finally:
        running.own = own


@contextmanager
def _added(running: _Running, handler: Handler) -> Iterator[None]:
    if handler in running.handlers:
        yield
        return
    running.handlers.append(handler)
    try:
        yield
    finally:
        running.handlers.pop()


def _built_in() -> set[str]:
    """Implementations that compute softmax(QK')V and differ in speed alone."""
    names = ("eager", "sdpa", "flex_attention")
    flash = {name for name in AttentionInterface._global_mapping if name.startswith("flash_attention")}
    return flash | set(names)


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> Attended:
    running = _RUNNING[-1]

    def computed(depth: int, call: AttentionCall) -> Attended:
        if depth < 0:
            return _own(running.own, call)
        return running.handlers[depth](call, lambda inner: computed(depth - 1, inner))

    return computed(len(running.handlers) - 1, AttentionCall(module, query, key, value, attention_mask, options))


def _own(name: str, call: AttentionCall) -> Attended:
    function: Callable[..., Attended]
    if name == "eager":
        function = sys.modules[type(call.module).__module__].eager_attention_forward
    else:
        function = AttentionInterface._global_mapping[name]
    return function(call.module, call.query, call.key, call.value, call.mask, **call.options)


def _mask(*args: Any, **kwargs: Any) -> Any:
    # Without an entry of its own a name gets no mask at all, silently: the model would read padding and the future.
    own: Any = AttentionMaskInterface._global_mapping.get(_RUNNING[-1].own, eager_mask)
    return own(*args, **kwargs)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _mask)
