"""How an answer depends on every activation, to first order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.interventions.batch import PromptBatch
from babelscope.hooks.interventions.editing import editable, replacing
from babelscope.hooks.interventions.effects import next_logits
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.place import Place, by_prompt
from babelscope.hooks.tap import stack_of, tap_of
from babelscope.schema import Site


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """One site of a batch.

    Parameters
    ----------
    activation, gradient : Tensor
        (prompt, token, *unit); row i of the gradient is that of the score of prompt i. Zero at padding. Keys are
        those of the longest prompt; scores of keys that a token cannot see are NaN, and their gradient is 0.
    mask : Tensor of bool
        (prompt, token): the real tokens.
    """

    activation: Tensor
    gradient: Tensor
    mask: Tensor

    @property
    def attribution(self) -> Tensor:
        """Gradient times activation: minus the first-order effect of zeroing each unit."""
        return self.gradient * self.activation


def gradients(
    loaded: LoadedModel, batch: PromptBatch, sites: Sequence[Site], score: Callable[[Tensor], Tensor]
) -> dict[Site, Gradient]:
    """Gradients of a score with respect to sites, for all prompts and sites in one backward pass.

    The prompts of a batch do not see each other, so the gradient of the sum of their scores is, row by row, the
    gradient of each. Edits that are in force (`edited`) are part of the function that is differentiated.

    Parameters
    ----------
    score : callable
        Logits (prompt, vocabulary) to one score per prompt, as from `gold_score`.

    Raises
    ------
    BabelScopeError
        For a site that this model lacks, and for a score that is not finite or not one number per prompt.
    """
    stacks = loaded.anatomy.stacks
    places: dict[Site | str, Place] = {tag: stack.embedded for tag, stack in stacks.items()}
    places |= {site: editable(loaded, site) for site in sites}
    kept: dict[Site, Tensor] = {}

    def change(key: Site | str, x: Tensor) -> Tensor:
        if isinstance(key, str):
            # Parameters are frozen: the graph begins where the embedding ends.
            return x.detach().requires_grad_()
        kept[key] = x
        return x.clone()  # some models go on to change their tensors in place

    with torch.enable_grad(), replacing(loaded, places, change):
        found = score(next_logits(loaded, batch))
        if found.shape != (len(batch.prompts),) or not bool(found.isfinite().all()):
            raise BabelScopeError(
                f"the score is {found.tolist()}", f"it must be a finite number for each of {len(batch.prompts)} prompts"
            )
        # A site that the score does not depend on has a gradient, and it is zero.
        slopes = torch.autograd.grad(found.sum(), [kept[s] for s in sites], materialize_grads=True, allow_unused=True)
    return {site: _shaped(loaded, batch, site, kept[site], slope) for site, slope in zip(sites, slopes, strict=True)}


def _shaped(loaded: LoadedModel, batch: PromptBatch, site: Site, x: Tensor, slope: Tensor) -> Gradient:
    stack, mask = stack_of(loaded.anatomy, site), batch.tokens.mask_of(site.row_stack)
    values = []
    for by_token in (by_prompt(t.detach(), mask) for t in (x, slope)):
        rows = tap_of(site.kind).reshape(by_token.flatten(0, 1), stack, site.layer or 0)
        values.append(rows.reshape(*mask.shape, *rows.shape[1:]))
    return Gradient(values[0], values[1], mask.bool())
