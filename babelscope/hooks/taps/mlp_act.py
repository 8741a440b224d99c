"""`mlp.act`: what the non-linearity of the MLP returns; the "neuron" of the code of arXiv:2406.16655."""

from torch import Tensor

from babelscope.hooks.anatomy import Stack
from babelscope.hooks.place import Place
from babelscope.hooks.tap import Tap, Tensors, tap_of


def _place(stack: Stack, layer: int) -> Place:
    parts = stack.require("mlp.act", layer, "activation module", "down projection", "an equation that proves the MLP")
    assert parts.activation is not None
    return Place(parts.activation, "output")


def _unit(stack: Stack, layer: int) -> tuple[int, ...]:
    return tap_of("mlp.neurons").unit(stack, layer)


def _law(stack: Stack, layer: int, seen: Tensors) -> tuple[Tensor, Tensor] | None:
    activation = seen["mlp.act"]
    return (activation * seen["mlp.gate"] if "mlp.gate" in seen else activation), seen["mlp.neurons"]


tap = Tap("mlp.act", "mlp.act (times the gate, where there is one) = mlp.neurons", _place, _unit, _law)
