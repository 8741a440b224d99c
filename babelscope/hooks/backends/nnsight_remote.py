"""nnsight on another machine: each batch is a request to NDIF, which holds the weights and sends activations back."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.backends.nnsight import MINIMUM, MODULE_KINDS, Read, quiet_prefixes, traced_paths
from babelscope.hooks.backends.torch import without_cache
from babelscope.hooks.capture import Keep, Passed
from babelscope.hooks.extras import import_extra
from babelscope.hooks.laws import check_laws
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.reach import check_agreement, not_reachable, refuse_unknown
from babelscope.hooks.tokens import Batch
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
    model: Any
    reads: tuple[Read, ...]
    unembedding: str
    remote: bool | str

    def __call__(self, batch: Batch, keep: Keep, *, logits: bool, laws: bool) -> Passed:
        """See `ForwardPass`."""
        errors = check_laws(self.loaded.anatomy, batch) if laws else {}
        values = _request(
            self.model,
            batch.inputs() | without_cache(self.loaded.model),
            [read.path for read in self.reads],
            [read.end for read in self.reads],
            self.unembedding if logits else "",
            (batch.output_mask.sum(1) - 1).tolist(),
            self.remote,
        )
        for read, value in zip(self.reads, values, strict=False):
            keep(read.site, value)
        return Passed(values[-1] if logits else None, errors)


def _request(
    model: Any,
    inputs: dict[str, Any],
    paths: list[str],
    ends: list[str],
    unembedding: str,
    last: list[int],
    remote: bool | str,
) -> list[Tensor]:
    """Values at paths, in their order, and behind them the logits after the last tokens where they are wanted.

    What the block names travels with it and nothing of ours is installed on the server: strings, lists and numbers
    only. Gradients are off there by the block itself; what is saved comes back to this machine.
    """
    from nnsight import save

    rows = list(range(len(last)))
    with torch.no_grad(), model.trace(**inputs, remote=remote) as tracer:
        values: list[Tensor] = []
        for path, end in zip(paths, ends, strict=True):
            module = model.get(path)
            value = module.output if end == "output" else module.input
            value = value[0] if isinstance(value, tuple) else value
            values.append(value.detach().clone())
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
        refuse_unknown(plan, MODULE_KINDS, NAME)
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
        run = RemotePass(loaded, model, traced_paths(loaded, plan, nnsight.NNsight), head, self.remote)
        check_agreement(run, loaded, plan, NAME)
        return run


backend = NnsightRemoteBackend()
