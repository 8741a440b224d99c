"""Prompts in a chat template: the template's own tokens and no others, and segments that keep their words."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from model_zoo import tokenizer
from transformers import PreTrainedTokenizerFast

from babelscope.errors import BabelScopeError
from babelscope.hooks import LoadedModel, as_chat, make_plan, run_plan, self_test
from babelscope.hooks.positions import tokens_at
from babelscope.hooks.tokens import encode
from babelscope.schema import Position, Prompt, PromptSet

Load = Callable[[str], LoadedModel]

# As Zephyr: no <s> of its own, though its tokenizer adds one to every text.
PLAIN = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# As Gemma and Llama: <s> is written out, and the text is trimmed.
BOS = (
    "{{ bos_token }}{% for m in messages %}[{{ m['content'] | trim }}]{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)
DATED = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %} {{ messages[0]['content'] }}"


def chatty(load: Load, template: object, *, special: bool = True) -> LoadedModel:
    made: PreTrainedTokenizerFast = tokenizer(special=special)
    made.chat_template = template
    return replace(load("llama"), tokenizer=made)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("template", [PLAIN, BOS])
def test_the_tokens_are_those_of_the_template(template: str, special: bool, load: Load, prompts: PromptSet) -> None:
    loaded = chatty(load, template, special=special)
    chat, wrapped = as_chat(loaded, prompts)
    found = encode(chat.tokenizer, [p.text for p in wrapped.prompts])
    for prompt, tokens in zip(prompts.prompts, found, strict=True):
        expected = loaded.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt.text}], add_generation_prompt=True
        )["input_ids"]
        assert list(tokens.ids) == expected
    assert len(loaded.tokenizer("x")["input_ids"]) == (3 if special else 1)  # the model's own tokenizer is left alone


def test_segments_keep_their_words_and_their_tokens(load: Load, prompts: PromptSet) -> None:
    chat, wrapped = as_chat(chatty(load, BOS), prompts)
    for before, after in zip(prompts.prompts, wrapped.prompts, strict=True):
        assert after.segment("question") == before.segment("question") != ""
        (tokens,) = encode(chat.tokenizer, [after.text])
        inside = [tokens.spans[i] for i in tokens_at(Position("segment", "question"), after, tokens)]
        covered = after.text[inside[0][0] : inside[-1][1]]
        assert before.segment("question").strip() in covered


def test_a_chat_is_captured_and_its_template_is_part_of_the_identity(load: Load, prompts: PromptSet) -> None:
    plans = []
    for template in (PLAIN, PLAIN + " ", BOS):
        chat, wrapped = as_chat(chatty(load, template), prompts)
        plans.append(make_plan(chat, wrapped, sites=["resid.post"], positions=["last", "segment:question"]))
        self_test(chat, wrapped, plans[-1])
        (block, *_) = run_plan(plans[-1], chat, wrapped, [("en", 0)])
        assert not block.failed
        assert block.answers is not None
    assert len({p.fingerprint for p in plans}) == 3
    assert len({p.model.chat_template_sha256 for p in plans}) == 3
    plain = make_plan(chatty(load, PLAIN), prompts, sites=["resid.post"], positions=["last"])
    assert plain.model.chat_template_sha256 == ""
    with pytest.raises(BabelScopeError, match="another model"):
        next(run_plan(plans[0], chatty(load, PLAIN), prompts, [("en", 0)]))


def test_a_template_that_writes_the_day_gives_the_same_prompts_tomorrow(load: Load, prompts: PromptSet) -> None:
    _, wrapped = as_chat(chatty(load, DATED), prompts)
    assert {p.text[:11] for p in wrapped.prompts} == {"26 Jul 2024"}


@pytest.mark.parametrize(
    ("template", "text", "problem", "hint"),
    [
        (None, "x", "no chat template", "leave --chat-template out"),
        ({"default": PLAIN, "tool_use": PLAIN}, "x", "several chat templates", "leave --chat-template out"),
        ("{{ messages[0]['content'] | upper }}", "which", "stands 0 times", "change the text"),
        (BOS, "which ", "stands 0 times", "remove spaces at the ends"),
        (PLAIN, "user", "stands 2 times", "change the text"),
        ("{{ raise_exception('no users here') }}", "x", "fails: no users here", "leave --chat-template out"),
    ],
)
def test_a_template_that_does_not_fit_is_refused(
    template: object, text: str, problem: str, hint: str, load: Load
) -> None:
    prompts = PromptSet("one", (Prompt("one", "en", text),))
    with pytest.raises(BabelScopeError, match=problem) as error:
        as_chat(chatty(load, template), prompts)
    assert hint in error.value.hint
