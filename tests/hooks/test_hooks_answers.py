"""Answers are the model's own next-token scores of the option labels."""

import re
from collections.abc import Callable

import model_zoo
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from babelscope.hooks import LoadedModel, make_plan, run_plan
from babelscope.hooks.answers import AnswerSheet, label_tokens
from babelscope.schema import Block, Prompt, PromptSet

Load = Callable[[str], LoadedModel]
TOKENIZER = model_zoo.tokenizer(special=False)


def answered(loaded: LoadedModel, prompts: PromptSet) -> list[Block]:
    plan = make_plan(loaded, prompts, sites=["resid.post@-1"], positions=["last"], block_items=8)
    pending = [(language, i) for language in plan.languages for i in range(plan.n_blocks)]
    return list(run_plan(plan, loaded, prompts, pending))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "bloom"])
def test_scores_are_the_log_softmax_of_the_full_logits(name: str, load: Load, prompts: PromptSet) -> None:
    loaded = load(name)
    for block in answered(loaded, prompts):
        for row, item in enumerate(block.items):
            prompt = prompts.of(block.language)[item]
            ids = torch.tensor([loaded.tokenizer(prompt.text)["input_ids"]])
            with torch.no_grad():  # one prompt alone, all tokens unembedded
                logp = loaded.model(input_ids=ids).logits[0, -1].double().log_softmax(-1).numpy()
            expected = []
            for letter in prompt.letters:
                spelled = [loaded.tokenizer(v)["input_ids"] for v in (letter, " " + letter)]
                expected.append(max(logp[s[0]] for s in spelled if len(s) == 1))
            # Another batch shape in float32: 3e-7 of the largest logit was measured.
            np.testing.assert_allclose(block.answers.scores[row], expected, atol=2e-5)
            assert block.answers.choice[row] == np.argmax(expected)
            assert block.answers.correct[row] == float(np.argmax(expected) == prompt.gold)


def test_an_encoder_gives_no_answers(load: Load, prompts: PromptSet) -> None:
    assert all(block.answers is None for block in answered(load("bert"), prompts))


def test_prompts_without_options_give_no_answers(load: Load) -> None:
    open_question = PromptSet("open", (Prompt("a", "en", "Which is larger?"),))
    assert answered(load("llama"), open_question)[0].answers is None


def test_an_item_without_options_is_undefined_beside_items_with_options(load: Load, prompts: PromptSet) -> None:
    mixed = PromptSet("mixed", (*prompts.of("en"), Prompt("open", "en", "Which is larger?")))
    answers = answered(load("llama"), mixed)[0].answers
    assert np.isnan(answers.scores[-1]).all()
    assert answers.choice[-1] == -1
    assert np.isnan(answers.correct[-1])
    assert np.isfinite(answers.scores[:-1]).all()


def test_labels_that_cannot_be_told_apart_are_told_when_capturing(load: Load, prompts: PromptSet) -> None:
    loaded, told = load("llama"), []
    alike = [Prompt(f"alike-{i}", "en", "which? Answer:", options=("larger one", "larger two"), gold=0) for i in (0, 1)]
    both = PromptSet("both", (*prompts.of("en"), *alike))
    for asked, expected in ((both, f"2 of {len(both)} prompts are not scored by their labels: .* larger two do not"),
                            (prompts, "")):  # fmt: skip
        told.clear()
        plan = make_plan(loaded, asked, sites=["resid.post@0"], positions=["last"], levers=())
        run_plan(plan, loaded, asked, [], told.append)
        assert len(told) == bool(expected)
        assert re.search(expected, "".join(told))


def test_an_item_without_gold_has_a_choice_and_no_verdict(load: Load) -> None:
    prompt = Prompt("a", "en", "Answer:", letters=("A", "B"), options=("x", "y"))
    answers = answered(load("llama"), PromptSet("p", (prompt,)))[0].answers
    assert answers.choice[0] in (0, 1)
    assert np.isnan(answers.correct[0])


def test_a_label_counts_with_and_without_its_space() -> None:
    tokens = label_tokens(TOKENIZER, ["A", "B"])
    plain, spaced = TOKENIZER("A")["input_ids"], TOKENIZER(" A")["input_ids"]
    assert set(tokens[0]) == {ids[0] for ids in (plain, spaced) if len(ids) == 1}


def test_long_labels_are_scored_by_first_tokens_that_differ() -> None:
    tokens = label_tokens(TOKENIZER, ["kubwa xyz", "größer xyz"])
    assert tokens[0][0] == TOKENIZER("kubwa xyz")["input_ids"][0]
    assert not set(tokens[0]) & set(tokens[1])


def test_labels_that_begin_alike_are_undefined_with_a_reason(load: Load) -> None:
    labels = ("qqqq1", "qqqq2")
    assert "do not tell them apart" in label_tokens(TOKENIZER, labels)
    prompt = Prompt("a", "en", "Answer:", letters=labels, options=("x", "y"), gold=0)
    answers = answered(load("llama"), PromptSet("p", (prompt,)))[0].answers
    assert np.isnan(answers.scores).all()
    assert np.isnan(answers.correct).all()
    assert "qqqq1" in answers.undefined[0]


@given(st.lists(st.floats(-50, 50), min_size=320, max_size=320))
def test_scores_are_log_probabilities(logits: list[float]) -> None:
    prompt = Prompt("a", "en", "Answer:", letters=("A", "B", "C"), options=("x", "y", "z"), gold=1)
    sheet = AnswerSheet(TOKENIZER, [prompt], 4)
    sheet.fill([0], torch.tensor([logits]))
    answers = sheet.done()
    assert (answers.scores[0, :3] <= 1e-6).all()
    assert np.exp(answers.scores[0, :3]).sum() <= 1 + 1e-5  # labels are different tokens; float32 log_softmax
    assert np.isnan(answers.scores[0, 3])
    assert answers.choice[0] == np.argmax(answers.scores[0, :3])
