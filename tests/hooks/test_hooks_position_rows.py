"""Rows of every position against loops over one prompt alone, with and without special tokens, on either side."""

import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import model_zoo
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from babelscope.datasets.text_units import word_spans, words
from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, load_model, make_plan, run_plan
from babelscope.hooks.positions import NoTokensError, picker, tokens_at
from babelscope.hooks.tokens import Encoded, encode
from babelscope.schema import Position, Prompt, PromptSet, Segment

Load = Callable[[str], LoadedModel]
POSITIONS = ("weighted-mean", "answer", "words", "words:question", "all", "mean")
SPECIAL, PLAIN = model_zoo.tokenizer(special=True), model_zoo.tokenizer(special=False)


@pytest.fixture(scope="module")
def answered() -> PromptSet:
    """Prompts of very different lengths, half of them with their answer in the text."""
    found = []
    for language, line in (("en", model_zoo.LINES[0]), ("zh", model_zoo.LINES[4])):
        for item in range(4):
            question, answer = line[: 6 + 9 * item], " x, 哪个" if item % 2 else ""
            text = question + " Answer:" + answer
            segments = [Segment("question", 0, len(question), language)]
            if answer:
                segments.append(Segment("answer", len(text) - len(answer), len(text), language))
            found.append(Prompt(f"i{item}", language, text, tuple(segments)))
    return PromptSet("answered", tuple(found))


def states(loaded: LoadedModel, prompt: Prompt) -> tuple[list[int], list[tuple[int, int]], np.ndarray]:
    """Ids, character spans and the model's own first hidden state, (token, unit), of one prompt alone."""
    found = loaded.tokenizer(prompt.text, return_offsets_mapping=True)
    body = loaded.anatomy.body
    with torch.no_grad():
        out = body(input_ids=torch.tensor([found["input_ids"]]), output_hidden_states=True)
    return found["input_ids"], found["offset_mapping"], out.hidden_states[1][0].double().numpy()


def slow(position: str, prompt: Prompt, spans: list[tuple[int, int]], x: np.ndarray) -> np.ndarray:
    """Rows of a position by its definition, token by token and character by character."""
    n = len(x)
    if position == "mean":
        return np.array([sum(x) / n])
    if position == "weighted-mean":
        return np.array([sum((i + 1) * x[i] for i in range(n)) / sum(range(1, n + 1))])
    if position == "all":
        return x
    if position == "answer":
        inside = {c for s in prompt.segments if s.name == "answer" for c in range(s.start, s.stop)}
        rows = [x[i] for i, (a, b) in enumerate(spans) if inside & set(range(a, b))]
        return np.array([sum(rows) / len(rows)]) if inside else x[-1:]
    stop = next(s.stop for s in prompt.segments) if position == "words:question" else len(prompt.text)
    found = []
    for characters in slow_words(prompt.text):
        rows = [x[i] for i, (a, b) in enumerate(spans) if set(characters) & set(range(a, b))]
        if min(characters) < stop:
            found.append(sum(rows) / len(rows))
    return np.array(found)


def slow_words(text: str) -> list[list[int]]:
    """Characters of each word: marks them one by one, then cuts."""
    label = ["" if unicodedata.category(c)[0] not in "LMN" else "H" if "一" <= c <= "鿿" else "w" for c in text]
    found: list[list[int]] = []
    for i, kind in enumerate(label):
        if kind == "w" and i and label[i - 1] == "w":
            found[-1].append(i)
        elif kind:
            found.append([i])
    return found


