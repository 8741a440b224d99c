"""The default backend: forward hooks on the model itself."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from babelscope.hooks.answers import last_token_only
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.laws import check_laws
from babelscope.hooks.levers import Levers, at_last, last_layer, tried
from babelscope.hooks.mass import Reduction
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, tapped
from babelscope.hooks.prefixes import Group, PrefixCache, shared_batches
from babelscope.hooks.pruning import pruned
from babelscope.hooks.tap import place_of
from babelscope.hooks.tokens import Batch, batches
from babelscope.schema import CapturePlan, Position, Site

LAW_PROMPTS = 4


@dataclass(frozen=True, slots=True, eq=False)
class TorchPass:
    """A forward pass with hooks on the model's own modules; no hook outlives a call, whatever happens.

    The unembedding runs on last tokens only, and not at all without logits; then the pass also ends behind the
    last block that is captured. Laws are observed in a plain pass of their own, over a few of the prompts.
    """

    loaded: LoadedModel
    plan: CapturePlan
    levers: Levers
    notes: tuple[str, ...]
    prefixes: PrefixCache

    @property
    def lever_errors(self) -> Mapping[str, float]:
        """Lever in force -> its error against the plain pass."""
        return self.levers.errors

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        anatomy = self.loaded.anatomy
        errors = check_laws(anatomy, batch.of(range(len(batch))[:LAW_PROMPTS]), self.plan.sites) if laws else {}
        places = {site: place_of(anatomy, site) for site in self.plan.sites}
        stop_at = None if logits else last_place(self.loaded, self.plan)
        start = batch.shared[-1] if self.levers.prefixes and batch.shared else 0
        mask = batch.output_mask[:, start:]
        last = mask.sum(1) - 1
        output: Any = None
        with torch.inference_mode(), ExitStack() as stack:
            cache = self.prefixes.continued(batch.ids, batch.shared) if start else None
            if logits and anatomy.unembedding is not None:
                stack.enter_context(last_token_only(anatomy.unembedding, last))
            if self.levers.block is not None:
                stack.enter_context(pruned(self.levers.block, last, mask.shape[1]))
            keep = _last_row(keep, mask) if self.levers else keep
            stack.enter_context(
                tapped(places, keep, stop_at, model=self.loaded.model, reductions=reductions(self.plan, batch))
            )
            # Stays None where the pass is stopped on its way.
            output = _called(self.loaded, self._inputs(batch, start), head=logits, cache=cache)
        return Passed(output.logits[:, 0] if logits else None, errors)

    def batches(self, ids: Sequence[tuple[int, ...]]) -> list[Group]:
        """Prompts of one pool of blocks grouped into batches, with what those of a batch share where that is used."""
        budget, pass_cost = self.plan.token_budget, self.plan.pass_cost
        if self.levers.prefixes:
            return shared_batches(ids, budget, pass_cost)
        return [Group(tuple(rows)) for rows in batches([len(i) for i in ids], budget, pass_cost)]

    def _inputs(self, batch: Batch, start: int) -> dict[str, Tensor]:
        inputs = batch.inputs()
        if start:
            inputs["input_ids"] = batch.ids[:, start:]
        if self.levers.unmasked:
            del inputs["attention_mask"]
        return inputs


def reductions(plan: CapturePlan, batch: Batch) -> dict[Site, Reduction]:
    """How attention is reduced for each site of a plan that is such a reduction; one for all layers."""
    last_only = plan.positions == (Position("last"),)
    reduced = [site for site in plan.sites if "summary" in site.axes]
    named = {site.name: batch.reduction(site, last_only=last_only, even=plan.even) for site in reduced}
    return {site: named[site.name] for site in plan.sites if site.name in named}


def _last_row(keep: Keep, mask: Tensor) -> Keep:
    """Hand on the last token alone: behind a shared prefix, or in a pruned block, there is nothing else to take."""
    return lambda site, x: keep(site, at_last(x, mask).unsqueeze(1))


def forward(loaded: LoadedModel, batch: Batch, *, head: bool, **options: Any) -> Any:
    """Call the model, or only its body, without a cache; position ids are its own affair under right padding."""
    return _called(loaded, batch.inputs(), head=head, **options)


def _called(
    loaded: LoadedModel, inputs: dict[str, Tensor], *, head: bool, cache: Cache | None = None, **options: Any
) -> Any:
    module = loaded.model if head else loaded.anatomy.body
    if cache is not None:
        return module(**inputs, **options, past_key_values=cache, use_cache=True)
    return module(**inputs, **without_cache(module), **options)


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
        """A pass for this plan, with those of its levers that the model bears."""

        def run_prefix(ids: Tensor, cache: Cache) -> None:
            place = Place(loaded.anatomy.stacks[""].layers[last_layer(loaded, plan)].module, "output")
            with tapped(dict[Site, Place](), lambda *_: None, place):
                _called(loaded, {"input_ids": ids}, head=False, cache=cache)

        def run(levers: Levers, notes: Sequence[str] = ()) -> TorchPass:
            return TorchPass(loaded, plan, levers, tuple(notes), PrefixCache(loaded.model, run_prefix))

        return run(*tried(loaded, plan, run))


backend = TorchBackend()
