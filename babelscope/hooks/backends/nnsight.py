"""nnsight: the same modules, read inside a trace of the model that is loaded here."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isdatadescriptor
from typing import Any

import torch
from torch import Tensor

from babelscope.hooks.answers import last_token_only
from babelscope.hooks.backends.torch import forward, without_cache
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.extras import import_extra
from babelscope.hooks.laws import check_laws
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import entering, leaving, tapped
from babelscope.hooks.reach import check_agreement, refuse_unknown, sample_batch
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import CapturePlan, Site

MINIMUM = "0.8.1"

# Kinds whose place is the input or output of a module. One that lies elsewhere needs a read of its own.
MODULE_KINDS = frozenset(
    {
        "embed", "resid.pre", "resid.post", "attn.out", "attn.heads", "mlp.out", "mlp.act", "mlp.neurons",
        "cross.out", "cross.heads",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Read:
    """One site as the input or output of the module at a path."""

    site: Site
    path: str
    end: str


@dataclass(frozen=True, slots=True, eq=False)
class NnsightPass:
    """A traced forward pass on the model that is loaded here.

    Parameters
    ----------
    envoy : Envoy
        nnsight's tree of the model.
    reads : tuple of Read
        In the order in which a forward pass comes by: nnsight refuses to go back.
    """

    loaded: LoadedModel
    envoy: Any
    reads: tuple[Read, ...]

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        anatomy = self.loaded.anatomy
        errors = check_laws(anatomy, batch) if laws else {}
        if not logits or anatomy.unembedding is None:
            self._trace(batch, keep, head=False)
            return Passed(None, errors)
        with last_token_only(anatomy.unembedding, batch.output_mask.sum(1) - 1):
            return Passed(self._trace(batch, keep, head=True), errors)

    def _trace(self, batch: Batch, keep: Keep, *, head: bool) -> Tensor | None:
        envoy, reads, found = self.envoy, self.reads, dict[str, Tensor]()
        inputs = batch.inputs() | without_cache(self.loaded.model)
        # nnsight reads the block from this file and runs it beside the model. `keep` copies before the model
        # goes on, and some models go on to change their tensors in place.
        with torch.inference_mode(), envoy.trace(**inputs) as tracer:
            for read in reads:
                module = envoy.get(read.path)
                keep(read.site, entering(*module.inputs) if read.end == "input" else leaving(module.output))
            if head:
                found["logits"] = envoy.output.logits[:, 0].clone()
            else:
                tracer.stop()
        return found.get("logits")


@contextmanager
def quiet_prefixes() -> Iterator[None]:
    """Inside, nnsight does not tell which modules it renames: `traced_paths` spells them by the same rule."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Module '.*' has a submodule named", UserWarning)
        yield


def traced_paths(loaded: LoadedModel, plan: CapturePlan, served: type) -> tuple[Read, ...]:
    """What to read, in the order of a forward pass, by paths as nnsight spells them.

    Parameters
    ----------
    served : type
        nnsight's Envoy. A module named after something that it serves itself (`output` in BERT) has a prefix.
    """
    places = {site: place_of(loaded.anatomy, site) for site in plan.sites}
    order: dict[Site, None] = {}
    with torch.inference_mode(), tapped(places, lambda site, _: order.setdefault(site)):
        forward(loaded, sample_batch(loaded), head=False)
    names = {id(module): name for name, module in loaded.model.named_modules()}
    return tuple(Read(site, _spelled(names[id(places[site].module)], served), places[site].end) for site in order)


def _spelled(path: str, served: Any) -> str:
    parts = path.split(".")
    return ".".join(
        f"{served.OVERLOAD_PREFIX}{part}" if isdatadescriptor(getattr(served, part, None)) else part for part in parts
    )


class NnsightBackend:
    """Opens `NnsightPass`."""

    def open(self, loaded: LoadedModel, plan: CapturePlan) -> NnsightPass:
        """A pass for this plan, compared once with the model's own."""
        refuse_unknown(plan, MODULE_KINDS, "nnsight")
        nnsight = import_extra("nnsight", "nnsight", MINIMUM, extra="backends")
        with quiet_prefixes():
            envoy = nnsight.NNsight(loaded.model)
        run = NnsightPass(loaded, envoy, traced_paths(loaded, plan, nnsight.NNsight))
        check_agreement(run, loaded, plan, "nnsight")
        return run


backend = NnsightBackend()