def check(loaded: LoadedModel, prompts: PromptSet) -> None:
    plan = make_plan(loaded, prompts, sites=["resid.post@0"], positions=POSITIONS, answers="none")
    for block in run_plan(plan, loaded, prompts, [(language, 0) for language in plan.languages]):
        assert not block.failed
        expected: dict[str, list[np.ndarray]] = {p: [] for p in POSITIONS}
        ids, added = [], []
        for prompt in prompts.of(block.language):
            tokens, spans, x = states(loaded, prompt)
            ids += tokens
            added += [int(a == b) for a, b in spans]
            for position in POSITIONS:
                expected[position].append(slow(position, prompt, spans, x))
        for position in POSITIONS:
            rows = block.rows["resid.post", Position.parse(position)]
            # float32 states in another batch shape: 3e-7 of the largest value was measured.
            np.testing.assert_allclose(rows.values[0], np.concatenate(expected[position]), rtol=1e-4, atol=2e-5)
            if rows.row_splits is not None:
                np.testing.assert_array_equal(np.diff(rows.row_splits), [len(e) for e in expected[position]])
        every = block.rows["resid.post", Position("all")].coordinates
        assert every["token_id"].tolist() == ids
        assert every["special"].tolist() == added
        at = block.rows["resid.post", Position("words")]
        spelled = [
            prompt.text[a:b]
            for i, prompt in enumerate(prompts.of(block.language))
            for a, b in zip(*(at.coordinates[c][at.row_splits[i] : at.row_splits[i + 1]] for c in at.coordinates))  # noqa: B905
        ]
        texts = [prompt.text for prompt in prompts.of(block.language)]
        assert spelled == ["".join(text[c] for c in word) for text in texts for word in slow_words(text)]


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "bloom", "bert", "xlm-r"])
def test_rows_are_those_of_the_definition_in_a_prompt_alone(name: str, load: Load, answered: PromptSet) -> None:
    check(load(name), answered)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_the_padding_side_of_the_tokenizer_does_not_matter(
    name: str, special: bool, answered: PromptSet, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = model_zoo.FAMILIES[name].build()
    folder = model_zoo.save(model, tmp_path, special=special, padding_side="left")
    loaded = load_model(folder, device="cpu")
    assert loaded.tokenizer.padding_side == "left"
    check(loaded, answered)


@pytest.mark.parametrize("position", ["mean", "weighted-mean", "answer", "words", "words:question"])
def test_an_average_has_the_same_bits_alone_and_in_a_batch(position: str, answered: PromptSet) -> None:
    prompts = answered.prompts
    encoded = encode(SPECIAL, [p.text for p in prompts])
    x = torch.randn(len(prompts), max(map(len, encoded)) + 3, 2, 5, generator=torch.Generator().manual_seed(0))
    where, device = Position.parse(position), torch.device("cpu")
    together = picker(where, prompts, encoded, device)(x)
    alone = [
        picker(where, [p], [e], device)(x[i : i + 1, : len(e)])
        for i, (p, e) in enumerate(zip(prompts, encoded, strict=True))
    ]
    assert torch.equal(together, torch.cat(alone))


def test_the_weights_grow_with_the_rank_and_sum_to_one() -> None:
    x = torch.zeros(2, 6, 1)
    x[0, :3, 0] = torch.tensor([1.0, 0.0, 0.0])
    x[1, :4, 0] = 7
    x[:, 4:] = float("nan")
    prompts = [Prompt("a", "en", "abc"), Prompt("b", "en", "abcd")]
    encoded = [Encoded((5, 6, 7), None), Encoded((5, 6, 7, 8), None)]
    rows = picker(Position("weighted-mean"), prompts, encoded, torch.device("cpu"))(x)
    np.testing.assert_allclose(rows[:, 0], [1 / 6, 7], rtol=1e-6)  # float32 holds these to 6e-8


@given(st.text("aBé哪か゛ー・ू'9 ,\u0301", max_size=30))
def test_spans_of_words_lie_in_order_and_cover_letters_and_digits(text: str) -> None:
    spans = word_spans(text)
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    covered = "".join(text[a:b] for a, b in spans)
    assert covered == "".join(c for c in text if unicodedata.category(c)[0] in "LMN")


def test_words_are_those_that_the_audit_counts() -> None:
    for text in model_zoo.LINES:
        assert tuple(text[a:b].lower() for a, b in word_spans(text)) == words(text)


def test_special_tokens_written_in_the_text_are_flagged_and_belong_to_no_word() -> None:
    text = "<s> one</s>"
    (encoded,) = encode(PLAIN, [text])
    assert encoded.special == {0, len(encoded) - 1}
    found = tokens_at(Position("words"), Prompt("a", "en", text), encoded)
    assert not set(found.tolist()) & encoded.special


def test_added_tokens_that_are_special_without_a_role_are_flagged_as_well() -> None:
    made = model_zoo.tokenizer(special=False)
    names = [AddedToken("<|start_header_id|>", special=True), AddedToken("<|eot_id|>", special=True)]
    made.add_tokens([*names, AddedToken("<think>", special=False)])  # as the tokenizers of Llama 3 and Qwen 3
    text = "<|start_header_id|>one<think>two<|eot_id|>"
    (encoded,) = encode(made, [text])
    assert [made.convert_ids_to_tokens(encoded.ids[i]) for i in sorted(encoded.special)] == [n.content for n in names]
    found = tokens_at(Position("words"), Prompt("a", "en", text), encoded)
    assert not set(found.tolist()) & encoded.special


def test_the_token_for_unknown_text_is_not_special() -> None:
    (encoded,) = encode(PLAIN, ["a<unk>b"])
    assert PLAIN.unk_token_id in encoded.ids
    assert not encoded.special


def test_a_text_of_marks_has_no_words() -> None:
    (encoded,) = encode(PLAIN, ["?!"])
    with pytest.raises(NoTokensError, match="no words"):
        tokens_at(Position("words"), Prompt("a", "en", "?!"), encoded)


def test_words_of_a_segment_that_no_prompt_has_are_refused(load: Load, answered: PromptSet) -> None:
    with pytest.raises(BabelScopeError, match="segment called 'nowhere'"):
        make_plan(load("llama"), answered, sites=["embed"], positions=["words:nowhere"])


def test_a_decoder_without_text_answers_at_its_last_token(load: Load, answered: PromptSet) -> None:
    loaded = load("mt5")
    sites, positions = ["enc.resid.post", "dec.resid.post"], ["answer", "last"]
    for policy in ("start", "copy"):
        plan = make_plan(loaded, answered, sites=sites, positions=positions, answers="none", decoder=policy)
        (block,) = run_plan(plan, loaded, answered, [("en", 0)])
        both = [block.rows["dec.resid.post", Position(p)].values for p in positions]
        # The prompts 1 and 3 hold their answer, which a decoder sees where it reads a copy.
        same = (both[0] == both[1]).all(axis=(0, 2)).tolist()
        assert same == ([True] * 4 if policy == "start" else [True, False, True, False])
