"""Mixtures of experts: which experts read a token, with which weights, and the neurons of each.

transformers keeps the experts of a block in one module with stacked weights, and calls it with the tokens, the
experts selected for each, and their weights. That call is listened to; the model goes on computing as it did. What
no module returns, the neurons, is computed once more beside it, for the record only.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from babelscope.hooks.tolerance import LAW

ExpertsEnd: TypeAlias = Literal["moe.neurons", "moe.expert", "moe.weight"]
ENDS: tuple[str, ...] = get_args(ExpertsEnd)

# A module for which `is_experts` holds; torch does not say of which type a module's attributes are.
Stacked: TypeAlias = Any


@dataclass(frozen=True, slots=True, eq=False)
class Experts:
    """The experts of one block.

    Parameters
    ----------
    module : Module
        Holds the stacked weights of all of them.
    n_slots : int
        Experts that read one token.
    scale : float
        Of what they give, where the block scales it beside the weights.
    """

    module: nn.Module
    n_slots: int
    scale: float = 1.0

    @property
    def n_experts(self) -> int:
        """How many there are to select from."""
        return _size(self.module, 0)

    @property
    def n_neurons(self) -> int:
        """Of one expert."""
        return _size(self.module, 1 if self.module.is_transposed else 2)


class Routed(NamedTuple):
    """What an experts module is called with: (token, dim), and (token, slot) twice, in the router's order."""

    tokens: Tensor
    expert: Tensor
    weight: Tensor


def is_experts(module: nn.Module) -> bool:
    """Whether a module holds stacked experts behind transformers' ExpertsInterface, by its attributes."""
    down = getattr(module, "down_proj", None)
    stacked = isinstance(down, Tensor) and down.ndim == 3 and down.dtype in LAW  # quantized ones need kernels
    return stacked and all(hasattr(module, name) for name in ("has_gate", "has_bias", "is_transposed", "_apply_gate"))


def routed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Routed | None:
    """The call of an experts module, or None if it is of another form."""
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    if len(tensors) != 3:
        return None
    tokens, expert, weight = tensors
    tokens = tokens.reshape(-1, tokens.shape[-1])
    fits = expert.ndim == 2 and expert.shape == weight.shape and len(expert) == len(tokens)
    return Routed(*tensors) if fits and not expert.is_floating_point() and weight.is_floating_point() else None


def expert_neurons(module: Stacked, call: Routed) -> Tensor:
    """(token, slot, neuron): what the down projection of each selected expert reads.

    One product per expert, as the model's own; its kernels may round the last bit another way.
    """
    tokens = call.tokens.reshape(-1, call.tokens.shape[-1])
    weights, bias = (module.gate_up_proj, "gate_up_proj_bias") if module.has_gate else (module.up_proj, "up_proj_bias")
    found: Tensor | None = None
    for expert, (token, slot) in _selected(call.expert, len(weights)):
        x = _linear(module, tokens[token], weights[expert], bias, expert)
        x = module._apply_gate(x) if module.has_gate else module.act_fn(x)
        if found is None:
            found = x.new_zeros(*call.expert.shape, x.shape[-1])
        found[token, slot] = x
    assert found is not None, "no token was given to any expert"
    return found


def mixed(module: Stacked, neurons: Tensor, expert: Tensor, weight: Tensor) -> Tensor:
    """(token, dim): down projections of the neurons of each slot, weighted and summed."""
    width = module.down_proj.shape[2 if module.is_transposed else 1]
    total = torch.zeros(len(neurons), width, dtype=torch.float64, device=neurons.device)
    for index, (token, slot) in _selected(expert, len(module.down_proj)):
        x = _linear(module, neurons[token, slot], module.down_proj[index], "down_proj_bias", index)
        if getattr(module, "has_post_expert_norm", False):
            x = module.post_expert_norm.forward(x)
        total.index_add_(0, token, x.double() * weight[token, slot, None].double())
    return total


