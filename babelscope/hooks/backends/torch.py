"""The default backend: forward hooks on the model itself."""

import inspect
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from babelscope.hooks.answers import last_token_only
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.interior_laws import attention_errors
from babelscope.hooks.laws import observing
from babelscope.hooks.mass import Reduction
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, tapped
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch
from babelscope.schema import CapturePlan, Position, Site


@dataclass(frozen=True, slots=True)
class TorchPass:
    """A forward pass with hooks on the model's own modules; no hook outlives a call, whatever happens.

    The unembedding runs on last tokens only, and not at all without logits; then the pass also ends behind the
    last block that is captured. Where laws are observed it is run to its end.
    """

    loaded: LoadedModel
    plan: CapturePlan

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        anatomy = self.loaded.anatomy
        places = {site: place_of(anatomy, site) for site in self.plan.sites}
        stop_at = None if logits or laws else last_place(self.loaded, self.plan)
        output: Any = None
        with torch.inference_mode(), ExitStack() as stack:
            observed = stack.enter_context(observing(anatomy, batch)) if laws else None
            if logits and anatomy.unembedding is not None:
                stack.enter_context(last_token_only(anatomy.unembedding, batch.output_mask.sum(1) - 1))
            stack.enter_context(
                tapped(places, keep, stop_at, model=self.loaded.model, reductions=self._reductions(batch))
            )
            output = forward(self.loaded, batch, head=logits)  # stays None where the pass is stopped on its way
        errors = observed.errors() if observed else {}
        if laws and any(place.is_inside for place in places.values()):
            # A pass of its own: computing step by step for the laws would change the rounding of the rows.
            errors |= attention_errors(anatomy, batch)
        return Passed(output.logits[:, 0] if logits else None, errors)

    def _reductions(self, batch: Batch) -> dict[Site, Reduction]:
        last_only = self.plan.positions == (Position("last"),)
        named = {s.name: batch.reduction(s, last_only=last_only) for s in self.plan.sites if "summary" in s.axes}
        return {site: named[site.name] for site in self.plan.sites if site.name in named}


def forward(loaded: LoadedModel, batch: Batch, *, head: bool, **options: bool) -> Any:
    """Call the model, or only its body, without a cache; position ids are its own affair under right padding."""
    module = loaded.model if head else loaded.anatomy.body
    return module(**batch.inputs(), **without_cache(module), **options)


def without_cache(module: nn.Module) -> dict[str, bool]:
    """The argument that keeps keys and values from being cached; encoders know none."""
    return {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}


def last_place(loaded: LoadedModel, plan: CapturePlan) -> Place:
    """Behind the last block that a site of the plan lies in; nobody reads what comes after."""
    stacks = loaded.anatomy.stacks
    tag = max((site.stack for site in plan.sites), key=list(stacks).index)
    layers = [site.layer for site in plan.sites if site.layer is not None and site.stack == tag]
    if not layers:
        return Place(stacks[tag].layers[0].module, "input")
    return Place(stacks[tag].layers[max(layers)].module, "output")


class TorchBackend:
    """Opens `TorchPass`."""

    def open(self, loaded: LoadedModel, plan: CapturePlan) -> TorchPass:
        """A pass for this plan."""
        return TorchPass(loaded, plan)


backend = TorchBackend()
