"""What a trace of nnsight reads for a plan: ends of modules, and operations that their `forward` computes.

nnsight names the operations of a `forward` after its source: `attention_interface_1` is the call of the attention
function, and the operations of that function lie below it. Names that depend on the function which happens to run
are looked up in a first trace; whether they mean what they say is settled by `reach.check_agreement`.
"""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from inspect import isdatadescriptor
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from babelscope.hooks.backends.torch import forward, without_cache
from babelscope.hooks.experts import ENDS
from babelscope.hooks.interface import eagerly
from babelscope.hooks.interior import STEP_BY_STEP, at_softmax, dot_products
from babelscope.hooks.mass import Reduction
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import tapped
from babelscope.hooks.reach import not_reachable, sample_batch
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import CapturePlan, Site

ATTENTION, EXPERTS = r"attention_interface_\d+", r"experts_forward_\d+"
SOFTMAX, DOT_PRODUCTS = r"(.*_)?softmax_\d+", r"(.*_)?scaled_dot_product_attention_\d+"
GATE, SORT = r"self__apply_gate_\d+|self_act_fn_\d+", r"torch_sort_\d+"

# Where the attention function and the experts expect what they are called with.
ARGUMENTS = {"query": 1, "key": 2, "value": 3, "moe.expert": 1, "moe.weight": 2}
# What is read behind the arguments of its module, and in which order: nnsight refuses to go back.
STAGES = {"scores": 1, "pattern": 2, "mass": 2, "moe.neurons": 1}

TakenEnd: TypeAlias = Literal["input", "output", "inputs"]


class Take(NamedTuple):
    """One value of a pass.

    Parameters
    ----------
    operations : tuple of str
        Each in the source of the one before, the first in that of the module; none for the module itself.
    end : str
        `inputs` are all arguments together, as (args, kwargs).
    at : int
        Which of the arguments, or of the results where there are several.
    """

    operations: tuple[str, ...]
    end: TakenEnd
    at: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """One site: the module at a path as nnsight spells it, the end of its `Place`, and the values that make it up."""

    site: Site
    path: str
    end: str
    takes: tuple[Take, ...]


def taken(envoy: Any, path: str, take: Take) -> Any:
    """The value, inside a trace."""
    node = envoy.get(path)
    for operation in take.operations:
        node = getattr(node.source, operation)
    if take.end == "output":
        output = node.output
        return output[take.at] if isinstance(output, tuple | list) else output
    args, kwargs = node.inputs
    return (args, kwargs) if take.end == "inputs" else [*args, *kwargs.values()][take.at]


def finished(
    read: Read, values: Sequence[Any], batch: Batch, loaded: LoadedModel, reduction: Reduction | None
) -> Tensor:
    """The tensor of a site, as our own taps give it, from the values that were taken."""
    first: Tensor = values[0]
    if read.end in ("query", "key", "value"):
        return first.transpose(1, 2)
    if read.end == "moe.neurons":  # rows lie in the order of the experts
        neurons: Tensor = values[1]
        unsorted = torch.empty_like(neurons)
        unsorted[first] = neurons
        return unsorted.reshape(batch.mask_of(read.site.stack).numel(), -1, neurons.shape[-1])
    if read.end not in ("scores", "pattern", "mass"):
        return first
    if reduction is not None and read.takes[0].end == "inputs":
        args, kwargs = values[0]
        return reduction.of_dot_products(dot_products(*args, **kwargs))
    shape = (*batch.mask_of(read.site.stack).shape, batch.key_mask(read.site).shape[1])
    return at_softmax(read.end, first, shape, loaded.model.dtype, reduction)


def computing(loaded: LoadedModel, plan: CapturePlan) -> AbstractContextManager[None]:
    """Inside, attention is computed so that every site of the plan passes: step by step where it has to be."""
    eager = any(place_of(loaded.anatomy, site).end in STEP_BY_STEP for site in plan.sites)
    return eagerly(loaded.anatomy.model) if eager else nullcontext()


