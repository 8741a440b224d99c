"""`attn.heads`: what the output projection of attention reads, one row of it per head."""

from einops import rearrange
from torch import Tensor

from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.hooks.probe import columns_read
from babelscope.hooks.tap import Tap, Tensors


def _place(anatomy: Anatomy, layer: int) -> Place:
    parts = anatomy.require("attn.heads", layer, "attention", "output projection", "an equation that proves attention")
    assert parts.output_projection is not None
    return Place(parts.output_projection, "input")


def _unit(anatomy: Anatomy, layer: int) -> tuple[int, ...]:
    heads = anatomy.layers[layer].n_heads
    return heads, columns_read(_place(anatomy, layer).module) // heads


def _law(anatomy: Anatomy, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    projection = anatomy.layers[layer].output_projection
    return None if projection is None else (projection.forward(seen["attn.heads"].flatten(-2)), seen["attn.out"])


def _heads(x: Tensor, anatomy: Anatomy, layer: int) -> Tensor:
    return rearrange(x, "... (head dim) -> ... head dim", head=anatomy.layers[layer].n_heads)


tap = Tap("attn.heads", "output projection(attn.heads) = attn.out", _place, _unit, _law, _heads)
