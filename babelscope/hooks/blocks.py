"""A plan, block by block, whichever backend runs the forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import AnswerSheet, labels_of, option_texts, untold
from babelscope.hooks.capture import BatchRows, ForwardPass, run_batch
from babelscope.hooks.continuing import Cached, follow
from babelscope.hooks.continuing_tried import tried
from babelscope.hooks.memory import enough_memory, in_halves
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.prefixes import Group
from babelscope.hooks.rows import Item, all_splits, empty, rows_of, usable
from babelscope.hooks.tokens import batches
from babelscope.schema import Block, CapturePlan, PromptSet, Site

FEWER = (
    "name fewer sites or positions, or fewer items in a block (--block-items, which makes another store); "
    "finished blocks are kept, --resume continues behind them"
)


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
    cached: Cached | None = None
    with enough_memory("a few short prompts", "name a smaller --dtype, or a device with more memory"):
        forward: ForwardPass = plugins.load("backend", plan.backend).open(loaded, plan)
        texts = list(getattr(forward, "notes", ()))
        if plan.answers == "texts" or plan.continuation:
            cached, text = tried(loaded, scoring=plan.answers == "texts", writing=plan.continuation > 0)
            texts += [text]
    if plan.answers:
        texts += [untold(loaded.tokenizer, prompts.prompts)]
    for text in filter(None, texts):
        note(text)
    n_options = max(max(len(labels_of(p)), len(p.options)) for p in prompts.prompts) if plan.answers else 0
    return _blocks(_Run(forward, plan, loaded, n_options, note, cached), prompts, pending)


def _blocks(run: "_Run", prompts: PromptSet, pending: Sequence[tuple[str, int]]) -> Iterator[Block]:
    table = {(p.item, p.language): p for p in prompts.prompts}
    laws = True
    for language, index in pending:
        wanted = {i: table.get((run.plan.items[i], language)) for i in run.plan.block(index)}
        absent = {i: f"not among the prompts in {language!r}" for i, p in wanted.items() if p is None}
        items, failed = usable(run.plan, run.loaded, {i: p for i, p in wanted.items() if p is not None})
        with enough_memory(f"a block of {len(items)} prompts in {language!r}", FEWER):
            block = run.block(language, index, items, absent | failed, laws=laws)
        yield block
        laws = laws and not items


@dataclass(slots=True)
class _Run:
    """What all blocks of a run have in common."""

    forward: ForwardPass
    plan: CapturePlan
    loaded: LoadedModel
    n_options: int
    note: Callable[[str], None]
    cached: Cached | None = None  # None where nothing follows the prompts
    told: set[Site] = field(default_factory=set)  # to hold values that are not finite

    def block(self, language: str, index: int, items: Sequence[Item], failed: dict[int, str], *, laws: bool) -> Block:
        """Capture the items of one block."""
        splits = all_splits(self.plan, items)
        values = empty(self.plan, self.loaded, splits)
        sheet = None
        if self.plan.answered:
            sheet = AnswerSheet(self.loaded.tokenizer, [x.prompt for x in items], self.n_options)
        law_errors: dict[str, float] = {}
        not_finite: dict[Site, Item] = {}
        for number, group in enumerate(self._groups(items)):
            for rows, found in self._rows(items, group, laws=laws and number == 0):
                law_errors.update(found.passed.law_errors)
                for site, row in found.not_finite.items():
                    not_finite.setdefault(site, items[rows[row]])
                if sheet is not None and found.passed.logits is not None:
                    sheet.fill(rows, found.passed.logits)
                for key, x in found.values.items():
                    split = splits[key]
                    target = np.concatenate([np.arange(split[i], split[i + 1]) for i in rows])
                    values[key][:, torch.from_numpy(target)] = x
        if sheet is not None and self.cached is not None:
            _follow(sheet, self, self.cached, items)
        self._tell_not_finite(not_finite)
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

    def _rows(self, items: Sequence[Item], group: Group, *, laws: bool) -> Iterator[tuple[Sequence[int], BatchRows]]:
        """Run a group as one batch, or in halves where the memory does not suffice."""

        def run(rows: Sequence[int]) -> tuple[Sequence[int], BatchRows]:
            return rows, run_batch(
                self.forward,
                self.loaded,
                self.plan,
                [items[i].prompt for i in rows],
                [items[i].encoded for i in rows],
                shared=group.shared,
                logits=bool(self.plan.answers),
                laws=laws and rows[0] == group.rows[0],
            )

        def told(n: int) -> None:
            self.note(f"out of memory on {self.loaded.device}: a batch of {n} prompts is run in two halves")

        def refused(row: int) -> BabelScopeError:
            return BabelScopeError(
                f"the memory of {self.loaded.device} does not suffice for one prompt of "
                f"{len(items[row].encoded):,} tokens",
                "name fewer sites or positions, a smaller --dtype, or a device with more memory; "
                "finished blocks are kept, --resume continues behind them",
            )

        return in_halves(run, group.rows, told, refused)

    def _tell_not_finite(self, found: Mapping[Site, Item]) -> None:
        """Name the sites in which values are not finite, each once in a run; the store counts them all."""
        new: dict[tuple[str, int], list[Site]] = {}
        for site in sorted(found.keys() - self.told):
            new.setdefault((site.name, found[site].index), []).append(site)
        self.told.update(found)
        for (name, _), sites in new.items():
            layers = ",".join(str(site.layer) for site in sites if site.layer is not None)
            prompt, where = found[sites[0]].prompt, f"{name}@{layers}" if layers else name
            self.note(
                f"{where} of item {prompt.item!r} in {prompt.language!r} holds values that are not finite; "
                "they are kept and counted in the store (told once per site)"
            )


def _follow(sheet: AnswerSheet, run: "_Run", cached: Cached, items: Sequence[Item]) -> None:
    """What follows the prompts: one more pass, by the model itself in every backend."""
    plan, loaded = run.plan, run.loaded
    encoded, prompts = [x.encoded for x in items], [x.prompt for x in items]
    decoder = [x.decoder for x in items if x.decoder is not None] if plan.decoder else None
    spellings: list[list[list[tuple[int, ...]]]] = [[] for _ in items]
    if plan.answers == "texts":
        spellings = option_texts(loaded.tokenizer, prompts, encoded, behind=decoder is None)
    candidates = [[ids for spelled in options for ids in spelled] for options in spellings]
    found = follow(
        loaded, encoded, decoder, candidates, plan.continuation, plan.token_budget, cached=cached, note=run.note
    )
    if plan.answers == "texts":
        sheet.fill_texts(spellings, found.scores)
    if plan.continuation:
        sheet.fill_continuation(found.written)
