"""How much of an answer each neuron carries, for many prompts, at the token that answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.hooks.interventions.batch import PromptBatch, read_prompts
from babelscope.hooks.interventions.effects import gold_score, option_scores
from babelscope.hooks.interventions.gradients import gradients
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Prompt, Site

Report = Callable[[int, int, str], None]

# Every layer's neurons of every token of these prompts are kept for one backward pass.
BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class NeuronGradients:
    """Neurons at the last token, and how the answer depends on them.

    Parameters
    ----------
    activation, gradient : ndarray of float32
        (prompt, layer, neuron); the gradient is that of `answer_margin`.
    margin : ndarray of float64
        (prompt,) the answer margin itself, nats.
    """

    activation: NDArray[np.float32]
    gradient: NDArray[np.float32]
    margin: NDArray[np.float64]

    @property
    def attribution(self) -> NDArray[np.float32]:
        """Gradient times activation, (prompt, layer, neuron): minus the first-order effect of zeroing a neuron."""
        return self.gradient * self.activation


def answer_margin(loaded: LoadedModel, batch: PromptBatch) -> Callable[[Tensor], Tensor]:
    """A function from logits to logit(gold) - mean logit(other options), (prompt,).

    Of each option the better spelling of its label counts. Differences of logits are those of log-probabilities, so
    what the model says besides the labels cancels.

    Raises
    ------
    BabelScopeError
        Naming the first prompt without a gold option, or whose labels one token does not tell apart.
    """
    gold_score(loaded, batch)  # checks every prompt
    gold = torch.tensor([p.gold for p in batch.prompts])

    def margin(logits: Tensor) -> Tensor:
        scores = option_scores(loaded, batch, logits)
        is_gold = torch.nn.functional.one_hot(gold.to(scores.device), scores.shape[1]).bool()
        others = torch.where(is_gold | scores.isnan(), torch.zeros_like(scores), scores)
        n_others = (~is_gold & ~scores.isnan()).sum(1)
        return scores.masked_fill(~is_gold, 0.0).sum(1) - others.sum(1) / n_others

    return margin


def neuron_gradients(
    loaded: LoadedModel, prompts: Sequence[Prompt], sites: Sequence[Site], report: Report = lambda *_: None
) -> NeuronGradients:
    """Activations and gradients of the neurons of some layers at the last token of every prompt.

    Parameters
    ----------
    sites : sequence of Site
        `mlp.neurons` of the layers, in order; all of one width.
    report : callable
        Called with (prompts done, of, what).

    Raises
    ------
    BabelScopeError
        As `answer_margin` and `gradients`.
    """
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]] = []
    for start in range(0, len(prompts), BATCH):
        batch = read_prompts(loaded, prompts[start : start + BATCH])
        score, margins = answer_margin(loaded, batch), list[Tensor]()

        def margin(logits: Tensor, score: Callable[[Tensor], Tensor] = score, kept: list[Tensor] = margins) -> Tensor:
            kept.append(score(logits))
            return kept[-1]

        found = gradients(loaded, batch, sites, margin)
        rows = torch.arange(len(batch.prompts))
        last = batch.tokens.output_mask.sum(1).cpu() - 1
        values = [
            torch.stack([getattr(found[site], name).cpu()[rows, last] for site in sites], 1).float().numpy()
            for name in ("activation", "gradient")
        ]
        parts.append((values[0], values[1], margins[0].detach().double().cpu().numpy()))
        report(min(start + BATCH, len(prompts)), len(prompts), "gradients")
    return NeuronGradients(*(np.concatenate(part) for part in zip(*parts, strict=True)))
