"""What follows a prompt: log-probabilities of given tokens, and what the model writes by itself.

Prompts of one length are read together and continued from their keys and values. Between a prompt and what follows it
there is then no padding, which would shift learned positions and push real tokens out of a sliding window. Where the
cache of a model does not bear that (see `continuing_tried`), prompts are read once more with what follows them.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import last_token_only
from babelscope.hooks.backends.torch import without_cache
from babelscope.hooks.context import context_length
from babelscope.hooks.memory import in_halves
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.tokens import Encoded, make_batch, pad_id


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


class Cached(NamedTuple):
    """What a model goes on to from the keys and values, or states, that it has kept of a prompt.

    Parameters
    ----------
    scoring : bool
        Several tokens at once, and several candidates of one prompt.
    writing : bool
        One token at a time.
    """

    scoring: bool = True
    writing: bool = True


BEARS_ALL = Cached()


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Prompts of one length (in a decoder, of one length of what it reads), behind their last token.

    Parameters
    ----------
    ids : Tensor
        (prompt, token): what is continued.
    cache : Any
        None where nothing is kept.
    logits : Tensor
        (prompt, vocabulary) of the next token.
    encoder : tuple of Tensor, or None
        States and mask of the encoder.
    """

    ids: Tensor
    cache: Any
    logits: Tensor
    encoder: tuple[Tensor, Tensor] | None


@dataclass(slots=True)
class _Part:
    """What a pass found: scores by (prompt, candidate), token ids by prompt."""

    scores: dict[tuple[int, int], float] = field(default_factory=dict)
    written: dict[int, list[int]] = field(default_factory=dict)


# A prompt, and which of its candidates is scored, or None where it is continued.
_Task: TypeAlias = tuple[int, int | None]


