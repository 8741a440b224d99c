"""nnsight on another machine: each batch is a request to NDIF, which holds the weights and sends activations back."""

import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from babelscope.errors import BabelScopeError
from babelscope.hooks.backends.nnsight import MINIMUM, quiet_prefixes
from babelscope.hooks.backends.torch import reductions, without_cache
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.extras import import_extra
from babelscope.hooks.laws import check_laws
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.reach import check_agreement, not_reachable
from babelscope.hooks.tokens import Batch
from babelscope.hooks.traced import Read, computing, finished, traced_reads
from babelscope.schema import CapturePlan

NAME = "nnsight-remote"


@dataclass(frozen=True, slots=True, eq=False)
class RemotePass:
    """A forward pass whose block travels to the server.

    Parameters
    ----------
    model : TransformersModel
    reads : tuple of Read
        In the order of a forward pass.
    unembedding : str
        Path of the module, "" in models without one.
    remote : bool or str
        True for NDIF; "local" serializes the request in the same way and runs it here.
    """

    loaded: LoadedModel
    plan: CapturePlan
    model: Any
    reads: tuple[Read, ...]
    unembedding: str
    remote: bool | str

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        errors = check_laws(self.loaded.anatomy, batch, self.plan.sites) if laws else {}
        takes = [(read.path, take) for read in self.reads for take in read.takes]
        with computing(self.loaded, self.plan):  # the server computes attention as the model here is set to
            values = _request(
                self.model,
                batch.inputs() | without_cache(self.loaded.model),
                [path for path, _ in takes],
                [list(take.operations) for _, take in takes],
                [take.end for _, take in takes],
                [take.at for _, take in takes],
                self.unembedding if logits else "",
                (batch.output_mask.sum(1) - 1).tolist(),
                self.remote,
            )
        left, reduced = iter(values), reductions(self.plan, batch)
        for read in self.reads:
            taken = list(islice(left, len(read.takes)))
            keep(read.site, finished(read, taken, batch, self.loaded, reduced.get(read.site)))
        return Passed(values[-1] if logits else None, errors)


def _request(
    model: Any,
    inputs: dict[str, Any],
    paths: list[str],
    operations: list[list[str]],
    ends: list[str],
    ats: list[int],
    unembedding: str,
    last: list[int],
    remote: bool | str,
) -> list[Any]:
    """Values at paths and below operations (see `traced.Take`), and behind them the logits after the last tokens.

    What the block names travels with it and nothing of ours is installed on the server: strings, lists and numbers
    only. Gradients are off there by the block itself; what is saved comes back to this machine.
    """
    from nnsight import save

    rows = list(range(len(last)))
    with torch.no_grad(), model.trace(**inputs, remote=remote) as tracer:
        values: list[Any] = []
        for path, below, end, at in zip(paths, operations, ends, ats, strict=True):
            node = model.get(path)
            for operation in below:
                node = getattr(node.source, operation)
            if end == "output":
                value = node.output
                value = value[at] if isinstance(value, (tuple, list)) else value
            else:
                args, kwargs = node.inputs
                value = (args, kwargs) if end == "inputs" else [*args, *kwargs.values()][at]
            values.append(value if end == "inputs" else value.detach().clone())
        if unembedding:
            head = model.get(unembedding)
            head.input = head.input[rows, last].unsqueeze(1)
            values.append(model.output.logits[:, 0].detach())
        values = save(values)
        if not unembedding:
            tracer.stop()
    return values


@dataclass(frozen=True, slots=True)
class NnsightRemoteBackend:
    """Opens `RemotePass`."""

    remote: bool | str = True

    def open(self, loaded: LoadedModel, plan: CapturePlan) -> RemotePass:
        """A pass for this plan; one request is compared with the model that is loaded here."""
        if not loaded.anatomy.model.can_generate() or "dec" in loaded.anatomy.stacks:
            raise not_reachable(loaded.anatomy.name, NAME, "only causal language models were tried there")
        nnsight = import_extra("nnsight", "nnsight", MINIMUM, extra="backends")
        if self.remote is True and not nnsight.CONFIG.API.APIKEY:
            raise BabelScopeError("NDIF asks for a key", "get one at https://login.ndif.us and set NDIF_API_KEY")
        with quiet_prefixes():
            # It changes the tokenizer that it is given.
            model = nnsight.TransformersModel(loaded.model, tokenizer=copy.deepcopy(loaded.tokenizer))
        unembedding = loaded.anatomy.unembedding
        head = next((name for name, module in loaded.model.named_modules() if module is unembedding), "")
        run = RemotePass(loaded, plan, model, traced_reads(loaded, plan, model, NAME), head, self.remote)
        check_agreement(run, loaded, plan, NAME)
        return run


backend = NnsightRemoteBackend()
