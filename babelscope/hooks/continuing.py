"""What follows a prompt: log-probabilities of given tokens, and what the model writes by itself.

Prompts of one length are read together and continued from their keys and values. Between a prompt and what follows it
there is then no padding, which would shift learned positions and push real tokens out of a sliding window.
"""

import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from babelscope.hooks.answers import last_token_only
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.tokens import Encoded, context_length, make_batch, pad_id


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """What was found, prompt by prompt.

    Parameters
    ----------
    scores : tuple of ndarray of float64
        (candidate,): log-probability of all tokens of each candidate; NaN where it has none, or does not fit.
    written : tuple of str
        The greedy continuation without special tokens; "" where none was asked for.
    """

    scores: tuple[NDArray[np.float64], ...]
    written: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """Prompts of one length (in a decoder, of one length of what it reads), behind their last token."""

    length: int
    cache: Any
    logits: Tensor
    encoder: tuple[Tensor, Tensor] | None


def can_continue(loaded: LoadedModel) -> bool:
    """Whether the model can go on from the keys and values of a prompt; recurrent ones, as Mamba, keep none."""
    return loaded.answers_questions and "past_key_values" in inspect.signature(loaded.model.forward).parameters


def follow(
    loaded: LoadedModel,
    encoded: Sequence[Encoded],
    decoder: Sequence[Encoded] | None,
    candidates: Sequence[Sequence[tuple[int, ...]]],
    n_tokens: int,
    token_budget: int,
) -> Followed:
    """Score candidates as continuations of each prompt, and let the model continue by at most `n_tokens`.

    Parameters
    ----------
    encoded, decoder : sequence of Encoded
        What is read; the decoder's in encoder-decoders, where it is the decoder that is continued.
    candidates : sequence of sequences of token ids
        For each prompt; may be empty.
    n_tokens : int
        0 writes nothing. Plain argmax, until a token that ends texts or the end of the context: no sampling, and none
        of the forced or forbidden tokens that a generation config may ask for.
    token_budget : int
        Most tokens (prompt and continuation) in one forward batch; at least one prompt at a time.
    """
    limit = context_length(loaded, "" if decoder is None else "dec")[0] or 10**9
    scores = [np.full(len(c), np.nan) for c in candidates]
    written = [""] * len(encoded)
    read_by = decoder if decoder is not None else encoded
    for group in _groups([len(e) for e in read_by], candidates, n_tokens, token_budget):
        with torch.inference_mode():
            read = _read(loaded, [encoded[i] for i in group], decoder and [decoder[i] for i in group])
            room = limit - read.length
            fitting = [(row, c) for row, i in enumerate(group) for c in range(len(candidates[i]))
                       if 0 < len(candidates[i][c]) <= room]  # fmt: skip
            if fitting:
                rows = [row for row, _ in fitting]
                found = _scored(
                    loaded, read, rows, [candidates[group[row]][c] for row, c in fitting], keep=n_tokens > 0
                )
                for (row, c), score in zip(fitting, found, strict=True):
                    scores[group[row]][c] = score
            for i, ids in zip(group, _written(loaded, read, min(n_tokens, room)), strict=True):
                written[i] = str(loaded.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
    return Followed(tuple(scores), tuple(written))


def _groups(
    lengths: Sequence[int], candidates: Sequence[Sequence[tuple[int, ...]]], n_tokens: int, token_budget: int
) -> Iterator[list[int]]:
    """Prompts of one length, in the given order, as many as the budget holds together with all that follows them."""
    group: list[int] = []
    rows = width = 0
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        more, longest = max(1, len(candidates[i])), max([n_tokens, *map(len, candidates[i])])
        if group and (
            lengths[i] != lengths[group[0]] or (rows + more) * (lengths[i] + max(width, longest)) > token_budget
        ):
            yield group
            group, rows, width = [], 0, 0
        group.append(i)
        rows, width = rows + more, max(width, longest)
    if group:
        yield group


def _read(loaded: LoadedModel, encoded: Sequence[Encoded], decoder: Sequence[Encoded] | None) -> _Read:
    batch = make_batch(loaded, encoded, decoder)
    assert loaded.anatomy.unembedding is not None
    assert bool(batch.output_mask.all()), "prompts of several lengths were read together"
    with last_token_only(loaded.anatomy.unembedding, batch.output_mask.sum(1) - 1):
        output = loaded.model(**batch.inputs(), use_cache=True)
    encoder = None if decoder is None else (output.encoder_last_hidden_state, batch.mask)
    return _Read(batch.output_mask.shape[1], output.past_key_values, output.logits[:, 0], encoder)


def _goes_on(loaded: LoadedModel, read: _Read, ids: Tensor, rows: Tensor, cache: Any, length: int) -> Tensor:
    """Logits (row, token, vocabulary) behind each token of `ids`, which stand behind `length` others."""
    mask = torch.ones(len(ids), length + ids.shape[1], dtype=torch.long, device=ids.device)
    if read.encoder is None:
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    else:
        states, encoder_mask = (x[rows.to(x.device)] for x in read.encoder)
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=states), "attention_mask": encoder_mask,
            "decoder_input_ids": ids, "decoder_attention_mask": mask,
        }  # fmt: skip
    logits: Tensor = loaded.model(**inputs, past_key_values=cache, use_cache=True).logits
    return logits


