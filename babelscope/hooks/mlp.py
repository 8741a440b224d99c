"""The MLP of one block: its activation, what gates it, and the projection back to the residual stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from babelscope.hooks.anatomy_file import NamedParts
from babelscope.hooks.probe import Call, is_linear
from babelscope.hooks.tolerance import agree


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Columns `start:stop` of what a linear returns, which the activation is multiplied with."""

    module: nn.Module
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Mlp:
    """What was found: the parts, and what the MLP gave in the probe."""

    down_projection: nn.Module
    out: Tensor
    activation: nn.Module | None
    gate: Gate | None


def find_mlps(calls: Sequence[Call], width: int, named: NamedParts) -> Iterator[Mlp]:
    """What may be the MLP among the calls of a block that do not belong to attention, the likeliest first.

    The down projection is the last linear to the width of the residual stream whose input is an
    activation's output, alone or times another linear's. Where the activation is no module, it may be any
    linear to that width; the residual equation has to prove it then.

    Parameters
    ----------
    named : NamedParts
        Restricts the choice to what the user names.
    """
    linears = [c for c in calls if is_linear(c.module) and c.read is not None and c.returned is not None]
    activations = [c for c in calls if _is_activation(c.module) and c.returned is not None]
    downs = [c for c in linears if c.returned is not None and c.returned.shape[-1] == width]
    downs = [c for c in downs if named.down_projection in (None, c.module)]
    activations = [c for c in activations if named.activation in (None, c.module)]
    for down in reversed(downs):
        assert down.read is not None
        assert down.returned is not None
        for activation in reversed(activations):
            if activation.ended > down.began or activation.returned is None:
                continue
            if _equal(activation.returned, down.read):
                yield Mlp(down.module, down.returned, activation.module, None)
            for gate, columns in _gates(linears, down):
                if activation.returned.shape == columns.shape and agree(activation.returned * columns, down.read):
                    yield Mlp(down.module, down.returned, activation.module, gate)
    for down in reversed(downs):
        assert down.returned is not None
        yield Mlp(down.module, down.returned, None, None)


def _gates(linears: Sequence[Call], down: Call) -> Iterator[tuple[Gate, Tensor]]:
    """Linears before the down projection as wide as the neurons, and the halves of those twice as wide."""
    assert down.read is not None
    n = down.read.shape[-1]
    for call in linears:
        if call.ended > down.began or call.returned is None or call.returned.shape[:-1] != down.read.shape[:-1]:
            continue
        for start in range(0, call.returned.shape[-1], n):
            if call.returned.shape[-1] in (n, 2 * n):
                yield Gate(call.module, start, start + n), call.returned[..., start : start + n]


def _is_activation(module: nn.Module) -> bool:
    if is_linear(module) or any(True for _ in module.children()):
        return False
    if isinstance(module, nn.Dropout | nn.Identity):
        return False
    named = type(module).__module__.endswith((".activations", "modules.activation"))
    return named or not any(True for _ in module.parameters(recurse=False))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
