"""A tap: where a kind of site lies in terms of parts, the shape of its rows, and the equation that proves it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy, Stack
from babelscope.hooks.place import Place
from babelscope.hooks.tolerance import LAW, largest_error, not_finite
from babelscope.schema import Site

# Tensors of one layer by site kind, the same tokens in each, and beside them
#   resid.before  what the block before returned, or the embedding for block 0
#   resid.after   what the next block, or the final norm, reads; absent at the end of a model without one
#   resid.mid     the stream between attention and MLP, where the residual equation has a middle
#   resid.end     the stream behind the MLP, in blocks that go on to add something else
#   mlp.gate      what the activation is multiplied with, in gated MLPs
Tensors = Mapping[str, Tensor]


def _unchanged(x: Tensor, stack: Stack, layer: int) -> Tensor:
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
        (stack, layer) -> Place; raises BabelScopeError naming the parts that this model lacks.
    unit : callable
        (stack, layer) -> shape of one row, without the axes whose extent the prompts decide.
    law : callable
        (stack, layer, tensors) -> the two sides of the equation, or None where it says nothing.
    reshape : callable
        (tensor, stack, layer) -> tensor with the axes of the site last.
    beyond : float
        What stands for keys beyond those of a prompt, in sites with the axis `key`.
    limits : mapping
        Dtype -> largest error of the law.
    defined : callable, optional
        rows before `reshape` -> what in them has to be finite, in sites where NaN or -inf stands for what is
        undefined; in all others every value has to be.
    """

    kind: str
    equation: str
    place: Callable[[Stack, int], Place]
    unit: Callable[[Stack, int], tuple[int, ...]]
    law: Callable[[Stack, int, Tensors], tuple[Tensor, Tensor] | None]
    reshape: Callable[[Tensor, Stack, int], Tensor] = _unchanged
    beyond: float = float("nan")
    limits: Mapping[torch.dtype, float] = field(default_factory=lambda: LAW)
    defined: Callable[[Tensor], Tensor] | None = None

    def error(self, stack: Stack, site: str, found: Tensor, expected: Tensor) -> float:
        """Relative error between the two sides of the law.

        Raises
        ------
        BabelScopeError
            If it is larger than rounding allows, or if there are values that are not finite.
        """
        if not (found.isfinite().all() and expected.isfinite().all()):
            raise not_finite(stack.name, site, expected.dtype)
        tolerance = self.limits[expected.dtype]
        dtype = str(expected.dtype).removeprefix("torch.")
        error = largest_error(found, expected) if found.shape == expected.shape else float("inf")
        if not error <= tolerance:
            raise BabelScopeError(
                f"site {site} of {stack.name} breaks its law ({self.equation}): "
                f"relative error {error:.1e}, at most {tolerance:.2g} expected in {dtype}",
                "this model keeps its parts elsewhere; leave the site out, and report the model",
            )
        return error


@cache  # asked for in every hook; files do not come and go while a model runs
def tap_of(kind: str) -> Tap:
    """The tap of a kind of site."""
    tap: Tap = plugins.load("tap", kind.replace(".", "-"))
    return tap


@cache
def all_taps() -> tuple[Tap, ...]:
    """Every tap, the plugins of other distributions included."""
    return tuple(plugins.load("tap", name) for name in plugins.names("tap"))


def taps_of(stack: Stack, layer: int, *, inside: bool) -> Iterator[Tap]:
    """The taps of a layer that this model has the parts for: those inside attention, or all others."""
    for tap in all_taps():
        try:
            place = tap.place(stack, layer)
        except BabelScopeError:
            continue  # this model has no such part in this layer: nothing is captured there either
        if place.is_inside == inside:
            yield tap


def stack_of(anatomy: Anatomy, site: Site) -> Stack:
    """The stack that a site lies in.

    Raises
    ------
    BabelScopeError
        If the model has no such stack.
    """
    if site.stack not in anatomy.stacks:
        have = " and ".join(f"{tag}.{site}" for tag in anatomy.stacks) if "" not in anatomy.stacks else site.kind
        raise BabelScopeError(f"site {site}: {anatomy.name} has no such stack", f"write {have}")
    return anatomy.stacks[site.stack]


def place_of(anatomy: Anatomy, site: Site) -> Place:
    """Where a site lies in this model.

    Raises
    ------
    BabelScopeError
        If the model lacks the parts, or the stack that the site names.
    """
    return tap_of(site.kind).place(stack_of(anatomy, site), site.layer or 0)


def unit_of(anatomy: Anatomy, sites: Sequence[Site]) -> tuple[int, ...]:
    """Shape of one row of the sites of one name, which must be the same in all their layers."""
    shapes = {s.layer: tap_of(s.kind).unit(stack_of(anatomy, s), s.layer or 0) for s in sites}
    if len(set(shapes.values())) > 1:
        name = sites[0].name
        raise BabelScopeError(
            f"site {name} has rows of different shapes in {anatomy.name}: {shapes}", f"name one layer, as {name}@0"
        )
    return next(iter(shapes.values()))
