"""Who may look at whom: masks built on the device from the language of each token."""

from typing import NamedTuple

import torch
from torch import Tensor

PADDING = -1


class Masks(NamedTuple):
    """Where each query may look; True is allowed. Padding and the future are masked elsewhere.

    Parameters
    ----------
    own : Tensor of bool
        M1, (prompt, 1, query, key): for the query of the model.
    cross : Tensor of bool
        M2, likewise: for the cross-lingual query.
    bridge : Tensor of int64
        (prompt,): the first real token, which stands in both masks, or -1 where there is none among the keys, as in
        prompts of one language.
    """

    own: Tensor
    cross: Tensor
    bridge: Tensor

    def of_last(self, n_queries: int, n_keys: int) -> "Masks":
        """The rows that a pass behind a cache computes, and the columns that the cache of a window still holds."""
        cut = self.own.shape[-1] - n_keys
        own, cross = (x[:, :, -n_queries:, cut:] for x in (self.own, self.cross))
        return Masks(own, cross, (self.bridge - cut).clamp_min(-1))


def language_masks(
    ids: Tensor, *, keep_cross: float = 0.0, keep_same: float = 0.0, generator: torch.Generator | None = None
) -> Masks:
    """The masks of arXiv:2310.15258, section 4, with the keep probabilities named for what they do.

    In the authors' code the two are called alpha, their documentation swaps them, and P_mask is 1 - alpha.

    Parameters
    ----------
    ids : Tensor of int
        (prompt, token): the language (or segment) of each token, `PADDING` where there is none. Two tokens belong
        together where their ids are equal. A prompt with one id is monolingual: its model query sees everything, its
        cross-lingual query nothing, so that attention is the ordinary one.
    keep_cross : float
        With this probability the model query may look at a token of another language (structured attention
        dropout drops the others). Every pair of tokens is drawn by itself.
    keep_same : float
        With this probability the cross-lingual query may look at a token of the same language.
    generator : torch.Generator, optional
        Of the draws, on the device of the ids.
    """
    real = ids != PADDING
    same = ids[:, :, None] == ids[:, None, :]
    first = real.int().argmax(1)
    at_bridge = torch.zeros_like(real).scatter_(1, first[:, None], torch.ones_like(first[:, None], dtype=torch.bool))
    # Padding sees the bridge alone: a row without any key has no softmax.
    bridged = at_bridge[:, :, None] | at_bridge[:, None, :]
    own = same | bridged | _kept(same, keep_cross, generator)
    cross = ~same | bridged | _kept(same, keep_same, generator)
    languages = torch.where(real, ids, ids.gather(1, first[:, None]))
    mono = (languages == languages[:, :1]).all(1)
    own, cross = own | mono[:, None, None], cross & ~mono[:, None, None]
    return Masks(own[:, None], cross[:, None], first.masked_fill(mono, -1))


def _kept(like: Tensor, probability: float, generator: torch.Generator | None) -> Tensor:
    if probability in (0.0, 1.0):  # no random number is drawn for what is certain
        return torch.full_like(like, bool(probability))
    return torch.rand(like.shape, device=like.device, generator=generator) < probability
