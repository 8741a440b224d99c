"""A plan, block by block, whichever backend runs the forward passes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import AnswerSheet, labels_of
from babelscope.hooks.capture import ForwardPass, Key, run_batch, to_numpy
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.planning import units
from babelscope.hooks.positions import NoTokensError, tokens_at
from babelscope.hooks.tokens import Encoded, batches, decoder_tokens, encode
from babelscope.schema import Block, CapturePlan, Position, Prompt, PromptSet, Rows


@dataclass(frozen=True, slots=True)
class _Item:
    """One prompt of a block that can be captured, and the tokens that each stack reads."""

    index: int
    prompt: Prompt
    encoded: Encoded
    decoder: Encoded | None

    def tokens(self, stack: str) -> Encoded:
        return self.decoder if stack == "dec" and self.decoder is not None else self.encoded


def run_plan(
    plan: CapturePlan, loaded: LoadedModel, prompts: PromptSet, pending: Sequence[tuple[str, int]]
) -> Iterator[Block]:
    """Capture the pending blocks, in the order given, with length-sorted batches that never cross a block.

    Parameters
    ----------
    pending : sequence of (language, block index)

    Yields
    ------
    Block
        The first one carries the errors of the laws, observed on its first batch.

    Raises
    ------
    BabelScopeError
        If the plan belongs to another model or other prompts, if a law fails, or if values overflow.
    """
    if replace(plan.model, source="") != replace(loaded.ref, source=""):
        raise BabelScopeError("the plan was made for another model", "make the plan again, with make_plan")
    if plan.prompts_sha256 != prompts.digest():
        raise BabelScopeError("the plan was made for another set of prompts", "make the plan again, with make_plan")
    table = {(p.item, p.language): p for p in prompts.prompts}
    n_options = max(len(labels_of(p)) for p in prompts.prompts)
    forward: ForwardPass = plugins.load("backend", plan.backend).open(loaded, plan)
    laws = True
    for language, index in pending:
        found = {i: table.get((plan.items[i], language)) for i in plan.block(index)}
        items, failed = _usable(plan, loaded, language, found)
        yield _capture(forward, plan, loaded, language, index, items, failed, n_options, laws=laws)
        laws = laws and not items


def _usable(
    plan: CapturePlan, loaded: LoadedModel, language: str, found: dict[int, Prompt | None]
) -> tuple[list[_Item], dict[int, str]]:
    """Items in which every position picks something, and the reasons for the others."""
    present = {i: p for i, p in found.items() if p is not None}
    failed = {i: f"not among the prompts in {language!r}" for i in found if i not in present}
    encoded = encode(loaded.tokenizer, [p.text for p in present.values()])
    decoder = decoder_tokens(loaded, plan.decoder, list(present.values()), encoded)
    items = []
    for row, (i, prompt) in enumerate(present.items()):
        item = _Item(i, prompt, encoded[row], decoder[row] if decoder else None)
        try:
            for stack in {site.row_stack for site in plan.sites}:
                for position in (*plan.positions, Position("last")):
                    tokens_at(position, prompt, item.tokens(stack))
        except NoTokensError as reason:
            failed[i] = str(reason)
        else:
            items.append(item)
    return items, failed


def _capture(
    forward: ForwardPass,
    plan: CapturePlan,
    loaded: LoadedModel,
    language: str,
    index: int,
    items: Sequence[_Item],
    failed: dict[int, str],
    n_options: int,
    *,
    laws: bool,
) -> Block:
    splits = _all_splits(plan, items)
    values = _empty(plan, loaded, splits)
    sheet = AnswerSheet(loaded.tokenizer, [x.prompt for x in items], n_options) if plan.answers else None
    law_errors: dict[str, float] = {}
    for number, batch in enumerate(batches([len(x.encoded) for x in items], plan.token_budget)):
        rows = run_batch(
            forward,
            loaded,
            plan,
            [items[i].prompt for i in batch],
            [items[i].encoded for i in batch],
            logits=sheet is not None,
            laws=laws and number == 0,
        )
        law_errors.update(rows.passed.law_errors)
        if sheet is not None and rows.passed.logits is not None:
            sheet.fill(batch, rows.passed.logits)
        for key, found in rows.values.items():
            split = splits[key]
            target = np.concatenate([np.arange(split[i], split[i + 1]) for i in batch])
            values[key][:, torch.from_numpy(target)] = found
    last = loaded.tokenizer.convert_ids_to_tokens([x.encoded.ids[-1] for x in items])
    return Block(
        language=language,
        index=index,
        items=np.array([x.index for x in items], dtype=np.int64),
        rows={key: Rows(to_numpy(v), splits[key] if key[1].ragged else None) for key, v in values.items()},
        n_tokens=np.array([len(x.encoded) for x in items], dtype=np.int64),
        last_token=tuple(last),
        answers=sheet.done() if sheet else None,
        failed=failed,
        law_errors=law_errors,
    )


def _all_splits(plan: CapturePlan, items: Sequence[_Item]) -> "dict[Key, np.ndarray[tuple[int], np.dtype[np.int64]]]":
    """First row of each item, and the number of rows, for each site name and position."""
    found = {}
    for site in plan.sites:
        for position in plan.positions:
            counts = [len(x.tokens(site.row_stack)) if position.ragged else 1 for x in items]
            found[site.name, position] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return found


def _empty(
    plan: CapturePlan, loaded: LoadedModel, splits: "dict[Key, np.ndarray[tuple[int], np.dtype[np.int64]]]"
) -> dict[Key, torch.Tensor]:
    shapes, layers = units(plan, loaded), plan.site_layers()
    return {
        (name, position): torch.empty(len(layers[name]), int(split[-1]), *shapes[name], dtype=DTYPES[plan.dtype])
        for (name, position), split in splits.items()
    }
