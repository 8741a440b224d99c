"""The shell that all generated multiple-choice prompts share, so that only the demand of the task differs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from babelscope.datasets.words import wording
from babelscope.schema import Prompt, Segment
from babelscope.schema.prompts import LETTERS, Scalar

Letters = Literal["latin", "native"]


@dataclass(frozen=True, slots=True)
class Task:
    """One item in one language before it is put into the shell.

    `context` may be empty; `gold` is the index of the right one of the `options`; `instruction` is the key of the
    wording that says what to do.
    """

    context: str
    question: str
    options: tuple[str, ...]
    gold: int
    instruction: str = "shell.instruction"


def in_shell(
    item: str, language: str, task: Task, covariates: Mapping[str, Scalar], letters: Letters = "latin"
) -> Prompt:
    """Instruction, context, question, lettered options and answer cue, one a line, with their segments."""
    words = wording(language)
    alphabet = LETTERS if letters == "latin" else tuple(words.table["shell"]["native_letters"])
    labels = alphabet[: len(task.options)]
    lines = [
        ("instruction", words.say(task.instruction, letters=words.list(labels))),
        ("context", task.context),
        ("question", task.question),
        ("options", "\n".join(
            words.say("shell.option", letter=letter, text=text)
            for letter, text in zip(labels, task.options, strict=True)
        )),
        ("cue", words.say("shell.cue")),
    ]  # fmt: skip
    text, segments = "", []
    for name, line in lines:
        if not line:
            continue
        text += "\n" if text else ""
        segments.append(Segment(name, len(text), len(text) + len(line), language))
        text += line
    return Prompt(
        item, language, text, tuple(segments), labels, task.options, task.gold, task.options[task.gold], covariates
    )