def _scored(
    loaded: LoadedModel, read: _Read, rows: Sequence[int], candidates: Sequence[tuple[int, ...]], *, keep: bool
) -> list[float]:
    """Log-probability of each candidate behind the prompt in its row; the cache is used up unless it is kept."""
    first = _log_softmax(read.logits)
    scores = [float(first[row, ids[0]]) for row, ids in zip(rows, candidates, strict=True)]
    longer = [k for k, ids in enumerate(candidates) if len(ids) > 1]
    if not longer:
        return scores
    width = max(len(candidates[k]) for k in longer) - 1
    # What stands behind a candidate is read by nobody: a causal model needs no mask for it.
    ids = torch.full((len(longer), width), pad_id(loaded), dtype=torch.long)
    for row, k in enumerate(longer):
        ids[row, : len(candidates[k]) - 1] = torch.tensor(candidates[k][:-1])
    chosen = torch.tensor([rows[k] for k in longer], device=loaded.device)
    cache = copy.deepcopy(read.cache) if keep else read.cache
    cache.batch_select_indices(chosen)
    logits = _goes_on(loaded, read, ids.to(loaded.device), chosen, cache, read.length)
    for row, k in enumerate(longer):
        rest = candidates[k][1:]
        found = _log_softmax(logits[row, : len(rest)])
        scores[k] += float(found[torch.arange(len(rest)), torch.tensor(rest)].sum())
    return scores


def _written(loaded: LoadedModel, read: _Read, n_tokens: int) -> list[list[int]]:
    """Token ids that each prompt is continued with, up to a token that ends texts."""
    n = len(read.logits)
    found: list[list[int]] = [[] for _ in range(n)]
    ends, over = _ends(loaded), [False] * n
    rows, logits = torch.arange(n, device=loaded.device), read.logits
    for step in range(n_tokens):
        ids = logits.argmax(-1)
        for row, token in enumerate(ids.tolist()):
            over[row] = over[row] or token in ends
            if not over[row]:
                found[row].append(token)
        if all(over) or step == n_tokens - 1:
            break
        logits = _goes_on(loaded, read, ids[:, None].to(loaded.device), rows, read.cache, read.length + step)[:, -1]
    return found


def _ends(loaded: LoadedModel) -> frozenset[int]:
    """Tokens that end a text: chat models have one for the turn beside the one for the document."""
    for source in (getattr(loaded.model, "generation_config", None), loaded.model.config, loaded.tokenizer):
        found = getattr(source, "eos_token_id", None)
        if found is not None:
            return frozenset([found] if isinstance(found, int) else found)
    return frozenset()


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=-1).cpu().double()
