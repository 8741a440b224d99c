"""The rows of one block: how many each site and position has, where each item's begin, and what is kept beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from babelscope.hooks.capture import Key, to_numpy
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.planning import units
from babelscope.hooks.positions import NoTokensError, coordinates_of, row_sizes, tokens_at
from babelscope.hooks.tokens import Encoded, decoder_tokens, encode_prompts
from babelscope.schema import CapturePlan, Position, Prompt, Rows, Site
from babelscope.schema.site import split_site

Splits: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a block that can be captured, and the tokens that each stack reads."""

    index: int
    prompt: Prompt
    encoded: Encoded
    decoder: Encoded | None

    def tokens(self, stack: str) -> Encoded:
        """What a stack reads of it."""
        return self.decoder if stack == "dec" and self.decoder is not None else self.encoded


def usable(plan: CapturePlan, loaded: LoadedModel, prompts: Mapping[int, Prompt]) -> tuple[list[Item], dict[int, str]]:
    """Items in which every position picks something in every stack that the plan reads, and why the others do not."""
    encoded = encode_prompts(loaded.tokenizer, list(prompts.values()))
    decoder = decoder_tokens(loaded, plan.decoder, list(prompts.values()), encoded)
    items, failed = [], dict[int, str]()
    for row, (i, prompt) in enumerate(prompts.items()):
        item = Item(i, prompt, encoded[row], decoder[row] if decoder else None)
        try:
            for stack in dict.fromkeys(site.row_stack for site in plan.sites):
                for position in (*plan.positions, Position("last")):
                    tokens_at(position, prompt, item.tokens(stack))
        except NoTokensError as reason:
            failed[i] = str(reason)
        else:
            items.append(item)
    return items, failed


def all_splits(plan: CapturePlan, items: Sequence[Item]) -> dict[Key, Splits]:
    """First row of each item, and the number of rows, for each site name and position."""
    found = {}
    for name, stack in {site.name: site.row_stack for site in plan.sites}.items():
        for position in plan.positions:
            counts = [len(row_sizes(position, x.prompt, x.tokens(stack))) if position.ragged else 1 for x in items]
            found[name, position] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return found


_NONE = {
    c: np.empty(0, np.uint8 if c == "special" else np.int32) for k in ("all", "words") for c in Position(k).coordinates
}


def rows_of(values: Mapping[Key, torch.Tensor], splits: Mapping[Key, Splits], items: Sequence[Item]) -> dict[Key, Rows]:
    """The filled tensors of a block as what the store keeps."""
    found = {}
    for (name, position), captured in values.items():
        tag, kind, _ = split_site(name)
        stack = Site(kind, None, tag).row_stack
        facts = [coordinates_of(position, x.prompt, x.tokens(stack)) for x in items]
        # Typed even where there are no items.
        beside = {c: np.concatenate([_NONE[c], *(f[c] for f in facts)]) for c in position.coordinates}
        found[name, position] = Rows(to_numpy(captured), splits[name, position] if position.ragged else None, beside)
    return found


def empty(plan: CapturePlan, loaded: LoadedModel, splits: Mapping[Key, Splits]) -> dict[Key, torch.Tensor]:
    """Tensors on the host for all rows of a block, (layer, row, *unit), to be filled batch by batch."""
    shapes, layers = units(plan, loaded), plan.site_layers()
    return {
        (name, position): torch.empty(len(layers[name]), int(split[-1]), *shapes[name], dtype=DTYPES[plan.row_dtype])
        for (name, position), split in splits.items()
    }
