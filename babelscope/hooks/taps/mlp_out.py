"""`mlp.out`: what the down projection returns."""

from torch import Tensor

from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(anatomy: Anatomy, layer: int) -> Place:
    parts = anatomy.require("mlp.out", layer, "down projection", "an equation that proves the MLP")
    assert parts.down_projection is not None
    return Place(parts.down_projection, "output")


def _unit(anatomy: Anatomy, layer: int) -> tuple[int, ...]:
    return (anatomy.width,)


def _law(anatomy: Anatomy, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    residual = anatomy.layers[layer].residual
    return residual.sides(seen) if residual else None


tap = Tap("mlp.out", "resid.pre, attn.out and mlp.out give resid.post", _place, _unit, _law)
