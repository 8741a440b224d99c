"""Prompts as one batch, with what positions need to find their tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from babelscope.errors import BabelScopeError, unknown_name
from babelscope.hooks.languages import token_languages
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.positions import NoTokensError, segment_tokens, tokens_at
from babelscope.hooks.tokens import Batch, Encoded, decoder_tokens, encode_prompts, make_batch
from babelscope.schema import DECODER_POLICIES, Position, Prompt


@dataclass(frozen=True, slots=True, eq=False)
class PromptBatch:
    """Some prompts, right-padded.

    Parameters
    ----------
    prompts : tuple of Prompt
    encoded : tuple of Encoded
    decoder : tuple of Encoded or None
        What the decoder reads, in encoder-decoders.
    tokens : Batch
        What the model reads.
    """

    prompts: tuple[Prompt, ...]
    encoded: tuple[Encoded, ...]
    decoder: tuple[Encoded, ...] | None
    tokens: Batch

    def tokens_at(self, position: Position, stack: str) -> list[NDArray[np.int64]]:
        """Tokens that a position picks in each prompt, each token once.

        Raises
        ------
        BabelScopeError
            Naming the first prompt in which it picks none.
        """
        read = self.decoder if stack == "dec" and self.decoder is not None else self.encoded
        found = []
        for prompt, encoded in zip(self.prompts, read, strict=True):
            try:
                found.append(np.unique(tokens_at(position, prompt, encoded)))
            except NoTokensError as reason:
                raise BabelScopeError(
                    f"position {position}: item {prompt.item!r} in {prompt.language!r}: {reason}",
                    "leave out these prompts, or name another position",
                ) from None
        return found

    def with_segments(self) -> Batch:
        """The tokens, with those of the segments of all prompts marked in every stack."""
        names = sorted({segment.name for prompt in self.prompts for segment in prompt.segments})
        stacks = {"": self.encoded, "enc": self.encoded} | ({"dec": self.decoder} if self.decoder else {})
        device = self.tokens.ids.device
        segments = {tag: segment_tokens(device, names, self.prompts, read) for tag, read in stacks.items()}
        return replace(self.tokens, segments=segments)

    def where(self, position: Position, stack: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Rows and columns of these tokens in the batch, and how many each prompt has."""
        chosen = self.tokens_at(position, stack)
        counts = tuple(len(tokens) for tokens in chosen)
        rows = np.repeat(np.arange(len(chosen)), counts)
        return torch.from_numpy(rows), torch.from_numpy(np.concatenate(chosen)), counts


def read_prompts(loaded: LoadedModel, prompts: Sequence[Prompt], decoder: str = "start") -> PromptBatch:
    """Prompts as one batch; cut long lists yourself, by what the device holds.

    Parameters
    ----------
    decoder : str
        What the decoder of an encoder-decoder reads, a key of `DECODER_POLICIES`; other models ignore it.

    Raises
    ------
    BabelScopeError
        If there is no prompt, or no such policy.
    """
    if not prompts:
        raise BabelScopeError("there is no prompt to read", "give one or more")
    if decoder not in DECODER_POLICIES:
        raise unknown_name("decoder policy", decoder, DECODER_POLICIES)
    encoded = encode_prompts(loaded.tokenizer, prompts)
    beside = decoder_tokens(loaded, decoder if loaded.ref.n_encoder_layers else "", prompts, encoded)
    languages = token_languages(loaded.model, prompts, encoded, loaded.device)
    tokens = replace(make_batch(loaded, encoded, beside), languages=languages)
    return PromptBatch(tuple(prompts), tuple(encoded), None if beside is None else tuple(beside), tokens)
