"""Taps of blocks with experts, which share one equation: slots, weighted and summed, are what the block adds."""

from torch import Tensor

from babelscope.hooks.anatomy import Stack
from babelscope.hooks.experts import ENDS, Experts, ExpertsEnd, mixture_sides
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors


def experts_at(stack: Stack, site: str, layer: int) -> Experts:
    """The experts of a block.

    Raises
    ------
    BabelScopeError
        If the block has none that are proven.
    """
    found = stack.require(site, layer, "experts", "an equation that proves the MLP").experts
    assert found is not None
    return found


def moe_tap(site: ExpertsEnd) -> Tap:
    """`moe.neurons`, `moe.expert` or `moe.weight`."""

    def place(stack: Stack, layer: int) -> Place:
        return Place(experts_at(stack, site, layer).module, site)

    def unit(stack: Stack, layer: int) -> tuple[int, ...]:
        experts = experts_at(stack, site, layer)
        return (experts.n_slots, experts.n_neurons) if site == "moe.neurons" else (experts.n_slots,)

    def rows(x: Tensor, stack: Stack, layer: int) -> Tensor:
        return x.reshape(len(x), *unit(stack, layer))

    return Tap(site, "down projections(moe.neurons) times moe.weight sum up to mlp.out", place, unit, law, rows)


def law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    """Slots and the shared expert against mlp.out; None in a layer without experts."""
    parts = stack.layers[layer]
    if parts.experts is None or not all(end in seen for end in ENDS):
        return None
    shared = None
    if parts.down_projection is not None and "mlp.neurons" in seen:
        shared = parts.down_projection.forward(seen["mlp.neurons"])
    return mixture_sides(parts.experts, seen, shared)
