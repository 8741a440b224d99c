"""A plan, block by block, whichever backend runs the forward passes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.hooks.answers import AnswerSheet, labels_of, option_texts, untold
from babelscope.hooks.capture import BatchRows, ForwardPass, Key, run_batch
from babelscope.hooks.continuing import Cached, follow
from babelscope.hooks.continuing_tried import tried
from babelscope.hooks.memory import enough_memory, in_halves
from babelscope.hooks.models import LoadedModel
from babelscope.hooks.prefixes import Group
from babelscope.hooks.rows import Item, Splits, all_splits, empty, rows_of, usable
from babelscope.hooks.tokens import batches
from babelscope.schema import Block, CapturePlan, Prompt, PromptSet, Site

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
    """Capture the pending blocks, in the order given, with length-sorted batches that never leave a pool of the plan.

    The batches of a pool are those of all of its blocks, whichever of them are pending: a resumed run gives the bits
    of an uninterrupted one.

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
    pools = {block: pool for pool in run.plan.pools for block in pool}
    laws, done = True, set[tuple[str, int]]()
    for first in pending:
        if first in done:
            continue
        parts = [_part(run, table, *block) for block in pools[first]]
        wanted = [part for block in pending for part in parts if block == (part.language, part.index)]
        n = sum(len(part.items) for part in wanted)
        several = f"{len(wanted)} blocks with {n} prompts, beginning" if len(wanted) > 1 else f"a block of {n} prompts"
        with enough_memory(f"{several} in {wanted[0].language!r}", FEWER):
            run.fill(parts, wanted, laws=laws)
        for part in wanted:
            yield part.block(run)
        done.update((part.language, part.index) for part in wanted)
        laws = laws and not n


@dataclass(slots=True)
class _Part:
    """One block of a pool while it is filled; `values` and `sheet` stay empty where it is committed already."""

    language: str
    index: int
    items: Sequence[Item]
    failed: dict[int, str]
    splits: dict[Key, Splits] = field(default_factory=dict)
    values: dict[Key, torch.Tensor] = field(default_factory=dict)
    sheet: AnswerSheet | None = None
    law_errors: dict[str, float] = field(default_factory=dict)

    def make_room(self, run: "_Run") -> None:
        self.splits = all_splits(run.plan, self.items)
        self.values = empty(run.plan, run.loaded, self.splits)
        if run.plan.answered:
            prompts = [x.prompt for x in self.items]
            self.sheet = AnswerSheet(run.loaded.tokenizer, prompts, run.n_options, spellings=run.plan.spellings)

    def take(self, found: BatchRows, at: Sequence[int], rows: Sequence[int], counts: Mapping[Key, Splits]) -> None:
        """Keep what a batch gave: its prompts `at` are the items `rows`; `counts` as `all_splits`, of the batch."""
        if self.sheet is not None and found.passed.logits is not None:
            self.sheet.fill(rows, found.passed.logits[list(at)])
        for key, x in found.values.items():
            mine = x if len(at) == len(counts[key]) - 1 else x[:, _spans(counts[key], at)]
            self.values[key][:, _spans(self.splits[key], rows)] = mine

    def block(self, run: "_Run") -> Block:
        if self.sheet is not None and run.cached is not None:
            _follow(self.sheet, run, run.cached, self.items)
        last = run.loaded.tokenizer.convert_ids_to_tokens([x.encoded.ids[-1] for x in self.items])
        return Block(
            language=self.language,
            index=self.index,
            items=np.array([x.index for x in self.items], dtype=np.int64),
            rows=rows_of(self.values, self.splits, self.items),
            n_tokens=np.array([len(x.encoded) for x in self.items], dtype=np.int64),
            last_token=tuple(last),
            answers=self.sheet.done() if self.sheet else None,
            failed=self.failed,
            law_errors=self.law_errors,
        )


def _spans(splits: Splits, items: Sequence[int]) -> torch.Tensor:
    """Rows of some items, one item after the other."""
    return torch.from_numpy(np.concatenate([np.arange(splits[i], splits[i + 1]) for i in items]))


def _part(run: "_Run", table: Mapping[tuple[str, str], Prompt], language: str, index: int) -> _Part:
    wanted = {i: table.get((run.plan.items[i], language)) for i in run.plan.block(index)}
    absent = {i: f"not among the prompts in {language!r}" for i, p in wanted.items() if p is None}
    items, failed = usable(run.plan, run.loaded, {i: p for i, p in wanted.items() if p is not None})
    return _Part(language, index, items, absent | failed)


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

    def fill(self, parts: Sequence[_Part], wanted: Sequence[_Part], *, laws: bool) -> None:
        """Run the batches of a pool and fill those of its blocks that are wanted."""
        for part in wanted:
            part.make_room(self)
        owners = [(part, i) for part in parts for i in range(len(part.items))]
        items = [part.items[i] for part, i in owners]
        not_finite: dict[Site, Item] = {}
        for group in self._groups(items):
            if not any(owners[i][0].values for i in group.rows):
                continue
            for rows, found in self._rows(items, group, laws=laws):
                laws = False
                wanted[0].law_errors.update(found.passed.law_errors)
                for site, row in found.not_finite.items():
                    not_finite.setdefault(site, items[rows[row]])
                counts = all_splits(self.plan, [items[i] for i in rows])
                for part in wanted:
                    at = [n for n, i in enumerate(rows) if owners[i][0] is part]
                    if at:
                        part.take(found, at, [owners[rows[n]][1] for n in at], counts)
        self._tell_not_finite(not_finite)

    def _groups(self, items: Sequence[Item]) -> Sequence[Group]:
        # A backend that has no opinion gets batches by length.
        split = getattr(self.forward, "batches", None)
        if split is not None:
            groups: Sequence[Group] = split([x.encoded.ids for x in items])
            return groups
        found = batches([len(x.encoded) for x in items], self.plan.token_budget, self.plan.pass_cost)
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
