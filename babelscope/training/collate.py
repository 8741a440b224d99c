"""Examples of a batch as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from babelscope.qcross.masks import PADDING
from babelscope.training.examples import Example

IGNORED = -100  # a label that the loss of transformers leaves out


@dataclass(frozen=True, slots=True)
class Collate:
    """Examples of a batch, padded on the right.

    Parameters
    ----------
    pad : int
        Id of the padding.
    languages : bool
        Whether the model reads the language of each token.
    """

    pad: int
    languages: bool = False

    def __call__(self, rows: Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` (example, token); `labels` (example, token), or (example,) of classes.

        Also `language_ids` (example, token), where the model reads them.
        """
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.pad)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORED)
        spoken = torch.full_like(ids, PADDING)
        for i, row in enumerate(rows):
            n = len(row.ids)
            ids[i, :n] = torch.tensor(row.ids)
            mask[i, :n] = 1
            labels[i, row.start : n] = ids[i, row.start : n]
            spoken[i, : len(row.languages)] = torch.tensor(row.languages)
        if rows[0].label >= 0:
            labels = torch.tensor([row.label for row in rows])
        beside = {"language_ids": spoken} if self.languages else {}
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, **beside}


@dataclass(frozen=True, slots=True)
class Masking:
    """Masked language modeling: 15 % of the tokens of a batch are to be predicted.

    Of these 80 % become the mask, 10 % another token, 10 % stay (Devlin et al. 2019); special tokens never are. It is
    drawn where a step begins and not where batches are made: these are made ahead, so that a run which is resumed would
    draw other tokens.

    Parameters
    ----------
    mask : int
        Id of the mask.
    vocabulary : int
    special : frozenset of int
    """

    mask: int
    vocabulary: int
    special: frozenset[int]

    def __call__(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The batch with other tokens in `input_ids` and labels for those that are to be predicted."""
        ids = batch["input_ids"]
        special = torch.tensor(sorted(self.special), device=ids.device)
        chosen = batch["attention_mask"].bool() & ~torch.isin(ids, special)
        chosen &= torch.rand(ids.shape, device=ids.device) < 0.15
        fate = torch.rand(ids.shape, device=ids.device)
        others = torch.randint(self.vocabulary, ids.shape, device=ids.device)
        replaced = torch.where(fate < 0.8, torch.full_like(ids, self.mask), torch.where(fate < 0.9, others, ids))
        return {**batch, "input_ids": torch.where(chosen, replaced, ids), "labels": torch.where(chosen, ids, IGNORED)}
