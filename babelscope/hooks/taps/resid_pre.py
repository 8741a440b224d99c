"""`resid.pre`: what a block reads."""

from torch import Tensor

from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(anatomy: Anatomy, layer: int) -> Place:
    return Place(anatomy.layers[layer].module, "input")


def _unit(anatomy: Anatomy, layer: int) -> tuple[int, ...]:
    return (anatomy.width,)


def _law(anatomy: Anatomy, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    return seen["resid.pre"], seen["resid.before"]


tap = Tap("resid.pre", "resid.pre@l = resid.post@l-1, or embed", _place, _unit, _law)
