"""Prompts as a chat: each one as what a user says, wrapped as the model was trained to read it."""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from babelscope.errors import BabelScopeError
from babelscope.hooks.models import LoadedModel
from babelscope.schema import Prompt, PromptSet

# Some templates write the day into every prompt, which would then be others tomorrow. Those of Llama 3 take this day
# where they cannot ask for another.
_TODAY = date(2024, 7, 26)
_SAME_DAY = "{{ " + " | ".join(["format", *(f"replace('%{c}', '{_TODAY:%{c}}')" for c in "aAbBdmyYjHIMSp")]) + " }}"

# Parts of a fast tokenizer that put special tokens around a text.
_ADDING = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")


def as_chat(loaded: LoadedModel, prompts: PromptSet) -> tuple[LoadedModel, PromptSet]:
    """The prompts in the model's chat template, ready for the answer, and the model with a tokenizer that adds nothing.

    Segments keep their words. The template writes its special tokens itself, so the tokenizer must not repeat them.

    Raises
    ------
    BabelScopeError
        If the model has no chat template, if a prompt does not stand in it exactly once, or if the tokenizer cannot
        be kept from adding tokens.
    """
    template = loaded.tokenizer.chat_template
    if not isinstance(template, str):
        raise BabelScopeError(
            f"{loaded.ref.source} has {'several chat templates' if template else 'no chat template'}",
            "leave --chat-template out, or name a model that was trained as a chat",
        )
    render = _renderer(loaded, template)
    wrapped = PromptSet(prompts.name, tuple(_wrapped(p, render(p.text)) for p in prompts.prompts), prompts.source)
    silent = _adding_nothing(loaded.tokenizer)
    text = wrapped.prompts[0].text
    if silent(text)["input_ids"] != silent(text, add_special_tokens=False)["input_ids"]:
        raise BabelScopeError(
            f"the tokenizer of {loaded.ref.source} adds special tokens to those of its chat template",
            "set add_bos_token and add_eos_token to false in its tokenizer_config.json",
        )
    ref = replace(loaded.ref, chat_template_sha256=hashlib.sha256(template.encode()).hexdigest())
    return replace(loaded, tokenizer=silent, ref=ref), wrapped


def _renderer(loaded: LoadedModel, template: str) -> Callable[[str], str]:
    if "strftime_now" in template:
        # A macro of the template hides the function that transformers gives to it, and takes only data in exchange.
        template = "{% macro strftime_now(format) %}" + _SAME_DAY + "{% endmacro %}" + template

    def render(text: str) -> str:
        try:
            rendered: Any = loaded.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], chat_template=template, tokenize=False,
                add_generation_prompt=True,
            )  # fmt: skip
        except Exception as error:  # whatever the authors of a template raise
            raise BabelScopeError(
                f"the chat template of {loaded.ref.source} fails: {error}", "leave --chat-template out"
            ) from error
        return str(rendered)

    return render


def _wrapped(prompt: Prompt, rendered: str) -> Prompt:
    times = rendered.count(prompt.text)
    if times != 1:
        raise BabelScopeError(
            f"item {prompt.item!r} in {prompt.language!r} stands {times} times in its chat template",
            "remove spaces at the ends of the text" if prompt.text != prompt.text.strip() else "change the text",
        )
    shift = rendered.index(prompt.text)
    segments = tuple(replace(s, start=s.start + shift, stop=s.stop + shift) for s in prompt.segments)
    return replace(prompt, text=rendered, segments=segments)


def _adding_nothing(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    silent = copy.deepcopy(tokenizer)
    if silent.is_fast:
        record = json.loads(silent.backend_tokenizer.to_str())
        processor = record.get("post_processor") or {}
        kept = [p for p in processor.get("processors", [processor]) if p and p["type"] not in _ADDING]
        record["post_processor"] = {"type": "Sequence", "processors": kept} if kept else None
        silent._tokenizer = Tokenizer.from_str(json.dumps(record))
    return silent
