"""Taps of blocks with experts, which share one equation: slots, weighted and summed, are what the block adds."""

from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy, Stack
from babelscope.hooks.experts import ENDS, Experts, ExpertsEnd, mixture_sides
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors, stack_of
from babelscope.schema import CapturePlan

# Every whole number up to these is one of the dtype: 8, 11 and 24 significant bits.
EXACT_UP_TO = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24, "int8": 0}


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


def check_experts(plan: CapturePlan, anatomy: Anatomy) -> None:
    """Refuse what would not mean anything when it is read back: rounded indices, averages over different experts.

    Raises
    ------
    BabelScopeError
        Naming the site, and the dtype or the position.
    """
    for site in plan.sites:
        if site.kind not in ENDS:
            continue
        averaging = [p for p in plan.positions if not p.ragged and p.kind not in ("last", "first")]
        if averaging and site.kind != "moe.weight":
            raise BabelScopeError(
                f"site {site}: the experts of a slot differ from token to token, so position {averaging[0]} would "
                "average over different ones",
                "use last, first or all",
            )
        largest = experts_at(stack_of(anatomy, site), str(site), site.layer or 0).n_experts - 1
        if site.kind == "moe.expert" and largest > EXACT_UP_TO[plan.dtype]:
            raise BabelScopeError(
                f"site {site}: indices up to {largest} are not exact in {plan.dtype}, which counts to "
                f"{EXACT_UP_TO[plan.dtype]}",
                "store float32 (--store-dtype float32), or leave moe.expert out",
            )
