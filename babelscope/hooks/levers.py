"""The levers of a plan: ways to compute less for the same rows, each tried on the model before it is used."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from babelscope.hooks.capture import ForwardPass
from babelscope.hooks.memory import out_of_memory
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.pruning import PrunedBlock, prunable, with_query_projection
from babelscope.hooks.tokens import Batch, pad_id
from babelscope.hooks.tolerance import PASS, typical_error
from babelscope.schema import CapturePlan, Site

# Of the prompts that a lever is tried on: different lengths, so that a wrong row or a missing mask shows.
TRIAL_LENGTHS = (23, 17, 11, 9)
TRIAL_SHARED = (4, 7)


@dataclass(frozen=True, slots=True, eq=False)
class Levers:
    """What a forward pass leaves out.

    Parameters
    ----------
    unmasked : bool
        The mask: behind the last token of a causal model there is only padding.
    block : PrunedBlock or None
        The other tokens of the last block that is run.
    prefixes : bool
        What prompts share at their start, but for once.
    errors : mapping
        Lever in force -> error against the plain pass.
    """

    unmasked: bool = False
    block: PrunedBlock | None = None
    prefixes: bool = False
    errors: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.unmasked or self.block is not None or self.prefixes


Tried: TypeAlias = tuple[Levers, tuple[str, ...]]


def tried(loaded: LoadedModel, plan: CapturePlan, run: Callable[[Levers], ForwardPass]) -> Tried:
    """The levers of a plan that this model bears, and a line about those that it does not.

    Each is tried on four prompts of random tokens, beside those that passed before it. The prompts are always the
    same ones, so a resumed capture decides as the first one did.

    Parameters
    ----------
    run : callable
        Levers -> the forward pass with them.
    """
    levers = Levers()
    if not plan.levers:
        return levers, ()
    batch = _trial(loaded)
    plain = _rows(run(levers), plan, batch)
    limit = max(PASS[loaded.model.dtype], PASS[DTYPES[plan.row_dtype]])
    for name in plan.levers:
        error: float | None = None
        for candidate in _candidates(name, levers, loaded, plan):
            try:
                found = _rows(run(candidate), plan, batch)
            except Exception as error_raised:  # whatever a model file raises in a way it was not written for
                if out_of_memory(error_raised):
                    raise  # says nothing about the lever, and may not happen when the capture is resumed
                continue
            tried_error = max(typical_error(found[key], plain[key]) for key in plain)
            if tried_error <= limit:
                levers, error = candidate, tried_error
                break
        if error is not None:
            levers = replace(levers, errors={**levers.errors, name: error})
    off = [name for name in plan.levers if name not in levers.errors]
    note = f"{loaded.anatomy.name} does without {', '.join(off)}: tried, and its numbers would not be the same"
    return levers, (note,) if off else ()


def _candidates(name: str, levers: Levers, loaded: LoadedModel, plan: CapturePlan) -> Iterator[Levers]:
    """Settings of one lever, each worse than the ones before it."""
    if name == "unmasked":
        yield replace(levers, unmasked=True)
    elif name == "prefixes":
        yield replace(levers, prefixes=True)
    elif name == "pruned":
        layer = loaded.anatomy.stacks[""].layers[last_layer(loaded, plan)]
        block = prunable(loaded.model, layer)
        if block.entrances:
            for further in with_query_projection(block, layer):
                yield replace(levers, block=further)
            yield replace(levers, block=block)
            yield replace(levers, block=replace(block, attention=None))


def last_layer(loaded: LoadedModel, plan: CapturePlan) -> int:
    """The last block that a plan needs: that of its last site, or the last of all where it asks for answers."""
    layers = [site.layer for site in plan.sites if site.layer is not None]
    return len(loaded.anatomy.stacks[""].layers) - 1 if plan.answers else max(layers, default=0)


def _trial(loaded: LoadedModel) -> Batch:
    n, length, pad = len(TRIAL_LENGTHS), max(TRIAL_LENGTHS), pad_id(loaded)
    vocabulary = loaded.anatomy.stacks[""].embedding.num_embeddings
    assert isinstance(vocabulary, int)
    ids = torch.randint(vocabulary, (n, length), generator=torch.Generator().manual_seed(0))
    ids[:, : TRIAL_SHARED[-1]] = ids[0, : TRIAL_SHARED[-1]].clone()
    ids[ids == pad] = (pad + 1) % vocabulary
    mask = (torch.arange(length) < torch.tensor(TRIAL_LENGTHS)[:, None]).long()
    ids = torch.where(mask.bool(), ids, pad)
    return Batch(ids.to(loaded.device), mask.to(loaded.device), shared=TRIAL_SHARED)


def _rows(forward: ForwardPass, plan: CapturePlan, batch: Batch) -> dict[str, Tensor]:
    """Every site at the last token of each prompt, and the logits where the plan needs them."""
    found: dict[str, Tensor] = {}

    def keep(site: Site, x: Tensor) -> None:
        found[str(site)] = at_last(x, batch.mask).clone()

    passed = forward(batch, keep, logits=bool(plan.answers), laws=False)
    return found if passed.logits is None else {**found, "logits": passed.logits}


def at_last(x: Tensor, mask: Tensor) -> Tensor:
    """(prompt, *unit) at the last real token, from every token or from that one alone."""
    if x.shape[:2] == (len(mask), 1):
        return x[:, 0]
    x = x if x.shape[:2] == mask.shape else x.reshape(*mask.shape, *x.shape[1:])
    return x[torch.arange(len(mask), device=x.device), (mask.sum(1) - 1).to(x.device)]
