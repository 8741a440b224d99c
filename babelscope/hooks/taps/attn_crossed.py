"""`attn.crossed`: how much of the pattern of a token comes from its cross-lingual query (arXiv:2310.15258)."""

from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Stack
from babelscope.hooks.attention import attention_at
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors
from babelscope.qcross.attention import has_cross_query


def _place(stack: Stack, layer: int) -> Place:
    found = attention_at(stack, "attn.crossed", layer)
    if not has_cross_query(found.module):
        raise BabelScopeError(
            f"site attn.crossed@{layer}: {stack.name} has no cross-lingual query",
            "capture a model that `train qcross` made",
        )
    return Place(found.module, "crossed")


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    place = _place(stack, layer)
    heads = attention_at(stack, "attn.crossed", layer).n_heads
    assert heads is not None, place
    return (heads,)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor]:
    share = seen["attn.crossed"]
    return share, share.clamp(0, 1)


tap = Tap("attn.crossed", "attn.crossed lies between 0 and 1", _place, _unit, _law)
