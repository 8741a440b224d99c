"""Which tokens a position means in a prompt, and how their rows are taken from a batch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.datasets.text_units import word_spans
from babelscope.hooks.tokens import Encoded
from babelscope.schema import Position, Prompt

AVERAGES = ("mean", "weighted-mean", "segment", "answer")  # one row per prompt, over several tokens


class NoTokensError(LookupError):
    """A position that picks nothing in a prompt; the message is the reason the item is left out."""


def tokens_at(position: Position, prompt: Prompt, encoded: Encoded) -> NDArray[np.int64]:
    """Indices of the tokens that a position picks, row after row, in the prompt without padding.

    Special tokens (BOS, [CLS], [SEP]) are real tokens for `last`, `first`, `all` and both means. A segment holds the
    tokens whose characters overlap one of its spans, so a token that straddles a border is in both; likewise a word,
    which holds no special token.

    Raises
    ------
    NoTokensError
        If there are none.
    """
    n = len(encoded)
    if n == 0:
        raise NoTokensError("the text has no tokens")
    if position.kind == "words":
        return np.concatenate([tokens for _, tokens in _words(position.segment, prompt, encoded)])
    if position.kind == "segment":
        return _segment(position.segment, prompt, encoded)
    if position.kind == "answer" and any(s.name == "answer" and s.start < s.stop for s in prompt.segments):
        try:
            return _segment("answer", prompt, encoded)
        except NoTokensError:
            if encoded.spans is None:
                raise
            # A decoder that reads no text: it answers behind its last token.
    return {"last": np.array([n - 1]), "answer": np.array([n - 1]), "first": np.array([0])}.get(
        position.kind, np.arange(n)
    )


def row_sizes(position: Position, prompt: Prompt, encoded: Encoded) -> NDArray[np.int64]:
    """How many of the tokens of `tokens_at` make up each row: one each for `all`, those of a word, else all of them."""
    if position.kind == "words":
        return np.array([len(tokens) for _, tokens in _words(position.segment, prompt, encoded)], np.int64)
    n = len(tokens_at(position, prompt, encoded))
    return np.ones(n, np.int64) if position.ragged else np.array([n])


def coordinates_of(position: Position, prompt: Prompt, encoded: Encoded) -> Mapping[str, NDArray[np.generic]]:
    """What is kept beside each row of a ragged position (`Position.coordinates`); nothing for other positions."""
    if position.kind == "all":
        special = np.isin(np.arange(len(encoded)), list(encoded.special))
        return {"token_id": np.array(encoded.ids, np.int32), "special": special.astype(np.uint8)}
    if position.kind == "words":
        spans = np.array([span for span, _ in _words(position.segment, prompt, encoded)], np.int32)
        return {"char_start": spans[:, 0], "char_stop": spans[:, 1]}
    return {}


def _segment(name: str, prompt: Prompt, encoded: Encoded) -> NDArray[np.int64]:
    spans = np.array(_spans_of(name, prompt))
    inside = np.flatnonzero(_overlaps(spans, encoded).any(axis=0))
    if not inside.size:
        raise NoTokensError(f"segment {name!r} covers no token")
    return inside


def _words(name: str, prompt: Prompt, encoded: Encoded) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
    """Characters and tokens of each word that overlaps the segment, or the text if `name` is empty."""
    inside = _spans_of(name, prompt) if name else [(0, len(prompt.text))]
    spans = [w for w in word_spans(prompt.text) if any(w[0] < stop and start < w[1] for start, stop in inside)]
    overlaps = _overlaps(np.array(spans, np.int64).reshape(-1, 2), encoded)
    overlaps[:, list(encoded.special)] = False
    # A tokenizer may drop a character altogether; a word without tokens has no row.
    found = [(span, np.flatnonzero(row)) for span, row in zip(spans, overlaps, strict=True) if row.any()]
    if not found:
        raise NoTokensError(f"segment {name!r} has no words" if name else "the text has no words")
    return found


def _spans_of(name: str, prompt: Prompt) -> list[tuple[int, int]]:
    spans = [(s.start, s.stop) for s in prompt.segments if s.name == name]
    if not spans:
        have = ", ".join(sorted({s.name for s in prompt.segments})) or "none"
        raise NoTokensError(f"no segment {name!r} (segments: {have})")
    return spans


def _overlaps(spans: NDArray[np.int64], encoded: Encoded) -> NDArray[np.bool_]:
    """(span, token): whether the characters of the token overlap the span."""
    if encoded.spans is None:
        raise NoTokensError("this tokenizer does not say which characters its tokens cover")
    begins, ends = np.array(encoded.spans, np.int64).reshape(-1, 2).T
    found: NDArray[np.bool_] = (begins < ends) & (begins < spans[:, 1:]) & (spans[:, :1] < ends)
    return found


def segment_tokens(
    device: torch.device,
    segments: Sequence[str],
    prompts: Sequence[Prompt],
    encoded: Sequence[Encoded],
) -> Tensor:
    """Which tokens belong to which segment.

    Returns
    -------
    Tensor
        float32, (prompt, token, segment): 1 or 0; NaN in prompts that have no token of the segment.
    """
    found = np.zeros((len(prompts), max(map(len, encoded)), len(segments)), np.float32)
    for row, (prompt, tokens) in enumerate(zip(prompts, encoded, strict=True)):
        for column, name in enumerate(segments):
            try:
                found[row, tokens_at(Position("segment", name), prompt, tokens), column] = 1
            except NoTokensError:
                found[row, :, column] = np.nan
    return torch.from_numpy(found).to(device)


class Picker:
    """Takes the rows of one position out of tensors of one batch.

    Parameters
    ----------
    position : Position
    chosen : sequence of ndarray
        `tokens_at` of each prompt of the batch; right padding leaves the indices as they are.
    device : torch.device
    sizes : sequence of ndarray, optional
        `row_sizes` of each prompt; needed for words.
    """

    def __init__(
        self,
        position: Position,
        chosen: Sequence[NDArray[np.int64]],
        device: torch.device,
        sizes: Sequence[NDArray[np.int64]] | None = None,
    ) -> None:
        self._kind = position.kind
        self._chosen = [torch.from_numpy(c).to(device) for c in chosen]
        self._rows = torch.repeat_interleave(
            torch.arange(len(chosen), device=device), torch.tensor([len(c) for c in chosen], device=device)
        )
        self._columns = torch.cat(self._chosen)
        if position.kind == "words":
            assert sizes is not None, "words need the sizes of their rows"
            self._sizes = torch.from_numpy(np.concatenate(sizes)).to(device)

    @property
    def prompts(self) -> Tensor:
        """The prompt of each row, as its place in the batch."""
        if self._kind == "words":
            return self._rows[self._sizes.cumsum(0) - self._sizes]
        return torch.arange(len(self._chosen), device=self._rows.device) if self._kind in AVERAGES else self._rows

    def __call__(self, x: Tensor) -> Tensor:
        """(prompt, token, *unit) -> (row, *unit), a copy."""
        if self._kind == "words":
            return self._word_means(x)
        if self._kind not in AVERAGES:
            return x[self._rows.to(x.device), self._columns.to(x.device)]
        # Prompt by prompt and in float64: the mean then depends neither on the padding nor on the batch.
        rows = [self._mean(x[i, tokens.to(x.device)].double()) for i, tokens in enumerate(self._chosen)]
        return torch.stack(rows).to(x.dtype)

    def _mean(self, rows: Tensor) -> Tensor:
        if self._kind != "weighted-mean":
            return rows.mean(0)
        # Muennighoff (2022), SGPT, arXiv:2202.08904, section 3.1.2: w_i = i / (1 + ... + n). A causal model has read
        # more of the text at later tokens.
        weights = torch.arange(1, len(rows) + 1, dtype=rows.dtype, device=rows.device)
        return (rows * (weights / weights.sum()).reshape(-1, *[1] * (rows.ndim - 1))).sum(0)

    def _word_means(self, x: Tensor) -> Tensor:
        rows, columns, sizes = self._rows.to(x.device), self._columns.to(x.device), self._sizes.to(x.device)
        first = sizes.cumsum(0) - sizes
        total = x[rows[first], columns[first]].double()
        # Token by token of all words at once, always in the same order: the same bits in every batch.
        for nth in range(1, int(sizes.max())):
            longer = torch.nonzero(sizes > nth).squeeze(1)
            at = first[longer] + nth
            total[longer] += x[rows[at], columns[at]].double()
        return (total / sizes.reshape(-1, *[1] * (total.ndim - 1))).to(x.dtype)


def picker(position: Position, prompts: Sequence[Prompt], encoded: Sequence[Encoded], device: torch.device) -> Picker:
    """The picker of a position in a batch of these prompts."""
    pairs = list(zip(prompts, encoded, strict=True))
    return Picker(
        position,
        [tokens_at(position, p, e) for p, e in pairs],
        device,
        [row_sizes(position, p, e) for p, e in pairs] if position.kind == "words" else None,
    )
