"""`resid.pre`: what a block reads."""

from torch import Tensor

from babelscope.hooks.anatomy import Stack
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(stack: Stack, layer: int) -> Place:
    return Place(stack.layers[layer].module, "input")


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    return (stack.width,)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    return seen["resid.pre"], seen["resid.before"]


tap = Tap("resid.pre", "resid.pre@l = resid.post@l-1, or embed", _place, _unit, _law)
