"""nnsight: the same modules, read inside a trace of the model that is loaded here."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from babelscope.hooks.answers import last_token_only
from babelscope.hooks.backends.torch import reductions, without_cache
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.extras import import_extra
from babelscope.hooks.laws import check_laws
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.reach import check_agreement
from babelscope.hooks.tokens import Batch
from babelscope.hooks.traced import Read, computing, finished, taken, traced_reads
from babelscope.schema import CapturePlan

MINIMUM = "0.8.1"


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
    plan: CapturePlan
    envoy: Any
    reads: tuple[Read, ...]

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        anatomy = self.loaded.anatomy
        errors = check_laws(anatomy, batch, self.plan.sites) if laws else {}
        with computing(self.loaded, self.plan):
            if not logits or anatomy.unembedding is None:
                self._trace(batch, keep, head=False)
                return Passed(None, errors)
            with last_token_only(anatomy.unembedding, batch.output_mask.sum(1) - 1):
                return Passed(self._trace(batch, keep, head=True), errors)

    def _trace(self, batch: Batch, keep: Keep, *, head: bool) -> Tensor | None:
        envoy, reads, found = self.envoy, self.reads, dict[str, Tensor]()
        reduced = reductions(self.plan, batch)
        inputs = batch.inputs() | without_cache(self.loaded.model)
        # nnsight reads the block from this file and runs it beside the model. `keep` copies before the model
        # goes on, and some models go on to change their tensors in place.
        with torch.inference_mode(), envoy.trace(**inputs) as tracer:
            for read in reads:
                values = [taken(envoy, read.path, take) for take in read.takes]
                keep(read.site, finished(read, values, batch, self.loaded, reduced.get(read.site)))
            if head:
                found["logits"] = envoy.output.logits[:, 0].clone()
            else:
                tracer.stop()
        return found.get("logits")


@contextmanager
def quiet_prefixes() -> Iterator[None]:
    """Inside, nnsight does not tell which modules it renames: `traced.spelled` spells them by the same rule."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Module '.*' has a submodule named", UserWarning)
        yield


class NnsightBackend:
    """Opens `NnsightPass`."""

    def open(self, loaded: LoadedModel, plan: CapturePlan) -> NnsightPass:
        """A pass for this plan, compared once with the model's own."""
        nnsight = import_extra("nnsight", "nnsight", MINIMUM, extra="backends")
        with quiet_prefixes():
            envoy = nnsight.NNsight(loaded.model)
        run = NnsightPass(loaded, plan, envoy, traced_reads(loaded, plan, envoy, "nnsight"))
        check_agreement(run, loaded, plan, "nnsight")
        return run


backend = NnsightBackend()