def listen(module: nn.Module, end: str, action: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `action` with neurons, experts or weights whenever the experts are called."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = _called(args, kwargs)
        if end == "moe.neurons":
            action(expert_neurons(module, call))
        else:
            action(call.expert if end == "moe.expert" else call.weight)

    return module.register_forward_pre_hook(before, with_kwargs=True)


def change(module: nn.Module, end: str, action: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Put `action(tensor)` in the place of the weights, or of the neurons, whenever the experts are called.

    No module returns the neurons, so what their change makes of the output is added to what the model computed: a
    change to the same numbers changes nothing, not even a rounding.
    """

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        weight = _called(args, kwargs).weight
        new = action(weight)
        put = {name: new if x is weight else x for name, x in kwargs.items()}
        return tuple(new if x is weight else x for x in args), put

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        call = _called(args, kwargs)
        neurons = expert_neurons(module, call)
        # A node of its own in the graph: what is differentiated is the path through the changed neurons alone.
        changed = action(neurons.clone())
        new, old = (mixed(module, x, call.expert, call.weight) for x in (changed, neurons))
        return output + (new - old).reshape(output.shape).to(output.dtype)

    if end == "moe.neurons":
        return module.register_forward_hook(after, with_kwargs=True)
    return module.register_forward_pre_hook(before, with_kwargs=True)


def _called(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Routed:
    call = routed(args, kwargs)
    assert call is not None, "the experts were called in another form than in the probe"
    return call


def mixture_sides(experts: Experts, seen: Mapping[str, Tensor], shared: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both sides of the equation of a block with experts, for tensors (token, ...) of the same tokens.

    Parameters
    ----------
    seen : mapping
        `moe.neurons`, `moe.expert`, `moe.weight` and `mlp.out`.
    shared : Tensor or None
        What the down projection of a shared expert gives, which every token goes through.
    """
    expert = seen["moe.expert"].round().long()  # a law may be checked on tensors that were stored
    routed_part = mixed(experts.module, seen["moe.neurons"], expert, seen["moe.weight"])
    return with_shared(experts.scale * routed_part, shared, seen["mlp.out"])


def scale_of(routed_part: Tensor, shared: Tensor | None, out: Tensor) -> float:
    """The one factor of what the experts give that explains the block's output best."""
    expected = out.reshape(-1, out.shape[-1]).double()
    found = routed_part.reshape(expected.shape).double()
    if shared is not None:
        direction = functional.normalize(shared.reshape(expected.shape).double(), dim=-1)
        expected, found = (x - (x * direction).sum(-1, keepdim=True) * direction for x in (expected, found))
    factor = float((expected * found).sum() / found.square().sum().clamp(min=1e-300))
    return 1.0 if abs(factor - 1) < LAW[out.dtype] else factor


def with_shared(routed_part: Tensor, shared: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
    """What experts and a shared expert explain of the block's output, and that output.

    The shared expert counts with one factor a token, whatever gate computes it: the best one is taken, and all
    other dimensions of the output have to agree with it.
    """
    expected = out.reshape(-1, out.shape[-1])
    found = routed_part.reshape(expected.shape).double()
    if shared is not None:
        direction = shared.reshape(expected.shape).double()
        rest = expected.double() - found
        factor = (rest * direction).sum(-1, keepdim=True) / direction.square().sum(-1, keepdim=True).clamp(min=1e-300)
        found = found + factor * direction
    return found, expected


def _selected(expert: Tensor, n_experts: int) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Each expert that reads anything, with its tokens and their slots; indices behind the last expert are nobody's."""
    flat = expert.reshape(-1)
    order = torch.argsort(flat, stable=True)
    sizes = torch.bincount(flat.clamp(max=n_experts), minlength=n_experts + 1).tolist()
    for index, places in enumerate(torch.split(order, sizes)[:n_experts]):
        if len(places):
            yield index, (places // expert.shape[1], places % expert.shape[1])


def _linear(module: Stacked, x: Tensor, weight: Tensor, bias: str, expert: int) -> Tensor:
    added = getattr(module, bias)[expert] if module.has_bias else None
    return functional.linear(x, weight.T if module.is_transposed else weight, added)


def _size(module: Stacked, axis: int) -> int:
    return int(module.down_proj.shape[axis])
