"""A tap: where a kind of site lies in terms of parts, the shape of its rows, and the equation that proves it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from torch import Tensor

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.place import Place
from babelscope.schema import Site

# Tensors of one layer by site kind, the same tokens in each, and beside them
#   resid.before  what the block before returned, or the embedding for block 0
#   resid.after   what the next block, or the final norm, reads; absent at the end of a model without one
#   resid.mid     the stream between attention and MLP, where the residual equation has a middle
#   mlp.gate      what the activation is multiplied with, in gated MLPs
Tensors = Mapping[str, Tensor]


def _unchanged(x: Tensor, anatomy: Anatomy, layer: int) -> Tensor:
    return x


@dataclass(frozen=True, slots=True)
class Tap:
    """One kind of site.

    Parameters
    ----------
    kind : str
        A key of `SITE_KINDS`; the file is named after it, with underscores.
    equation : str
        The law in words.
    place : callable
        (anatomy, layer) -> Place; raises BabelScopeError naming the parts that this model lacks.
    unit : callable
        (anatomy, layer) -> shape of one row.
    law : callable
        (anatomy, layer, tensors) -> the two sides of the equation, or None where it says nothing.
    reshape : callable
        (tensor, anatomy, layer) -> tensor with the axes of the site last.
    """

    kind: str
    equation: str
    place: Callable[[Anatomy, int], Place]
    unit: Callable[[Anatomy, int], tuple[int, ...]]
    law: Callable[[Anatomy, int, Tensors], tuple[Tensor, Tensor] | None]
    reshape: Callable[[Tensor, Anatomy, int], Tensor] = _unchanged


@cache  # asked for in every hook; files do not come and go while a model runs
def tap_of(kind: str) -> Tap:
    """The tap of a kind of site."""
    tap: Tap = plugins.load("tap", kind.replace(".", "-"))
    return tap


@cache
def all_taps() -> tuple[Tap, ...]:
    """Every tap, the plugins of other distributions included."""
    return tuple(plugins.load("tap", name) for name in plugins.names("tap"))


def place_of(anatomy: Anatomy, site: Site) -> Place:
    """Where a site lies in this model.

    Raises
    ------
    BabelScopeError
        If the model lacks the parts, or the stack that the site names.
    """
    if site.stack:
        raise BabelScopeError(
            f"site {site}: {anatomy.name} has one stack only", f"write {str(site).removeprefix(site.stack + '.')}"
        )
    return tap_of(site.kind).place(anatomy, site.layer or 0)


def unit_of(anatomy: Anatomy, kind: str, layers: Sequence[int | None]) -> tuple[int, ...]:
    """Shape of one row of a kind of site, which must be the same in all the layers."""
    shapes = {layer: tap_of(kind).unit(anatomy, layer or 0) for layer in layers}
    if len(set(shapes.values())) > 1:
        raise BabelScopeError(
            f"site {kind} has rows of different shapes in {anatomy.name}: {shapes}", f"name one layer, as {kind}@0"
        )
    return next(iter(shapes.values()))
