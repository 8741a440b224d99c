"""The logit lens: what the model would say if its last block gave the activation of another one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from babelscope.errors import BabelScopeError
from babelscope.hooks.interventions.batch import PromptBatch, read_prompts
from babelscope.hooks.interventions.editing import edited
from babelscope.hooks.interventions.edits import Edit
from babelscope.hooks.interventions.effects import next_logits
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Position, Prompt, Site

# Probabilities of the whole vocabulary are in memory for as many rows as fit here.
LOGIT_BYTES = 64 * 2**20
MOST_ROWS = 512


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the lens says of some rows; NaN for a row with a value that is not finite.

    Parameters
    ----------
    probabilities : ndarray of float32
        (row, token): of the tokens that were asked for.
    entropy : ndarray of float64
        (row,): of the whole distribution, in bits.
    masses : ndarray of float64
        (row, class): probability on all tokens of a class.
    """

    probabilities: NDArray[np.float32]
    entropy: NDArray[np.float64]
    masses: NDArray[np.float64]


def lens(
    loaded: LoadedModel, rows: NDArray[np.generic], tokens: Sequence[int], classes: NDArray[np.int64],
    *, language: str = "en",
) -> Reading:  # fmt: skip
    """Read activations of the residual stream as next-token distributions, softmax(W_U Norm(h)).

    The rows take the place of what the last block gives, and everything behind it is the model's own: final norm, tied
    or untied unembedding, scales and soft caps of the logits. So at the last block the lens is what the model says.
    The blocks before run for nothing, on one short text: a row costs as much as a token of a capture. Reading middle
    layers assumes that they write in the basis of the last one (nostalgebraist 2020, *Interpreting GPT: the logit
    lens*).

    Parameters
    ----------
    rows : ndarray
        (row, width) of `resid.post` of the stack that the unembedding reads, of any layer.
    tokens : sequence of int
        Whose probabilities are kept.
    classes : ndarray of int64
        (vocabulary,): class of every token, from 0.
    language : str
        What the short text is said to be in, to models that read languages beside tokens.

    Raises
    ------
    BabelScopeError
        If the model predicts no next token, or the rows have another width than its stream.
    """
    if not loaded.answers_questions:
        raise BabelScopeError(f"{loaded.anatomy.name} predicts no next token", "name a causal language model")
    stack = loaded.anatomy.output_stack
    if rows.ndim != 2 or rows.shape[1] != stack.width:
        raise BabelScopeError(
            f"the lens reads rows of width {stack.width}, not of shape {rows.shape}", "give rows of resid.post"
        )
    site = Site("resid.post", len(stack.layers) - 1, stack.tag)
    n_classes = int(classes.max()) + 1
    at_once = max(1, min(MOST_ROWS, LOGIT_BYTES // (4 * len(classes))))
    parts: list[Reading] = []
    batch = _short(loaded, min(at_once, max(1, len(rows))), language)
    for start in range(0, len(rows), at_once):
        chosen = torch.from_numpy(np.ascontiguousarray(rows[start : start + at_once], dtype=np.float32))
        if len(chosen) != len(batch.prompts):
            batch = _short(loaded, len(chosen), language)
        parts.append(_read(loaded, batch, site, chosen, tokens, classes, n_classes))
    if not parts:
        nothing = np.empty((0, n_classes))
        return Reading(np.empty((0, len(tokens)), np.float32), nothing[:, 0].copy(), nothing)
    return Reading(
        np.concatenate([p.probabilities for p in parts]),
        np.concatenate([p.entropy for p in parts]),
        np.concatenate([p.masses for p in parts]),
    )


def vocabulary_size(loaded: LoadedModel) -> int:
    """Tokens that the unembedding knows, which may be more than the tokenizer's.

    Raises
    ------
    BabelScopeError
        If the model predicts no next token.
    """
    with torch.no_grad():
        return int(next_logits(loaded, _short(loaded, 1, "en")).shape[1])


def said(
    loaded: LoadedModel, prompts: Sequence[Prompt], tokens: Sequence[int], decoder: str = "start"
) -> NDArray[np.float32]:
    """What the model itself says behind some prompts, (prompt, token), which the lens must say of its last layer."""
    with torch.no_grad():
        p = torch.softmax(next_logits(loaded, read_prompts(loaded, prompts, decoder)).float(), dim=-1)
        return np.asarray(p[:, list(tokens)].cpu().numpy())


def _short(loaded: LoadedModel, n: int, language: str) -> PromptBatch:
    return read_prompts(loaded, [Prompt("", language, "A")] * n)


def _read(
    loaded: LoadedModel, batch: PromptBatch, site: Site, rows: torch.Tensor, tokens: Sequence[int],
    classes: NDArray[np.int64], n_classes: int,
) -> Reading:  # fmt: skip
    edit = Edit(lambda own: rows.to(own), Position("last"))
    with torch.no_grad(), edited(loaded, {site: edit}, batch):
        logp = torch.log_softmax(next_logits(loaded, batch).float(), dim=-1)
        p = logp.exp()
        # What cannot be said has probability 0 and a logarithm of minus infinity.
        entropy = -torch.where(p == 0, 0.0, p * logp).sum(dim=-1) / np.log(2)
        of_class = torch.from_numpy(classes).to(p.device)
        masses = p.new_zeros(len(p), n_classes).index_add(1, of_class, p)
        kept = p[:, torch.tensor(list(tokens), dtype=torch.long, device=p.device)]
    return Reading(kept.cpu().numpy(), entropy.double().cpu().numpy(), masses.double().cpu().numpy())
