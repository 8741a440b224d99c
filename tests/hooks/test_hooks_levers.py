"""Levers compute less and give the same rows; where they would not, they are off."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_zoo import DECODERS, FAMILIES
from torch import nn

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, blocks, load_model, make_plan, prefixes, run_plan, self_test, selftest
from babelscope.hooks.backends import torch as torch_backend
from babelscope.hooks.memory import out_of_memory
from babelscope.hooks.prefixes import Group, shared_batches
from babelscope.hooks.selftest import count_hooks
from babelscope.hooks.tokens import batches
from babelscope.schema import LEVERS, SITE_KINDS, Block, CapturePlan, Position, Prompt, PromptSet
from babelscope.schema.plan import PASS_COST

Load = Callable[[str], LoadedModel]
SITES = tuple(kind for kind in SITE_KINDS if kind in ("embed", "resid.pre", "resid.post", "attn.out", "attn.heads",
                                                     "mlp.act", "mlp.neurons", "mlp.out"))  # fmt: skip
LAST = Position("last")


@pytest.fixture(autouse=True)
def short_runs_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts of these tests are short; what is worth a pass of its own is a matter of speed alone."""
    monkeypatch.setattr(prefixes, "WORTH", 8)


@pytest.fixture(scope="session")
def questions() -> PromptSet:
    """Two languages; an instruction for all items, a rule for every four of them, and ends of different lengths."""
    found = []
    for language, instruction in (("en", "Answer the question. "), ("sw", "Jibu swali lifuatalo. ")):
        for i in range(12):
            rule = f"Rule number {i // 4}: "
            text = instruction + rule + "wxyz"[i % 4] * (1 + 3 * (i % 4)) + " Answer:"
            found.append(Prompt(f"item-{i}", language, text, (), ("A", "B"), ("x", "y"), gold=i % 2))
    return PromptSet("ruled", tuple(found))


def captured(loaded: LoadedModel, prompts: PromptSet, levers: Sequence[str] = tuple(LEVERS), **more: object):
    plan = make_plan(loaded, prompts, **{"sites": SITES, "positions": ("last",), "levers": levers, **more})
    return list(run_plan(plan, loaded, prompts, [(g, i) for g in plan.languages for i in range(plan.n_blocks)]))


def rows_of(blocks: Sequence[Block]) -> dict[str, np.ndarray]:
    sites = blocks[0].rows
    return {site: np.concatenate([b.rows[site, at].values for b in blocks], axis=1) for site, at in sites}


def error(found: Sequence[Block], expected: Sequence[Block]) -> float:
    """Largest difference in any site, relative to the largest value of that site."""
    a, b = rows_of(found), rows_of(expected)
    return max(float(np.abs(a[site] - b[site]).max() / np.abs(b[site]).max()) for site in b)


@pytest.mark.parametrize("answers", ["none", "labels"])
@pytest.mark.parametrize("name", DECODERS)
def test_every_lever_gives_the_rows_of_the_plain_pass(
    name: str, answers: str, load: Load, questions: PromptSet
) -> None:
    loaded = load(name)
    plain = captured(loaded, questions, (), answers=answers)
    for levers in (*((lever,) for lever in LEVERS), tuple(LEVERS)):
        found = captured(loaded, questions, levers, answers=answers)
        # float32 roundings of three layers, added up in another order: 2e-6 (a wrong row is off by 1e-1 and more).
        assert error(found, plain) < 2e-6
        if answers != "none":
            for a, b in zip(found, plain, strict=True):
                np.testing.assert_allclose(a.answers.scores, b.answers.scores, atol=2e-5)


@pytest.mark.parametrize("name", [*DECODERS, "mixtral"])
def test_every_causal_family_bears_every_lever(name: str, load: Load, questions: PromptSet) -> None:
    loaded = load(name)
    forward = opened(loaded, questions, sites=["resid.post"])
    assert set(forward.lever_errors) == set(LEVERS)
    assert forward.notes == ()
    assert max(forward.lever_errors.values()) < 2e-6
    separate = {"llama", "mistral", "qwen2", "qwen3", "gemma2", "opt", "granite", "mixtral"}
    query = forward.levers.block.query_projection
    named = [key for key, module in loaded.model.named_modules() if module is query]
    assert [key.rpartition(".")[2] for key in named] == (["q_proj"] if name in separate else [])


