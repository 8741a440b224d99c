"""What an intervention does to the answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import label_tokens, labels_of, last_token_only
from babelscope.hooks.backends.torch import forward
from babelscope.hooks.interventions.batch import PromptBatch
from babelscope.hooks.interventions.editing import edited
from babelscope.hooks.interventions.edits import Edit
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Prompt, Site


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """Answers before and after.

    Parameters
    ----------
    prompts : tuple of Prompt
    logits_before, logits_after : Tensor
        (prompt, vocabulary) of the next token.
    scores_before, scores_after : ndarray of float64
        (prompt, option): log-probabilities of the labels, as a capture keeps them; NaN where there is none.
    """

    prompts: tuple[Prompt, ...]
    logits_before: Tensor
    logits_after: Tensor
    scores_before: NDArray[np.float64]
    scores_after: NDArray[np.float64]

    def table(self) -> pd.DataFrame:
        """One row per prompt and option: item, language, option, gold, before, after."""
        rows = [
            (p.item, p.language, option, option == p.gold, self.scores_before[i, option], self.scores_after[i, option])
            for i, p in enumerate(self.prompts)
            for option in range(len(labels_of(p)))
        ]
        return pd.DataFrame(rows, columns=["item", "language", "option", "gold", "before", "after"])


def effect(loaded: LoadedModel, batch: PromptBatch, edits: Mapping[Site, Edit]) -> Effect:
    """Run a batch without and with edits.

    Raises
    ------
    BabelScopeError
        As `edited`, and if the model predicts no next token.
    """
    with torch.no_grad():
        before = next_logits(loaded, batch)
        with edited(loaded, edits, batch):
            after = next_logits(loaded, batch)
        scores = [option_scores(loaded, batch, x).double().cpu().numpy() for x in (before, after)]
    return Effect(batch.prompts, before, after, *scores)


def next_logits(loaded: LoadedModel, batch: PromptBatch) -> Tensor:
    """Logits (prompt, vocabulary) behind the last token that the unembedding reads; gradients flow where enabled.

    Raises
    ------
    BabelScopeError
        If the model predicts no next token.
    """
    if not loaded.answers_questions or loaded.anatomy.unembedding is None:
        raise BabelScopeError(f"{loaded.anatomy.name} predicts no next token", "name a causal language model")
    with last_token_only(loaded.anatomy.unembedding, batch.tokens.output_mask.sum(1) - 1):
        logits: Tensor = forward(loaded, batch.tokens, head=True).logits[:, 0]
    return logits


def option_scores(loaded: LoadedModel, batch: PromptBatch, logits: Tensor) -> Tensor:
    """Log-probability (prompt, option) of each option's label, the better of its spellings; differentiable.

    NaN where a prompt has fewer options, or where one token does not tell its labels apart.
    """
    tokens = [_labels(loaded, p) for p in batch.prompts]
    # The half types are too coarse for differences of log-probabilities.
    logp = torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)
    width = max((len(labels_of(p)) for p in batch.prompts), default=0)
    nothing = logp.new_full((), torch.nan)
    rows = []
    for row, labels in enumerate(tokens):
        found = [] if isinstance(labels, str) else [logp[row, list(ids)].max() for ids in labels]
        rows.append(torch.stack([*found, *[nothing] * (width - len(found))]) if width else logp.new_empty(0))
    return torch.stack(rows)


def gold_score(loaded: LoadedModel, batch: PromptBatch) -> Callable[[Tensor], Tensor]:
    """A function from logits to the log-probability (prompt,) of the gold option's label, for `gradients`.

    Raises
    ------
    BabelScopeError
        Naming the first prompt without a gold option, or whose labels one token does not tell apart.
    """
    gold = []
    for prompt in batch.prompts:
        labels = _labels(loaded, prompt)
        reason = labels if isinstance(labels, str) else "" if prompt.gold is not None and labels else "no gold option"
        if reason or prompt.gold is None:
            raise BabelScopeError(
                f"item {prompt.item!r} in {prompt.language!r}: {reason}", "leave out this prompt, or pass another score"
            )
        gold.append(prompt.gold)

    def score(logits: Tensor) -> Tensor:
        scores = option_scores(loaded, batch, logits)
        return scores[torch.arange(len(gold), device=scores.device), torch.tensor(gold, device=scores.device)]

    return score


def _labels(loaded: LoadedModel, prompt: Prompt) -> tuple[tuple[int, ...], ...] | str:
    labels = labels_of(prompt)
    return label_tokens(loaded.tokenizer, labels) if labels else ()
