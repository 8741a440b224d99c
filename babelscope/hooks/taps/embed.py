"""`embed`: what block 0 reads, taken where the embedding returns it."""

from torch import Tensor

from babelscope.hooks.anatomy import Stack
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(stack: Stack, layer: int) -> Place:
    return stack.embedded


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    return (stack.width,)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    return (seen["embed"], seen["resid.pre"]) if layer == 0 else None


tap = Tap("embed", "embed = resid.pre@0", _place, _unit, _law)
