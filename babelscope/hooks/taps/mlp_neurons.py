"""`mlp.neurons`: what the down projection reads; the one definition of a neuron that every dense MLP shares.

In a block with experts it is the shared expert's, which reads every token; the others' are `moe.neurons`.
"""

from torch import Tensor

from babelscope.hooks import mixture
from babelscope.hooks.anatomy import Stack
from babelscope.hooks.place import Place
from babelscope.hooks.probe import columns_read
from babelscope.hooks.tap import Tap, Tensors


def _place(stack: Stack, layer: int) -> Place:
    parts = stack.require("mlp.neurons", layer, "down projection", "an equation that proves the MLP")
    assert parts.down_projection is not None
    return Place(parts.down_projection, "input")


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    return (columns_read(_place(stack, layer).module),)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    parts = stack.layers[layer]
    if parts.experts is not None:
        return mixture.law(stack, layer, seen)
    return (
        None if parts.down_projection is None else (parts.down_projection.forward(seen["mlp.neurons"]), seen["mlp.out"])
    )


tap = Tap("mlp.neurons", "down projection(mlp.neurons) = mlp.out", _place, _unit, _law)
