"""`attn.out`: what the output projection of attention returns."""

from torch import Tensor

from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors

PARTS = ("attention", "output projection", "an equation that proves attention")


def _place(anatomy: Anatomy, layer: int) -> Place:
    projection = anatomy.require("attn.out", layer, *PARTS).output_projection
    assert projection is not None
    return Place(projection, "output")


def _unit(anatomy: Anatomy, layer: int) -> tuple[int, ...]:
    return (anatomy.width,)


def _law(anatomy: Anatomy, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    residual = anatomy.layers[layer].residual
    return residual.middle_sides(seen) if residual else None


tap = Tap("attn.out", "resid.pre and attn.out give the middle of the block", _place, _unit, _law)
