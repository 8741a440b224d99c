"""Which tokens a position means in a prompt, and how their rows are taken from a batch."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.hooks.tokens import Encoded
from babelscope.schema import Position, Prompt


class NoTokensError(LookupError):
    """A position that picks nothing in a prompt; the message is the reason the item is left out."""


def tokens_at(position: Position, prompt: Prompt, encoded: Encoded) -> NDArray[np.int64]:
    """Indices of the tokens that a position picks, in the prompt without padding.

    Special tokens (BOS, [CLS], [SEP]) are real tokens for `last`, `first`, `mean` and `all`; a segment holds
    the tokens whose characters overlap one of its spans, so a token that straddles a border is in both.

    Raises
    ------
    NoTokensError
        If there are none.
    """
    n = len(encoded)
    if n == 0:
        raise NoTokensError("the text has no tokens")
    if position.kind == "segment":
        return _segment(position.segment, prompt, encoded)
    return {"last": np.array([n - 1]), "first": np.array([0])}.get(position.kind, np.arange(n))


def _segment(name: str, prompt: Prompt, encoded: Encoded) -> NDArray[np.int64]:
    spans = [(s.start, s.stop) for s in prompt.segments if s.name == name]
    if not spans:
        have = ", ".join(sorted({s.name for s in prompt.segments})) or "none"
        raise NoTokensError(f"no segment {name!r} (segments: {have})")
    if encoded.spans is None:
        raise NoTokensError("this tokenizer does not say which characters its tokens cover")
    inside = [
        i for i, (a, b) in enumerate(encoded.spans) if a < b and any(a < stop and start < b for start, stop in spans)
    ]
    if not inside:
        raise NoTokensError(f"segment {name!r} covers no token")
    return np.array(inside, dtype=np.int64)


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
    """

    def __init__(self, position: Position, chosen: Sequence[NDArray[np.int64]], device: torch.device) -> None:
        self._averages = position.kind in ("mean", "segment")
        self._chosen = [torch.from_numpy(c).to(device) for c in chosen]
        self._rows = torch.repeat_interleave(
            torch.arange(len(chosen), device=device), torch.tensor([len(c) for c in chosen], device=device)
        )
        self._columns = torch.cat(self._chosen)

    @property
    def prompts(self) -> Tensor:
        """The prompt of each row, as its place in the batch."""
        return torch.arange(len(self._chosen), device=self._rows.device) if self._averages else self._rows

    def __call__(self, x: Tensor) -> Tensor:
        """(prompt, token, *unit) -> (row, *unit), a copy."""
        if not self._averages:
            return x[self._rows.to(x.device), self._columns.to(x.device)]
        # Prompt by prompt and in float64: the mean then depends neither on the padding nor on the batch.
        rows = [x[i, tokens.to(x.device)].double().mean(0) for i, tokens in enumerate(self._chosen)]
        return torch.stack(rows).to(x.dtype)
