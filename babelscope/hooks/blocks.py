"""A plan, block by block, whichever backend runs the forward passes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import AnswerSheet, labels_of, option_texts
from babelscope.hooks.capture import ForwardPass, Key, run_batch, to_numpy
from babelscope.hooks.continuing import follow
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.planning import units
from babelscope.hooks.positions import NoTokensError, coordinates_of, row_sizes, tokens_at
from babelscope.hooks.tokens import Encoded, batches, decoder_tokens, encode
from babelscope.schema import Block, CapturePlan, Position, Prompt, PromptSet, Rows, Site
from babelscope.schema.site import split_site


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

    The backend is opened by the call itself, so that what it refuses is told before the first block is asked for.

    Parameters
    ----------
    pending : sequence of (language, block index)

    Returns
    -------
    iterator of Block
        The first one carries the errors of the laws, observed on its first batch.

    Raises
    ------
    BabelScopeError
        If the plan belongs to another model or other prompts, or if the backend cannot give a site; while blocks
        are made, if a law fails or if values overflow.
    """
    if plan.model.nameless != loaded.ref.nameless:
        raise BabelScopeError("the plan was made for another model", "make the plan again, with make_plan")
    if plan.prompts_sha256 != prompts.digest():
        raise BabelScopeError("the plan was made for another set of prompts", "make the plan again, with make_plan")
    forward: ForwardPass = plugins.load("backend", plan.backend).open(loaded, plan)
    return _blocks(forward, plan, loaded, prompts, pending)


def _blocks(
    forward: ForwardPass,
    plan: CapturePlan,
    loaded: LoadedModel,
    prompts: PromptSet,
    pending: Sequence[tuple[str, int]],
) -> Iterator[Block]:
    table = {(p.item, p.language): p for p in prompts.prompts}
    n_options = max(max(len(labels_of(p)), len(p.options)) for p in prompts.prompts) if plan.answers else 0
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
    sheet = AnswerSheet(loaded.tokenizer, [x.prompt for x in items], n_options) if plan.answered else None
    law_errors: dict[str, float] = {}
    for number, batch in enumerate(batches([len(x.encoded) for x in items], plan.token_budget)):
        rows = run_batch(
            forward,
            loaded,
            plan,
            [items[i].prompt for i in batch],
            [items[i].encoded for i in batch],
            logits=bool(plan.answers),
            laws=laws and number == 0,
        )
        law_errors.update(rows.passed.law_errors)
        if sheet is not None and rows.passed.logits is not None:
            sheet.fill(batch, rows.passed.logits)
        for key, found in rows.values.items():
            split = splits[key]
            target = np.concatenate([np.arange(split[i], split[i + 1]) for i in batch])
            values[key][:, torch.from_numpy(target)] = found
    if sheet is not None:
        _follow(sheet, plan, loaded, items)
    last = loaded.tokenizer.convert_ids_to_tokens([x.encoded.ids[-1] for x in items])
    return Block(
        language=language,
        index=index,
        items=np.array([x.index for x in items], dtype=np.int64),
        rows=_rows(values, splits, items),
        n_tokens=np.array([len(x.encoded) for x in items], dtype=np.int64),
        last_token=tuple(last),
        answers=sheet.done() if sheet else None,
        failed=failed,
        law_errors=law_errors,
    )


def _follow(sheet: AnswerSheet, plan: CapturePlan, loaded: LoadedModel, items: Sequence[_Item]) -> None:
    """What follows the prompts, if the plan asks for it: one more pass, by the model itself in every backend."""
    if plan.answers != "texts" and not plan.continuation:
        return
    encoded, prompts = [x.encoded for x in items], [x.prompt for x in items]
    decoder = [x.decoder for x in items if x.decoder is not None] if plan.decoder else None
    spellings: list[list[list[tuple[int, ...]]]] = [[] for _ in items]
    if plan.answers == "texts":
        spellings = option_texts(loaded.tokenizer, prompts, encoded, behind=decoder is None)
    candidates = [[ids for spelled in options for ids in spelled] for options in spellings]
    found = follow(loaded, encoded, decoder, candidates, plan.continuation, plan.token_budget)
    if plan.answers == "texts":
        sheet.fill_texts(spellings, found.scores)
    if plan.continuation:
        sheet.fill_continuation(found.written)


def _all_splits(plan: CapturePlan, items: Sequence[_Item]) -> "dict[Key, np.ndarray[tuple[int], np.dtype[np.int64]]]":
    """First row of each item, and the number of rows, for each site name and position."""
    found = {}
    for name, stack in {site.name: site.row_stack for site in plan.sites}.items():
        for position in plan.positions:
            counts = [len(row_sizes(position, x.prompt, x.tokens(stack))) if position.ragged else 1 for x in items]
            found[name, position] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return found


def _rows(
    values: dict[Key, torch.Tensor],
    splits: "dict[Key, np.ndarray[tuple[int], np.dtype[np.int64]]]",
    items: Sequence[_Item],
) -> dict[Key, Rows]:
    found = {}
    for (name, position), captured in values.items():
        tag, kind, _ = split_site(name)
        stack = Site(kind, None, tag).row_stack
        facts = [coordinates_of(position, x.prompt, x.tokens(stack)) for x in items]
        # Typed even where there are no items.
        beside = {c: np.concatenate([_NONE[c], *(f[c] for f in facts)]) for c in position.coordinates}
        found[name, position] = Rows(to_numpy(captured), splits[name, position] if position.ragged else None, beside)
    return found


_NONE = {
    c: np.empty(0, np.uint8 if c == "special" else np.int32) for k in ("all", "words") for c in Position(k).coordinates
}


def _empty(
    plan: CapturePlan, loaded: LoadedModel, splits: "dict[Key, np.ndarray[tuple[int], np.dtype[np.int64]]]"
) -> dict[Key, torch.Tensor]:
    shapes, layers = units(plan, loaded), plan.site_layers()
    return {
        (name, position): torch.empty(len(layers[name]), int(split[-1]), *shapes[name], dtype=DTYPES[plan.dtype])
        for (name, position), split in splits.items()
    }
