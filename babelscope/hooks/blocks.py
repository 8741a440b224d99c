"""A plan, block by block, whichever backend runs the forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import AnswerSheet, labels_of
from babelscope.hooks.capture import BatchRows, ForwardPass, Key, run_batch, to_numpy
from babelscope.hooks.models import DTYPES, LoadedModel
from babelscope.hooks.planning import units
from babelscope.hooks.positions import NoTokensError, tokens_at
from babelscope.hooks.prefixes import Group
from babelscope.hooks.tokens import Encoded, batches, decoder_tokens, encode
from babelscope.schema import Block, CapturePlan, Position, Prompt, PromptSet, Rows

Splits: TypeAlias = NDArray[np.int64]


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
    plan: CapturePlan,
    loaded: LoadedModel,
    prompts: PromptSet,
    pending: Sequence[tuple[str, int]],
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Block]:
    """Capture the pending blocks, in the order given, with length-sorted batches that never cross a block.

    Parameters
    ----------
    pending : sequence of (language, block index)
    note : callable, optional
        Told what a user should know: levers that are off, batches that were halved, values that are no numbers.

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
    for text in getattr(forward, "notes", ()):
        note(text)
    run = _Run(forward, plan, loaded, n_options, note)
    laws = True
    for language, index in pending:
        found = {i: table.get((plan.items[i], language)) for i in plan.block(index)}
        items, failed = _usable(plan, loaded, language, found)
        yield run.block(language, index, items, failed, laws=laws)
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
            for stack in {site.stack for site in plan.sites}:
                for position in (*plan.positions, Position("last")):
                    tokens_at(position, prompt, item.tokens(stack))
        except NoTokensError as reason:
            failed[i] = str(reason)
        else:
            items.append(item)
    return items, failed


@dataclass(slots=True)
class _Run:
    """What all blocks of a run have in common."""

    forward: ForwardPass
    plan: CapturePlan
    loaded: LoadedModel
    n_options: int
    note: Callable[[str], None]
    told_not_finite: bool = False

    def block(self, language: str, index: int, items: Sequence[_Item], failed: dict[int, str], *, laws: bool) -> Block:
        """Capture the items of one block."""
        splits = _all_splits(self.plan, items)
        values = _empty(self.plan, self.loaded, splits)
        sheet = None
        if self.plan.answers:
            sheet = AnswerSheet(self.loaded.tokenizer, [x.prompt for x in items], self.n_options)
        law_errors: dict[str, float] = {}
        for number, group in enumerate(self._groups(items)):
            for rows, found in self._rows(items, group, laws=laws and number == 0):
                law_errors.update(found.passed.law_errors)
                if sheet is not None and found.passed.logits is not None:
                    sheet.fill(rows, found.passed.logits)
                for key, x in found.values.items():
                    split = splits[key]
                    target = np.concatenate([np.arange(split[i], split[i + 1]) for i in rows])
                    values[key][:, torch.from_numpy(target)] = x
        self._tell_not_finite(language, values, splits, items)
        last = self.loaded.tokenizer.convert_ids_to_tokens([x.encoded.ids[-1] for x in items])
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

    def _groups(self, items: Sequence[_Item]) -> Sequence[Group]:
        # A backend that has no opinion gets batches by length.
        split = getattr(self.forward, "batches", None)
        if split is not None:
            groups: Sequence[Group] = split([x.encoded.ids for x in items])
            return groups
        found = batches([len(x.encoded) for x in items], self.plan.token_budget)
        return [Group(tuple(rows)) for rows in found]

    def _rows(self, items: Sequence[_Item], group: Group, *, laws: bool) -> Iterator[tuple[tuple[int, ...], BatchRows]]:
        """Run a group as one batch, or in halves where the memory does not suffice."""
        try:
            found = run_batch(
                self.forward,
                self.loaded,
                self.plan,
                [items[i].prompt for i in group.rows],
                [items[i].encoded for i in group.rows],
                shared=group.shared,
                logits=self.plan.answers,
                laws=laws,
            )
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            found = None
        # Outside of `except`, which would hold on to the tensors of the failed pass.
        if found is not None:
            yield group.rows, found
            return
        half = len(group.rows) // 2
        if not half:
            raise BabelScopeError(
                f"the memory of {self.loaded.device} does not suffice for one prompt of "
                f"{len(items[group.rows[0]].encoded):,} tokens",
                "name fewer sites or positions, a smaller --dtype, or a device with more memory; "
                "finished blocks are kept, --resume continues behind them",
            )
        self.note(f"out of memory on {self.loaded.device}: a batch of {len(group.rows)} prompts is run in two halves")
        if self.loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        yield from self._rows(items, replace(group, rows=group.rows[:half]), laws=laws)
        yield from self._rows(items, replace(group, rows=group.rows[half:]), laws=False)

    def _tell_not_finite(
        self, language: str, values: Mapping[Key, torch.Tensor], splits: Mapping[Key, Splits], items: Sequence[_Item]
    ) -> None:
        """Name the first site and item with values that are no numbers, once in a run; the store counts them all."""
        if self.told_not_finite:
            return
        for (name, position), x in values.items():
            # A sum is finite if all its terms are, and takes one pass without a mask of the size of the rows.
            if x.numel() == 0 or bool(x.sum(dtype=torch.float64).isfinite()):
                continue
            where = (~x.isfinite()).flatten(2).any(2).nonzero()
            if not len(where):
                continue
            layer, row = where[0].tolist()
            item = int(np.searchsorted(splits[name, position], row, side="right")) - 1
            site = f"{name}@{self.plan.site_layers()[name][layer]}"
            self.told_not_finite = True
            self.note(
                f"{site} of item {self.plan.items[items[item].index]!r} in {language!r} holds values that are "
                "not finite; they are kept and counted in the store (told once)"
            )
            return


def _out_of_memory(error: Exception) -> bool:
    # On a CPU torch raises a plain RuntimeError ("DefaultCPUAllocator: not enough memory").
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error)


def _all_splits(plan: CapturePlan, items: Sequence[_Item]) -> dict[Key, Splits]:
    """First row of each item, and the number of rows, for each site name and position."""
    found = {}
    for site in plan.sites:
        for position in plan.positions:
            counts = [len(x.tokens(site.stack)) if position.ragged else 1 for x in items]
            found[site.name, position] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return found


def _empty(plan: CapturePlan, loaded: LoadedModel, splits: dict[Key, Splits]) -> dict[Key, torch.Tensor]:
    shapes, layers = units(plan, loaded), plan.site_layers()
    return {
        (name, position): torch.empty(len(layers[name]), int(split[-1]), *shapes[name], dtype=DTYPES[plan.dtype])
        for (name, position), split in splits.items()
    }
