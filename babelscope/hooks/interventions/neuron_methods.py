"""Neuron attribution beyond gradient times activation: along a path, against another prompt, straight to the logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.interventions.attribution import BATCH, Report, answer_margin
from babelscope.hooks.interventions.batch import PromptBatch, read_prompts
from babelscope.hooks.interventions.editing import edited
from babelscope.hooks.interventions.edits import Edit
from babelscope.hooks.interventions.effects import next_logits
from babelscope.hooks.interventions.gradients import gradients
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Position, Prompt, Site

Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Integrated:
    """Integrated gradients of the answer margin, layer by layer.

    Parameters
    ----------
    attribution : ndarray of float32
        (prompt, layer, neuron).
    missing : ndarray of float64
        (prompt, layer): margin at the activation minus margin at the baseline minus the sum of the attributions, nats;
        0 where the path is resolved (completeness).
    """

    attribution: NDArray[np.float32]
    missing: NDArray[np.float64]


def integrated_gradients(
    loaded: LoadedModel, prompts: Sequence[Prompt], sites: Sequence[Site], activation: NDArray[np.floating],
    baseline: NDArray[np.floating], steps: int = 16, report: Report = lambda *_: None,
) -> Integrated:  # fmt: skip
    r"""Integrated gradients on the neurons of the last token, one layer at a time, all later layers computed anew.

    .. math:: (a - a') \int_0^1 \frac{\partial y}{\partial a}(a' + s (a - a'))\, ds

    by the midpoint rule.

    Parameters
    ----------
    sites : sequence of Site
        `mlp.neurons` of some layers.
    activation : ndarray
        (prompt, layer, neuron) at the last token, as from `neuron_gradients`.
    baseline : ndarray
        (layer, neuron): zeros, or a mean, which stays within what the model has seen.
    steps : int

    References
    ----------
    Sundararajan et al. (2017), arXiv:1703.01365, equation 1; Dai et al. (2022), arXiv:2104.08696, for neurons.
    """
    found = np.zeros(activation.shape, dtype=np.float32)
    missing = np.zeros(activation.shape[:2])
    for start in range(0, len(prompts), BATCH):
        batch = read_prompts(loaded, prompts[start : start + BATCH])
        rows = slice(start, start + len(batch.prompts))
        score = answer_margin(loaded, batch)
        for layer, site in enumerate(sites):
            end = torch.from_numpy(np.ascontiguousarray(activation[rows, layer])).double()
            begin = torch.from_numpy(np.ascontiguousarray(baseline[layer])).double().expand_as(end)
            slope = torch.zeros_like(end)
            for step in range(steps):
                slope += _slope(loaded, batch, site, begin + (step + 0.5) / steps * (end - begin), score)[1] / steps
            part = slope * (end - begin)
            ends = [_slope(loaded, batch, site, values, score)[0] for values in (end, begin)]
            found[rows, layer] = part.float().numpy()
            missing[rows, layer] = (ends[0] - ends[1] - part.sum(1)).numpy()
        report(rows.stop, len(prompts), "integrated gradients")
    return Integrated(found, missing)


def _slope(loaded: LoadedModel, batch: PromptBatch, site: Site, values: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    """The margin with neurons of the last token at given values, and its gradient there, on the CPU in float64."""
    leaf = values.to(loaded.device, torch.float32).requires_grad_()
    with torch.enable_grad(), edited(loaded, {site: Edit(lambda rows: leaf.to(rows), Position.parse("last"))}, batch):
        margin = score(next_logits(loaded, batch))
        slope = torch.autograd.grad(margin.sum(), leaf)[0]
    return margin.detach().double().cpu(), slope.double().cpu()


def patching_attribution(
    activation: NDArray[np.floating], gradient: NDArray[np.floating], other: NDArray[np.floating]
) -> NDArray[np.floating]:
    """What replacing each neuron by that of another prompt takes from the answer, to first order.

    `(a - a_other) dy/da`, (prompt, layer, neuron) each. Prompts differ in length, so only single positions compare.

    References
    ----------
    Nanda (2023), *Attribution patching*; Kramár et al. (2024), arXiv:2403.00745.
    """
    return np.asarray((activation - other) * gradient)


def direct_contributions(
    loaded: LoadedModel, prompts: Sequence[Prompt], sites: Sequence[Site], activation: NDArray[np.floating],
    report: Report = lambda *_: None,
) -> NDArray[np.float32]:  # fmt: skip
    """What each neuron writes straight into the answer margin, past all later layers, (prompt, layer, neuron).

    `a_k W_out[:, k] . dy/dh`, with h the residual stream behind the last block at the last token: the final norm and
    the unembedding are linearized at the prompt. A norm behind the down projection (Gemma) is passed over.

    Raises
    ------
    BabelScopeError
        If the down projection of a layer was not found.
    """
    last = Site("resid.post", loaded.ref.n_layers - 1)
    parts = []
    for start in range(0, len(prompts), BATCH):
        batch = read_prompts(loaded, prompts[start : start + BATCH])
        slopes = gradients(loaded, batch, [last], answer_margin(loaded, batch))[last].gradient
        end = slopes[torch.arange(len(batch.prompts)), batch.tokens.output_mask.sum(1).to(slopes.device) - 1]
        read = [_read_out(loaded, site, end) for site in sites]
        parts.append(torch.stack(read, 1).float().cpu().numpy())
        report(min(start + BATCH, len(prompts)), len(prompts), "direct contributions")
    return np.asarray(np.concatenate(parts) * activation, dtype=np.float32)


def _read_out(loaded: LoadedModel, site: Site, direction: Tensor) -> Tensor:
    """W_out' direction, (prompt, neuron), whatever way round the module keeps its weight."""
    down = loaded.anatomy.output_stack.layers[site.layer or 0].down_projection
    if down is None:
        raise BabelScopeError(
            f"{site}: the down projection of {loaded.anatomy.name} was not found",
            "name it with --anatomy, or use an attribution by gradients",
        )
    neurons = torch.zeros(len(direction), _input_width(down), device=direction.device, dtype=direction.dtype)
    neurons = neurons.requires_grad_()
    with torch.enable_grad():
        written = (down(neurons) * direction).sum()
    found: Tensor = torch.autograd.grad(written, neurons)[0]
    return found


def _input_width(down: torch.nn.Module) -> int:
    """Inputs of a linear layer: `in_features`, or the first axis of the weight of a Conv1D."""
    if isinstance(down, torch.nn.Linear):
        return down.in_features
    weight = down.get_parameter("weight")
    return int(weight.shape[0])
