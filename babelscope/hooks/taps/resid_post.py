"""`resid.post`: what a block returns, before the final norm."""

from torch import Tensor

from babelscope.hooks.anatomy import Stack
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(stack: Stack, layer: int) -> Place:
    return Place(stack.layers[layer].module, "output")


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    return (stack.width,)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    return (seen["resid.post"], seen["resid.after"]) if "resid.after" in seen else None


tap = Tap("resid.post", "resid.post@l = resid.pre@l+1, or what the final norm reads", _place, _unit, _law)