def traced_reads(loaded: LoadedModel, plan: CapturePlan, envoy: Any, backend: str) -> tuple[Read, ...]:
    """What to read, in the order of a forward pass.

    Raises
    ------
    BabelScopeError
        If a site lies in an operation that this model does not compute.
    """
    places = {site: place_of(loaded.anatomy, site) for site in plan.sites}
    places = dict(sorted(places.items(), key=lambda found: STAGES.get(found[1].end, 0)))
    # Whatever lies inside a module comes behind its input and before the modules below it that sites end at.
    ends = {site: place if place.end == "output" else place._replace(end="input") for site, place in places.items()}
    order: dict[Site, None] = {}
    with torch.inference_mode(), tapped(ends, lambda site, _: order.setdefault(site)):
        forward(loaded, sample_batch(loaded), head=False)
    from nnsight import NNsight

    names = {id(module): name for name, module in loaded.model.named_modules()}
    reads, known = [], dict[tuple[type, str], tuple[Take, ...]]()
    with computing(loaded, plan):
        for site in order:
            module, end = places[site]
            look = Look(loaded, envoy, spelled(names[id(module)], NNsight))
            if (type(module), end) not in known:
                known[type(module), end] = look.takes(end)
            takes = known[type(module), end]
            if not takes:
                reason = (
                    f"the forward of {type(module).__name__} computes none of the operations that hold it elsewhere"
                )
                raise not_reachable(f"site {site}", backend, reason)
            reads.append(Read(site, look.path, end, takes))
    return tuple(reads)


def spelled(path: str, served: Any) -> str:
    """A path as nnsight spells it: a module named after something that an Envoy serves (`output`) has a prefix."""
    parts = path.split(".")
    return ".".join(
        f"{served.OVERLOAD_PREFIX}{part}" if isdatadescriptor(getattr(served, part, None)) else part for part in parts
    )


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """The operations of one module, looked for in traces of a sample."""

    loaded: LoadedModel
    envoy: Any
    path: str

    def takes(self, end: str) -> tuple[Take, ...]:
        """The values that make up an end of the module; none where no operation has them."""
        if end == "input":
            return (Take((), "input"),)
        if end == "output":
            return (Take((), "output"),)
        if end == "moe.neurons":
            call = self.operations((), EXPERTS)[-1:]
            order, neurons = self._computed(call, SORT, "output", 1), self._computed(call, GATE, "output")
            return order + neurons if order else ()
        if end in ENDS:
            return (Take((), "input", ARGUMENTS[end]),)
        call = self.operations((), ATTENTION)[-1:]  # the one before is the choice of the function
        if end in ARGUMENTS:
            return (Take(call, "input", ARGUMENTS[end]),) if call else ()
        found = self._computed(call, SOFTMAX, "input" if end == "scores" else "output")
        return found or (self._computed(call, DOT_PRODUCTS, "inputs") if end == "mass" else ())

    def operations(self, call: tuple[str, ...], pattern: str) -> tuple[str, ...]:
        """Names below a call, or of the module itself, in the order of the source; computed or not."""
        envoy, names = self.envoy, list[str]()
        if not call:
            names += envoy.get(self.path).source.names
        else:
            with torch.inference_mode(), envoy.trace(**self._inputs()) as tracer:
                names += getattr(envoy.get(self.path).source, call[0]).source.names
                tracer.stop()
        return tuple(name for name in names if re.fullmatch(pattern, name))

    def _computed(self, call: tuple[str, ...], pattern: str, end: TakenEnd, at: int = 0) -> tuple[Take, ...]:
        """The last operation of that name which is computed, as our own taps take the last softmax."""
        takes = (Take((*call, name), end, at) for name in reversed(self.operations(call, pattern)))
        return next(((take,) for take in takes if self._is_computed(take)), ())

    def _is_computed(self, take: Take) -> bool:
        from nnsight.intervention.interleaver import OutOfOrderError

        envoy, path, found = self.envoy, self.path, list[Any]()
        with suppress(OutOfOrderError), torch.inference_mode(), envoy.trace(**self._inputs()) as tracer:
            found.append(taken(envoy, path, take))
            tracer.stop()
        return bool(found)

    def _inputs(self) -> dict[str, Any]:
        return sample_batch(self.loaded).inputs() | without_cache(self.loaded.model)
