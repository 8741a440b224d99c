"""`embed`: what block 0 reads, taken where the embedding returns it."""

from torch import Tensor

from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def _place(anatomy: Anatomy, layer: int) -> Place:
    return anatomy.embedded


def _unit(anatomy: Anatomy, layer: int) -> tuple[int, ...]:
    return (anatomy.width,)


def _law(anatomy: Anatomy, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    return (seen["embed"], seen["resid.pre"]) if layer == 0 else None


tap = Tap("embed", "embed = resid.pre@0", _place, _unit, _law)
