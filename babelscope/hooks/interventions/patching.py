"""What a model says next with the residual stream of the last token taken from elsewhere."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from babelscope.hooks.answers import label_tokens
from babelscope.hooks.interventions.ablation import BATCH
from babelscope.hooks.interventions.batch import read_prompts
from babelscope.hooks.interventions.editing import edited
from babelscope.hooks.interventions.edits import Edit
from babelscope.hooks.interventions.effects import next_logits
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.vocabulary import first_tokens
from babelscope.schema import Position, Prompt, Site


def token_logits(
    loaded: LoadedModel, prompts: Sequence[Prompt], tokens: Sequence[int], site: Site | None = None,
    rows: NDArray[np.generic] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Logits of some tokens behind each prompt, (prompt, token).

    Parameters
    ----------
    site : Site, optional
        Where the last token is given other activations; without, the model is as it is.
    rows : ndarray, optional
        (prompt, unit): what stands there instead, one row per prompt.

    Raises
    ------
    BabelScopeError
        As `edited`, and if the model predicts no next token.
    """
    wanted, parts = list(tokens), []
    for start in range(0, len(prompts), BATCH):
        batch = read_prompts(loaded, prompts[start : start + BATCH])
        edits = {} if site is None or rows is None else {site: _patch(rows[start : start + BATCH])}
        with torch.no_grad(), edited(loaded, edits, batch):
            parts.append(next_logits(loaded, batch)[:, wanted].float().cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, len(wanted)), dtype=np.float32)


def gold_tokens(loaded: LoadedModel, prompt: Prompt) -> frozenset[int]:
    """Tokens by which the right answer of a prompt is known; empty where it has none that can be told.

    Those of the label, where options have letters; else what the answer in words begins with.
    """
    if prompt.letters:
        labels = label_tokens(loaded.tokenizer, prompt.letters)
        return frozenset() if isinstance(labels, str) or prompt.gold is None else frozenset(labels[prompt.gold])
    text = prompt.options[prompt.gold] if prompt.gold is not None and prompt.options else prompt.answer
    return first_tokens(loaded.tokenizer, text)


def _patch(rows: NDArray[np.generic]) -> Edit:
    new = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    return Edit(lambda own: new.to(own), Position.parse("last"))