def opened(loaded: LoadedModel, prompts: PromptSet, **more: object) -> torch_backend.TorchPass:
    plan = make_plan(loaded, prompts, **{"sites": SITES, "positions": ("last",), "answers": "none", **more})
    return torch_backend.backend.open(loaded, plan)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.encoder])
def test_an_encoder_keeps_its_mask_and_says_so(name: str, load: Load, questions: PromptSet) -> None:
    loaded, told = load(name), []
    plan = make_plan(loaded, questions, sites=SITES, positions=["last"])
    found = list(run_plan(plan, loaded, questions, [("en", 0), ("sw", 0)], told.append))
    assert len(told) == 1
    assert "does without unmasked, prefixes" in told[0]
    assert error(found, captured(loaded, questions, ())) < 2e-6


def test_a_model_that_looks_at_other_tokens_is_not_pruned(
    folder_of: Callable[[str], Path], questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Planted: an MLP that mixes tokens, which no part of the anatomy tells. In a model of this test's own: nnsight
    # leaves a `forward` on the modules of a model it has wrapped, and what the class says is then no longer asked.
    loaded = load_model(folder_of("llama"), device="cpu")
    mlp = loaded.model.model.layers[-1].mlp
    plain_forward = type(mlp).forward

    def mixing(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return plain_forward(self, x if self is not mlp else x + x.cumsum(1))

    monkeypatch.setattr(type(mlp), "forward", mixing)
    forward = opened(loaded, questions, sites=["resid.post"])
    assert set(forward.lever_errors) == {"unmasked"}
    assert "without pruned, prefixes" in forward.notes[0]
    assert forward.levers.block is None


def test_a_cache_that_loses_a_token_is_not_used(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = prefixes._spread

    def losing(cache, n):
        found = spread(cache, n)
        for layer in found.layers:
            layer.values = layer.values.roll(1, -2)
        return found

    monkeypatch.setattr(prefixes, "_spread", losing)
    forward = opened(load("qwen3"), questions)
    assert not forward.levers.prefixes
    assert forward.levers.block is not None
    assert "without prefixes" in forward.notes[0]


def test_levers_leave_no_hook_and_no_attention_of_ours_behind(load: Load, questions: PromptSet) -> None:
    loaded = load("gemma2")
    hooks, own = count_hooks(loaded.model), loaded.model.config._attn_implementation
    captured(loaded, questions)
    assert count_hooks(loaded.model) == hooks
    assert loaded.model.config._attn_implementation == own


def test_the_self_test_records_the_errors_of_levers(load: Load, questions: PromptSet) -> None:
    loaded = load("llama")
    found = self_test(loaded, questions, make_plan(loaded, questions, sites=SITES, positions=["last"]))
    assert {f"lever {name}" for name in LEVERS} < set(found)


def test_levers_belong_to_the_identity_and_only_where_they_apply(load: Load, questions: PromptSet) -> None:
    def plan(name: str = "llama", **more: object) -> CapturePlan:
        loaded = load(name)
        return make_plan(loaded, questions, **{"sites": ["resid.post"], "positions": ["last"], **more})

    assert plan().levers == tuple(LEVERS)
    assert plan(levers=["pruned"]).fingerprint != plan().fingerprint
    assert plan(positions=["last", "mean"]).levers == ()
    assert plan("m2m100", sites=["enc.resid.post"]).levers == ()
    assert CapturePlan.from_json(plan().to_json()) == plan()
    with pytest.raises(BabelScopeError, match="no lever called 'prunned'"):
        plan(levers=["prunned"])


def test_a_block_comes_out_the_same_bits_again_behind_other_blocks(load: Load, questions: PromptSet) -> None:
    loaded = load("mistral")
    plan = make_plan(loaded, questions, sites=SITES, positions=["last"], block_items=5)
    whole = list(run_plan(plan, loaded, questions, [("en", 0), ("en", 1), ("en", 2), ("sw", 0)]))
    for block in whole:
        (again,) = run_plan(plan, loaded, questions, [(block.language, block.index)])
        for key, rows in block.rows.items():
            np.testing.assert_array_equal(again.rows[key].values, rows.values)


def test_the_instruction_is_run_once_per_block(load: Load, questions: PromptSet) -> None:
    loaded, tokens = load("llama"), []
    embedding = loaded.anatomy.stacks[""].embedding
    plan = make_plan(loaded, questions, sites=["resid.post"], positions=["last"], answers="none")
    run = run_plan(plan, loaded, questions, [("en", 0), ("sw", 0)])
    next(run)  # the trials of the levers and the laws are behind us
    handle = embedding.register_forward_hook(lambda _, args, __: tokens.append(args[0].numel()))
    try:
        next(run)
    finally:
        handle.remove()
    ids = [loaded.tokenizer(p.text)["input_ids"] for p in questions.of("sw")]
    common = len(loaded.tokenizer("Jibu swali lifuatalo. Rule number")["input_ids"])
    assert sum(tokens) < sum(map(len, ids)) - 10 * common


@given(
    st.lists(
        st.builds(lambda a, b, c: (*[1] * a, *b, c), st.integers(0, 12), st.lists(st.integers(0, 2), max_size=20),
                  st.integers(0, 3)),
        min_size=1, max_size=30,
    ),
    st.integers(1, 60),
)  # fmt: skip
def test_groups_are_a_partition_and_share_what_they_say(ids: list[tuple[int, ...]], budget: int) -> None:
    groups = shared_batches(ids, budget, PASS_COST)
    assert sorted(i for g in groups for i in g.rows) == list(range(len(ids)))
    for group in groups:
        assert list(group.shared) == sorted(set(group.shared))
        for length in group.shared:
            assert len({ids[i][:length] for i in group.rows}) == 1
            assert all(length < len(ids[i]) for i in group.rows)


@pytest.mark.parametrize("levers", [(), tuple(LEVERS)])
@pytest.mark.parametrize("answers", ["labels", "texts"])
def test_pooled_blocks_give_the_rows_of_single_ones_whichever_are_pending(
    load: Load, questions: PromptSet, levers: Sequence[str], answers: str
) -> None:
    loaded = load("llama")
    options = {"levers": levers, "answers": answers, "positions": ("last", "all") if not levers else ("last",)}
    single = captured(loaded, questions, block_items=3, **options)
    plan = make_plan(loaded, questions, sites=SITES, block_items=3, **options)
    plan = replace(plan, pooled=3, pass_cost=400)
    assert [len(pool) for pool in plan.pools] == [3, 3, 2]
    pooled = list(run_plan(plan, loaded, questions, plan.blocks))
    assert [(b.language, b.index) for b in pooled] == list(plan.blocks)
    assert pooled[0].law_errors
    assert not any(b.law_errors for b in pooled[1:])
    assert error(pooled, single) < 2e-6
    # Blocks 1, 2 of the first pool, and those of the others in another order: the same bits.
    some = [plan.blocks[i] for i in (7, 2, 1, 4)]
    again = list(run_plan(plan, loaded, questions, some))
    assert {(b.language, b.index) for b in again} == set(some)
    for block in again:
        whole = pooled[plan.blocks.index((block.language, block.index))]
        for key, rows in block.rows.items():
            np.testing.assert_array_equal(rows.values, whole.rows[key].values)
        np.testing.assert_array_equal(block.answers.scores, whole.answers.scores)


def test_fewer_passes_where_a_pass_is_dear() -> None:
    lengths = [20 + i % 90 for i in range(200)]
    cheap, dear = (batches(lengths, 4096, cost) for cost in (PASS_COST, 1024))
    assert len(dear) < len(cheap) / 2
    for groups in (cheap, dear):
        assert sorted(i for group in groups for i in group) == list(range(200))


def test_nested_runs_are_found_where_they_pay() -> None:
    ids = [(*range(20), *[100 + i // 4] * 15, 7, i) for i in range(8)] + [(1, 2, 3)]
    assert shared_batches(ids, 10_000, PASS_COST) == [
        Group((0, 1, 2, 3), (20, 36)),
        Group((4, 5, 6, 7), (20, 36)),
        Group((8,)),
    ]


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, told = load("gpt2"), []
    plain = captured(loaded, questions, answers="labels")
    call = torch_backend.TorchPass.__call__

    def cramped(self, batch, keep, **more):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, batch, keep, **more)

    monkeypatch.setattr(torch_backend.TorchPass, "__call__", cramped)
    monkeypatch.setattr(torch_backend, "tried", lambda *_: (torch_backend.Levers(), ()))
    plan = make_plan(loaded, questions, sites=SITES, positions=["last"], answers="labels")
    found = list(run_plan(plan, loaded, questions, [("en", 0), ("sw", 0)], told.append))
    assert error(found, plain) < 2e-6
    assert [set(b.law_errors) != set() for b in found] == [True, False]
    assert told
    assert all("run in two halves" in line for line in told)
    for a, b in zip(found, plain, strict=True):
        np.testing.assert_allclose(a.answers.scores, b.answers.scores, atol=2e-5)


def test_one_prompt_that_does_not_fit_is_a_problem_with_a_hint(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend.TorchPass, "__call__", beyond_memory)
    monkeypatch.setattr(torch_backend, "tried", lambda *_: (torch_backend.Levers(), ()))
    with pytest.raises(BabelScopeError, match="does not suffice for one prompt"):
        captured(load("gpt2"), questions)


def test_a_lever_is_not_turned_off_by_a_lack_of_memory(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = torch_backend.TorchPass.__call__

    def cramped(self, *args, **more):
        return beyond_memory() if self.levers else call(self, *args, **more)

    monkeypatch.setattr(torch_backend.TorchPass, "__call__", cramped)
    with pytest.raises(BabelScopeError, match="memory of the host does not suffice for a few short prompts"):
        opened_by_a_run(load("gpt2"), questions)


def test_a_self_test_that_does_not_fit_is_a_problem_with_a_hint(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load("gpt2")
    plan = make_plan(loaded, questions, sites=SITES, positions=["last"])
    monkeypatch.setattr(selftest, "check_laws", beyond_memory)
    with pytest.raises(BabelScopeError, match="memory of the host does not suffice for the self-test") as caught:
        self_test(loaded, questions, plan)
    assert "--no-self-test" in caught.value.hint


def test_a_block_whose_rows_do_not_fit_is_a_problem_and_those_before_it_stay(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = blocks.empty
    monkeypatch.setattr(blocks, "empty", lambda *args: beyond_memory() if found else made(*args))
    found: list[Block] = []
    run = opened_by_a_run(load("gpt2"), questions)
    found.append(next(run))
    with pytest.raises(BabelScopeError, match=r"does not suffice for a block of .* prompts in 'sw'"):
        next(run)
    assert [block.language for block in found] == ["en"]


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("The size of tensor a (65) must match the size of tensor b (64)"))
    assert not out_of_memory(RuntimeError("out of memory, says a model file"))


def beyond_memory(*_: object, **__: object) -> None:
    """Fail as the allocator of this machine does."""
    torch.empty(2**60)


def opened_by_a_run(loaded: LoadedModel, prompts: PromptSet) -> Iterator[Block]:
    plan = make_plan(loaded, prompts, sites=SITES, positions=["last"])
    return run_plan(plan, loaded, prompts, [("en", 0), ("sw", 0)])


def test_values_that_are_no_numbers_are_told_once_per_site_with_an_item(
    load: Load, questions: PromptSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, told = load("opt"), []
    broken = loaded.anatomy.stacks[""].layers[1].down_projection
    handle = broken.register_forward_hook(lambda _, __, out: out.index_fill(-1, torch.tensor([3]), float("inf")))
    plan = make_plan(loaded, questions, sites=["mlp.act", "mlp.out@1:3"], positions=["last"], levers=())
    monkeypatch.setattr(torch_backend, "check_laws", lambda *_: {})  # they would not let such values pass
    try:
        run = run_plan(plan, loaded, questions, [("en", 0), ("sw", 0)], told.append)
        assert len(list(run)) == 2
    finally:
        handle.remove()
    assert told == [
        f"{site} of item 'item-0' in 'en' holds values that are not finite; they are kept and counted in the store "
        "(told once per site)"
        for site in ("mlp.act@2", "mlp.out@1,2")
    ]
