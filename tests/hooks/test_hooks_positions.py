"""Positions pick the tokens that they say, and items in which they pick nothing are left out with a reason."""

from collections.abc import Callable

import model_zoo
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from babelscope.hooks import LoadedModel, make_plan, run_plan
from babelscope.hooks.positions import NoTokensError, Picker, tokens_at
from babelscope.hooks.tokens import Encoded, batches, encode
from babelscope.schema import Position, Prompt, PromptSet, Segment
from babelscope.schema.plan import PASS_COST

Load = Callable[[str], LoadedModel]
SPECIAL, PLAIN = model_zoo.tokenizer(special=True), model_zoo.tokenizer(special=False)


@given(st.text("aB哪é 一", min_size=1, max_size=30), st.data())
def test_segments_of_a_partition_cover_every_ordinary_token(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    prompt = Prompt("a", "en", text, (Segment("left", 0, cut, "en"), Segment("right", cut, len(text), "en")))
    (encoded,) = encode(SPECIAL, [text])
    covered: set[int] = set()
    for name, (start, stop) in {"left": (0, cut), "right": (cut, len(text))}.items():
        try:
            found = tokens_at(Position("segment", name), prompt, encoded).tolist()
        except NoTokensError:
            assert start == stop
            continue
        for i in found:
            a, b = encoded.spans[i]
            assert a < stop
            assert start < b
        covered.update(found)
    assert covered == set(range(1, len(encoded) - 1))  # all but <s> and </s>


def test_spans_of_one_name_are_joined() -> None:
    text = "ab cd ab"
    prompt = Prompt("a", "en", text, (Segment("s", 0, 2, "en"), Segment("s", 6, 8, "en")))
    (encoded,) = encode(PLAIN, [text])
    found = tokens_at(Position("segment", "s"), prompt, encoded)
    assert "".join(text[a:b].strip() for a, b in (encoded.spans[i] for i in found)) == "abab"


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 3))
def test_rows_never_hold_padding(lengths: list[int], more: int) -> None:
    width = max(lengths) + more
    x = torch.full((len(lengths), width, 2), float("nan"))
    for i, n in enumerate(lengths):
        x[i, :n] = torch.arange(n)[:, None] + 10.0 * i
    prompt = Prompt("a", "en", "text")
    for kind in ("last", "first", "mean", "all"):
        position = Position(kind)
        chosen = [tokens_at(position, prompt, Encoded(tuple(range(n)), None)) for n in lengths]
        rows = Picker(position, chosen, torch.device("cpu"))(x)
        assert not rows.isnan().any()
        assert len(rows) == (sum(lengths) if kind == "all" else len(lengths))
    expected = [10.0 * i + (n - 1) / 2 for i, n in enumerate(lengths)]
    mean = Picker(Position("mean"), [np.arange(n) for n in lengths], torch.device("cpu"))(x)
    np.testing.assert_allclose(mean[:, 0].numpy(), expected, rtol=1e-6)  # float32 holds these to 6e-8


def test_rows_are_copies() -> None:
    x = torch.zeros(2, 3, 4)
    for kind in ("last", "all", "mean"):
        rows = Picker(Position(kind), [np.array([1]), np.array([2])], torch.device("cpu"))(x)
        x += 1
        assert rows.sum() == 0
        x -= 1


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 100))
def test_batches_are_a_partition_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = batches(lengths, budget, PASS_COST)
    assert sorted(i for g in groups for i in g) == list(range(len(lengths)))
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= budget for g in groups)
    flat = [lengths[i] for g in groups for i in g]
    assert flat == sorted(flat)


def test_an_item_without_the_segment_fails_with_a_reason_and_the_others_go_on(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    mixed = PromptSet("mixed", (*prompts.of("en"), Prompt("bare", "en", "no segments here")))
    plan = make_plan(loaded, mixed, sites=["resid.post"], positions=["segment:question"], answers="none")
    (block,) = run_plan(plan, loaded, mixed, [("en", 0)])
    assert block.failed == {5: "no segment 'question' (segments: none)"}
    np.testing.assert_array_equal(block.items, range(5))
    assert block.rows["resid.post", Position("segment", "question")].values.shape[1] == 5


def test_an_item_missing_in_a_language_fails_there_only(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    gap = PromptSet("gap", tuple(p for p in prompts.prompts if (p.item, p.language) != ("item-2", "sw")))
    plan = make_plan(loaded, gap, sites=["resid.post"], positions=["last"], answers="none")
    english, swahili = run_plan(plan, loaded, gap, [("en", 0), ("sw", 0)])
    assert not english.failed
    assert swahili.failed == {2: "not among the prompts in 'sw'"}
    assert swahili.items.tolist() == [0, 1, 3, 4]


def test_a_block_of_failures_is_empty_and_whole(load: Load, prompts: PromptSet) -> None:
    loaded = load("llama")
    mixed = PromptSet("mixed", (*prompts.of("en"), Prompt("bare", "en", "no segments here")))
    plan = make_plan(loaded, mixed, sites=["attn.heads"], positions=["segment:question"], block_items=5)
    empty, full = run_plan(plan, loaded, mixed, [("en", 1), ("en", 0)])
    assert empty.rows["attn.heads", Position("segment", "question")].values.shape == (3, 0, 4, 8)
    assert empty.answers.scores.shape == (0, 2)
    assert full.law_errors  # the laws wait for the first batch there is


def test_the_last_token_is_named(load: Load, prompts: PromptSet) -> None:
    for name, token in (("llama", ":"), ("bert", "</s>")):
        loaded = load(name)
        plan = make_plan(loaded, prompts, sites=["embed"], positions=["last"], answers="none")
        (block,) = run_plan(plan, loaded, prompts, [("en", 0)])
        assert set(block.last_token) == {token}
        lengths = [len(loaded.tokenizer(p.text)["input_ids"]) for p in prompts.of("en")]
        assert block.n_tokens.tolist() == lengths


@pytest.mark.parametrize("kind", ["last", "segment"])
def test_a_text_without_tokens_has_no_position(kind: str) -> None:
    position = Position(kind, "question" if kind == "segment" else "")
    with pytest.raises(NoTokensError, match="no tokens"):
        tokens_at(position, Prompt("a", "en", "x"), Encoded((), ()))
