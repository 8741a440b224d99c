"""`resid.post`: what a block returns, before the final norm."""

from torch import Tensor

from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(anatomy: Anatomy, layer: int) -> Place:
    return Place(anatomy.layers[layer].module, "output")


def _unit(anatomy: Anatomy, layer: int) -> tuple[int, ...]:
    return (anatomy.width,)


def _law(anatomy: Anatomy, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    return (seen["resid.post"], seen["resid.after"]) if "resid.after" in seen else None


tap = Tap("resid.post", "resid.post@l = resid.pre@l+1, or what the final norm reads", _place, _unit, _law)
