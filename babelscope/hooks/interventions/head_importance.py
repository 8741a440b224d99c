"""How much an answer depends on every attention head, for many prompts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from babelscope.hooks.interventions.attribution import BATCH, Report, answer_margin
from babelscope.hooks.interventions.batch import read_prompts
from babelscope.hooks.interventions.gradients import gradients
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Prompt, Site


def head_importance(
    loaded: LoadedModel, prompts: Sequence[Prompt], sites: Sequence[Site], report: Report = lambda *_: None
) -> NDArray[np.float32]:
    """Derivative of the answer margin by a factor on each head's output, where the factor is 1.

    The sum of gradient times activation over the tokens and dimensions of a head: minus the first-order effect of
    masking it. The published code of LAHIS trains such factors with an optimizer while it measures, so that its scores
    depend on the order of documents; here nothing moves.

    Parameters
    ----------
    sites : sequence of Site
        `attn.heads` of the layers.

    Returns
    -------
    ndarray of float32
        (prompt, layer, head), nats.

    Raises
    ------
    BabelScopeError
        As `answer_margin` and `gradients`.
    """
    parts = []
    for start in range(0, len(prompts), BATCH):
        batch = read_prompts(loaded, prompts[start : start + BATCH])
        found = gradients(loaded, batch, sites, answer_margin(loaded, batch))
        # Padding has a gradient of zero.
        parts.append(np.stack([found[site].attribution.float().sum(dim=(1, 3)).cpu().numpy() for site in sites], 1))
        report(min(start + BATCH, len(prompts)), len(prompts), "head importance")
    return np.concatenate(parts)
