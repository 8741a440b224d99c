"""A plan, block by block, whichever backend runs the forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import AnswerSheet, labels_of, option_texts, untold
from babelscope.hooks.capture import BatchRows, ForwardPass, Key, run_batch
from babelscope.hooks.continuing import follow
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.positions import NoTokensError, tokens_at
from babelscope.hooks.prefixes import Group
from babelscope.hooks.rows import Item, Splits, all_splits, empty, rows_of
from babelscope.hooks.tokens import batches, decoder_tokens, encode_prompts
from babelscope.schema import Block, CapturePlan, Position, Prompt, PromptSet


def run_plan(
    plan: CapturePlan,
    loaded: LoadedModel,
    prompts: PromptSet,
    pending: Sequence[tuple[str, int]],
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[Block]:
    """Capture the pending blocks, in the order given, with length-sorted batches that never cross a block.

    The backend is opened by the call itself, so that what it refuses is told before the first block is asked for.

    Parameters
    ----------
    pending : sequence of (language, block index)
    note : callable, optional
        Told what a user should know: levers that are off, labels that cannot be told apart, batches that were halved,
        values that are no numbers.

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
    for text in getattr(forward, "notes", ()):
        note(text)
    if plan.answers and (text := untold(loaded.tokenizer, prompts.prompts)):
        note(text)
    n_options = max(max(len(labels_of(p)), len(p.options)) for p in prompts.prompts) if plan.answers else 0
    return _blocks(_Run(forward, plan, loaded, n_options, note), prompts, pending)


def _blocks(run: "_Run", prompts: PromptSet, pending: Sequence[tuple[str, int]]) -> Iterator[Block]:
    table = {(p.item, p.language): p for p in prompts.prompts}
    laws = True
    for language, index in pending:
        found = {i: table.get((run.plan.items[i], language)) for i in run.plan.block(index)}
        items, failed = _usable(run.plan, run.loaded, language, found)
        yield run.block(language, index, items, failed, laws=laws)
        laws = laws and not items


def _usable(
    plan: CapturePlan, loaded: LoadedModel, language: str, found: dict[int, Prompt | None]
) -> tuple[list[Item], dict[int, str]]:
    """Items in which every position picks something, and the reasons for the others."""
    present = {i: p for i, p in found.items() if p is not None}
    failed = {i: f"not among the prompts in {language!r}" for i in found if i not in present}
    encoded = encode_prompts(loaded.tokenizer, list(present.values()))
    decoder = decoder_tokens(loaded, plan.decoder, list(present.values()), encoded)
    items = []
    for row, (i, prompt) in enumerate(present.items()):
        item = Item(i, prompt, encoded[row], decoder[row] if decoder else None)
        try:
            for stack in {site.row_stack for site in plan.sites}:
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

    def block(self, language: str, index: int, items: Sequence[Item], failed: dict[int, str], *, laws: bool) -> Block:
        """Capture the items of one block."""
        splits = all_splits(self.plan, items)
        values = empty(self.plan, self.loaded, splits)
        sheet = None
        if self.plan.answered:
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
        if sheet is not None:
            _follow(sheet, self.plan, self.loaded, items)
        self._tell_not_finite(language, values, splits, items)
        last = self.loaded.tokenizer.convert_ids_to_tokens([x.encoded.ids[-1] for x in items])
        return Block(
            language=language,
            index=index,
            items=np.array([x.index for x in items], dtype=np.int64),
            rows=rows_of(values, splits, items),
            n_tokens=np.array([len(x.encoded) for x in items], dtype=np.int64),
            last_token=tuple(last),
            answers=sheet.done() if sheet else None,
            failed=failed,
            law_errors=law_errors,
        )

    def _groups(self, items: Sequence[Item]) -> Sequence[Group]:
        # A backend that has no opinion gets batches by length.
        split = getattr(self.forward, "batches", None)
        if split is not None:
            groups: Sequence[Group] = split([x.encoded.ids for x in items])
            return groups
        found = batches([len(x.encoded) for x in items], self.plan.token_budget)
        return [Group(tuple(rows)) for rows in found]

    def _rows(self, items: Sequence[Item], group: Group, *, laws: bool) -> Iterator[tuple[tuple[int, ...], BatchRows]]:
        """Run a group as one batch, or in halves where the memory does not suffice."""
        try:
            found = run_batch(
                self.forward,
                self.loaded,
                self.plan,
                [items[i].prompt for i in group.rows],
                [items[i].encoded for i in group.rows],
                shared=group.shared,
                logits=bool(self.plan.answers),
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
        self, language: str, values: Mapping[Key, torch.Tensor], splits: Mapping[Key, Splits], items: Sequence[Item]
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


def _follow(sheet: AnswerSheet, plan: CapturePlan, loaded: LoadedModel, items: Sequence[Item]) -> None:
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
