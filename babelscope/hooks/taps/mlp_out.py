"""`mlp.out`: what the MLP adds: the output of its down projection, or of a whole block of experts."""

from torch import Tensor

from babelscope.hooks.anatomy import Stack
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(stack: Stack, layer: int) -> Place:
    parts = stack.require("mlp.out", layer, "an equation that proves the MLP")
    assert parts.mlp is not None
    return Place(parts.mlp, "output")


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    return (stack.width,)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    residual = stack.layers[layer].residual
    return residual.sides(seen) if residual else None


tap = Tap("mlp.out", "resid.pre, attn.out and mlp.out give resid.post", _place, _unit, _law)
