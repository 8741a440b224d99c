"""From the fields of a record to a prompt, as a mapping says."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Record
from babelscope.datasets.statements import truth_words
from babelscope.datasets.words import LANGUAGES
from babelscope.schema import Prompt, Segment
from babelscope.schema.prompts import LETTERS, Scalar


class FieldError(Exception):
    """A field that cannot be used: what is wrong with it and what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Entry:
    """A prompt, where it came from, and values of it that must be equal in all languages."""

    prompt: Prompt
    where: str
    same: Mapping[str, Any] = field(default_factory=dict)


def value_at(fields: Mapping[str, Any], path: str) -> Any:
    """The field named `path`, or inside others by a dotted path; raise FieldError if there is none."""
    if path in fields:
        return fields[path]
    value: Any = fields
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            have = ", ".join(map(repr, list(fields)[:20]))
            raise FieldError(f"there is no field {path!r} (there are: {have})", "fill it in, or correct the mapping")
    return value


def check_characters(name: str, text: str) -> None:
    """Raise FieldError for half a character, which no file of ours can hold and no model was trained on."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"field {name!r} holds half a character (the lone surrogate {text[error.start]!r})"
        raise FieldError(problem, "repair the text where it was cut or escaped, or remove the row") from None


def text_at(fields: Mapping[str, Any], path: str) -> str:
    """A field as a text that is not blank, exactly as it stands; numbers are written out."""
    value = value_at(fields, path)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise FieldError(f"field {path!r} is empty", "fill it in, or remove the row in every language")
    if isinstance(value, dict | list):
        kind = "a list" if isinstance(value, list) else "an object"
        step = "0" if isinstance(value, list) else next(iter(value), "name")
        raise FieldError(f"field {path!r} is {kind}, expected a text", f"name what is inside, as {path}.{step}")
    check_characters(path, str(value))
    return str(value)


def entry_of(record: Record, mapping: PromptMapping, item: str, language: str) -> Entry:
    """The prompt of a record, with segments named after the fields of the template.

    Raises
    ------
    FieldError
        If a field is missing, empty or unusable.
    """
    fields = record.fields
    options: tuple[str, ...]
    gold: int | None
    if mapping.truth is not None:
        options, gold = _truth_options(language), _truth(mapping.truth, value_at(fields, mapping.truth))
    else:
        options = _options(fields, mapping)
        gold = _gold(value_at(fields, mapping.gold), options, mapping) if mapping.gold is not None else None
    answer = options[gold] if gold is not None else ""
    if mapping.answer is not None:
        answer = text_at(fields, mapping.answer)
    text, segments = _filled(fields, mapping, options, language)
    prompt = Prompt(
        item, language, text, segments, LETTERS[: len(options)], options, gold, answer, _covariates(fields, mapping)
    )
    return Entry(prompt, record.where, {name: value_at(fields, name) for name in mapping.same})


def _filled(
    fields: Mapping[str, Any], mapping: PromptMapping, options: tuple[str, ...], language: str
) -> tuple[str, tuple[Segment, ...]]:
    text, segments = "", []
    first, rest = (mapping.truth is not None and parts_of(language)) or (language, language)
    for literal, name, segment in mapping.pieces():
        text += literal
        if name is None or segment is None:
            continue
        if name == "options" and options:
            part = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
        else:
            part = text_at(fields, name)
        said_in = first if segment == "context" else rest
        segments.append(Segment(segment, len(text), len(text) + len(part), said_in))
        text += part
    return text, tuple(segments)


def _truth_options(language: str) -> tuple[str, str]:
    spoken = language if language in LANGUAGES else (parts_of(language) or (language, language))[1]
    if spoken not in LANGUAGES:
        remedy = f"give `options` and `gold` instead of `truth`; it knows {', '.join(LANGUAGES)}"
        raise FieldError(f"there are no words for false and true in the language {language!r}", remedy)
    return truth_words(spoken)


def _truth(name: str, value: Any) -> int:
    """1 for true and 0 for false."""
    shown = str(value).strip().lower().removesuffix(".0")
    if shown not in ("true", "1", "false", "0"):
        raise FieldError(f"field {name!r} is {value!r}, neither true nor false", "write true or false, or 1 or 0")
    return int(shown in ("true", "1"))


def _options(fields: Mapping[str, Any], mapping: PromptMapping) -> tuple[str, ...]:
    if mapping.options is None:
        return ()
    if isinstance(mapping.options, str):
        value = value_at(fields, mapping.options)
        if not isinstance(value, list | tuple):
            remedy = "for one field per option, name them all: options: [a, b, c, d]"
            raise FieldError(f"field {mapping.options!r} is not a list of options", remedy)
        listed = {f"{mapping.options}.{i}": v for i, v in enumerate(value)}
        found = tuple(text_at(listed, name) for name in listed)
    else:
        found = tuple(text_at(fields, name) for name in mapping.options)
    if not 2 <= len(found) <= len(LETTERS):
        raise FieldError(f"{len(found)} options, expected 2 to {len(LETTERS)}", "correct the row or `options`")
    return found


def _gold(value: Any, options: tuple[str, ...], mapping: PromptMapping) -> int:
    """Index of the right option; every reading the mapping allows is tried, and two results are refused."""
    shown = str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    readings = _readings(shown, options)
    if mapping.gold_is is not None:
        readings = {k: v for k, v in readings.items() if k == mapping.gold_is}
    else:
        readings.pop("number", None)
    found = set(readings.values())
    if len(found) == 1:
        return found.pop()
    form = f" as {mapping.gold_is}" if mapping.gold_is is not None else ""
    if not found:
        problem = f"gold {value!r} names none of the {len(options)} options{form}"
        counted = mapping.gold_is in (None, "index") and shown == str(len(options))
        remedy = "set gold_is: number if it counts from 1" if counted else "correct the row, `gold` or `gold_is`"
        raise FieldError(problem, remedy)
    raise FieldError(
        f"gold {value!r} can be read as {' and as '.join(sorted(readings))}, with different results",
        f"say which in the mapping, as gold_is: {sorted(readings)[0]}",
    )


def _readings(shown: str, options: tuple[str, ...]) -> dict[str, int]:
    found = {}
    letter = shown.upper()
    if len(letter) == 1 and letter in string.ascii_uppercase and letter in LETTERS[: len(options)]:
        found["letter"] = LETTERS.index(letter)
    # Parquet and spreadsheets turn whole numbers with gaps into 2.0.
    digits = shown.removesuffix(".0")
    if digits.isascii() and digits.isdecimal():
        if int(digits) < len(options):
            found["index"] = int(digits)
        if 1 <= int(digits) <= len(options):
            found["number"] = int(digits) - 1
    texts = [i for i, option in enumerate(options) if option.strip() == shown]
    if len(texts) == 1:
        found["text"] = texts[0]
    return found


def _covariates(fields: Mapping[str, Any], mapping: PromptMapping) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name, path in mapping.covariates.items():
        value = value_at(fields, path)
        if value is None:
            continue
        if not isinstance(value, str | int | float | bool):
            problem = f"covariate {path!r} is {type(value).__name__}, expected a text or a number"
            raise FieldError(problem, f"name what is inside, as {path}.0, or leave it out")
        check_characters(path, str(value))
        found[name] = value
    return found