def follow(
    loaded: LoadedModel,
    encoded: Sequence[Encoded],
    decoder: Sequence[Encoded] | None,
    candidates: Sequence[Sequence[tuple[int, ...]]],
    n_tokens: int,
    token_budget: int,
    *,
    cached: Cached = BEARS_ALL,
    note: Callable[[str], None] = lambda _: None,
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
    cached : Cached
        What the model's cache bears, as `continuing_tried.tried` finds it.
    note : callable, optional
        Told of batches that are halved because the memory does not suffice.

    Raises
    ------
    BabelScopeError
        If the memory does not suffice for one prompt and one candidate.
    """
    limit = context_length(loaded, "" if decoder is None else "dec")[0] or 10**9
    read_by = decoder if decoder is not None else encoded

    def run(tasks: Sequence[_Task]) -> _Part:
        group = list(dict.fromkeys(i for i, _ in tasks))
        room, found = limit - len(read_by[group[0]]), _Part()
        fitting = [(i, c) for i, c in tasks if c is not None and 0 < len(candidates[i][c]) <= room]
        writing = {i for i, c in tasks if c is None}
        with torch.inference_mode():
            beside = decoder and [decoder[i] for i in group]
            seen = read(loaded, [encoded[i] for i in group], beside, cached=any(cached))
            if fitting:
                rows, texts = [group.index(i) for i, _ in fitting], [candidates[i][c] for i, c in fitting]
                scores = _scored(loaded, seen, rows, texts, cached=cached.scoring, keep=bool(writing))
                found.scores.update(zip(fitting, scores, strict=True))
            if writing:
                written = _written(loaded, seen, min(n_tokens, room), cached=cached.writing)
                found.written.update((i, ids) for i, ids in zip(group, written, strict=True) if i in writing)
        return found

    def told(n: int) -> None:
        note(f"out of memory behind the prompts: {n} texts are followed in two halves")

    def refused(task: _Task) -> BabelScopeError:
        return BabelScopeError(
            f"the memory does not suffice for what follows one prompt of {len(read_by[task[0]]):,} tokens",
            "give --answers labels, leave out --continue, or use a device with more memory; "
            "finished blocks are kept, --resume continues behind them",
        )

    scores, texts = [np.full(len(c), np.nan) for c in candidates], [""] * len(encoded)
    for group in _groups([len(e) for e in read_by], candidates, n_tokens, token_budget):
        tasks: list[_Task] = []
        for i in group:
            tasks += [(i, c) for c in range(len(candidates[i]))] + ([(i, None)] if n_tokens else [])
        for part in in_halves(run, tasks, told, refused) if tasks else ():
            for (i, c), score in part.scores.items():
                scores[i][c] = score
            for i, ids in part.written.items():
                texts[i] = str(loaded.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
    return Followed(tuple(scores), tuple(texts))


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


def read(loaded: LoadedModel, encoded: Sequence[Encoded], decoder: Sequence[Encoded] | None, *, cached: bool) -> Read:
    """Read prompts of one length, and keep what can be gone on from where `cached`."""
    batch = make_batch(loaded, encoded, decoder)
    assert loaded.anatomy.unembedding is not None
    assert bool(batch.output_mask.all()), "prompts of several lengths were read together"
    with last_token_only(loaded.anatomy.unembedding, batch.output_mask.sum(1) - 1):
        output = loaded.model(**batch.inputs(), **({"use_cache": True} if cached else without_cache(loaded.model)))
    ids = batch.ids if batch.decoder_ids is None else batch.decoder_ids
    encoder = None if decoder is None else (output.encoder_last_hidden_state, batch.mask)
    return Read(ids, output.past_key_values if cached else None, output.logits[:, 0], encoder)


def selected(seen: Read, rows: Tensor, *, keep: bool) -> Any:
    """The cache with a row for each candidate; what was read is used up unless it is kept."""
    cache = copy.deepcopy(seen.cache) if keep else seen.cache
    cache.batch_select_indices(rows)
    return cache


def goes_on(loaded: LoadedModel, seen: Read, ids: Tensor, rows: Tensor, cache: Any, known: int = 0) -> Tensor:
    """Logits (row, token, vocabulary) behind the tokens of `ids` from the one at `known` on.

    Parameters
    ----------
    ids : Tensor
        (row, token): all that follows the prompts in `rows`.
    cache : Any
        Has the prompts and `known` tokens of `ids`, a row for each; None reads everything again.
    """
    whole = torch.cat([seen.ids[rows], ids], 1)
    new = ids[:, known:] if cache is not None else whole
    mask = torch.ones_like(whole)
    if seen.encoder is None:
        inputs: dict[str, Any] = {"input_ids": new, "attention_mask": mask}
    else:
        states, encoder_mask = (x[rows.to(x.device)] for x in seen.encoder)
        inputs = {
            "encoder_outputs": BaseModelOutput(last_hidden_state=states), "attention_mask": encoder_mask,
            "decoder_input_ids": new, "decoder_attention_mask": mask,
        }  # fmt: skip
    assert loaded.anatomy.unembedding is not None
    with ExitStack() as stack:
        if cache is None:
            inputs |= without_cache(loaded.model)
            stack.enter_context(_last_tokens_only(loaded.anatomy.unembedding, ids.shape[1] - known))
        else:
            inputs |= {"past_key_values": cache, "use_cache": True}
        logits: Tensor = loaded.model(**inputs).logits
    return logits


@contextmanager
def _last_tokens_only(unembedding: nn.Module, n: int) -> Iterator[None]:
    handle = unembedding.register_forward_pre_hook(lambda _, args: (args[0][:, -n:], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _scored(
    loaded: LoadedModel,
    seen: Read,
    rows: Sequence[int],
    candidates: Sequence[tuple[int, ...]],
    *,
    cached: bool,
    keep: bool,
) -> list[float]:
    """Log-probability of each candidate behind the prompt in its row; the cache is used up unless it is kept."""
    first = _log_softmax(seen.logits)
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
    cache = selected(seen, chosen, keep=keep) if cached else None
    logits = goes_on(loaded, seen, ids.to(loaded.device), chosen, cache)
    for row, k in enumerate(longer):
        rest = candidates[k][1:]
        found = _log_softmax(logits[row, : len(rest)])
        scores[k] += float(found[torch.arange(len(rest)), torch.tensor(rest)].sum())
    return scores


def _written(loaded: LoadedModel, seen: Read, n_tokens: int, *, cached: bool) -> list[list[int]]:
    """Token ids that each prompt is continued with, up to a token that ends texts."""
    n = len(seen.logits)
    found: list[list[int]] = [[] for _ in range(n)]
    ends, over = _ends(loaded), [False] * n
    rows, logits = torch.arange(n, device=loaded.device), seen.logits
    ids = seen.ids.new_empty((n, 0))
    for step in range(n_tokens):
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True).to(ids.device)], 1)
        for row, token in enumerate(ids[:, -1].tolist()):
            over[row] = over[row] or token in ends
            if not over[row]:
                found[row].append(token)
        if all(over) or step == n_tokens - 1:
            break
        logits = goes_on(loaded, seen, ids, rows, seen.cache if cached else None, step)[:, -1]
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
