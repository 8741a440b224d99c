"""The native format: JSON Lines of `Prompt.to_json()`, recognized without a mapping and read back exactly."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from babelscope.datasets.fields import Entry, FieldError, check_characters
from babelscope.datasets.records import Record
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet

NEEDED = frozenset({"item", "language", "text"})
KNOWN = frozenset(f.name for f in fields(Prompt))
SUFFIXES = (".jsonl", ".ndjson")
_PROMPT = TypeAdapter(Prompt)


def write_prompts(prompts: PromptSet, path: str | Path) -> None:
    """Write a prompt set as JSON Lines, whole or not at all; `load_prompts` reads the same prompts back.

    Parameters
    ----------
    prompts : PromptSet
    path : str or Path
        File that ends in .jsonl; replaced if it exists.

    Raises
    ------
    BabelScopeError
        If the name does not end in .jsonl, a text cannot be written as UTF-8, or the folder cannot be written.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise BabelScopeError(f"{target}: prompts are written as JSON Lines", f"call it {target.with_suffix('.jsonl')}")
    write_lines(target, ((f"item {p.item!r} in {p.language!r}", p.to_json()) for p in prompts.prompts))


def write_lines(target: Path, records: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Write records as JSON Lines, whole or not at all, each with what to call it in an error.

    Raises
    ------
    BabelScopeError
        If a text cannot be written as UTF-8, or the folder cannot be written.
    """
    lines = []
    for called, record in records:
        try:
            lines.append(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        except UnicodeEncodeError:
            problem = f"{called} holds half a character (a lone surrogate)"
            raise BabelScopeError(problem, "repair the text where it was read") from None
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(b"".join(lines))
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        hint = "check that the folder exists and can be written"
        raise BabelScopeError(f"{target}: cannot be written: {error.strerror}", hint) from None


def is_native(record: Mapping[str, Any]) -> bool:
    """Whether a record has an item, a language and a text, and nothing that a Prompt has not."""
    return record.keys() >= NEEDED and record.keys() <= KNOWN


def native_entry(record: Record) -> Entry:
    """The prompt of a native record.

    Raises
    ------
    FieldError
        If a field is missing, unknown, of the wrong type, or contradicts another.
    """
    remedy = "correct the line, or give a --mapping"
    wrong = sorted(record.fields.keys() - KNOWN)
    if wrong:
        raise FieldError(f"unknown field {wrong[0]!r} (a prompt has: {', '.join(sorted(KNOWN))})", remedy)
    for name, value in record.fields.items():
        check_characters(name, json.dumps(value, ensure_ascii=False))
    try:
        # Through JSON again: only there does strict validation take a list for a tuple.
        prompt = _PROMPT.validate_json(json.dumps(record.fields), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FieldError(f"field {place!r}: {first['msg']}", remedy) from None
    _check(prompt, remedy)
    return Entry(prompt, record.where)


def _check(prompt: Prompt, remedy: str) -> None:
    if not prompt.item.strip():
        raise FieldError("field 'item' is empty", "give the item a key")
    if not prompt.text.strip():
        raise FieldError("field 'text' is empty", "fill it in, or remove the row in every language")
    for segment in prompt.segments:
        if not 0 <= segment.start <= segment.stop <= len(prompt.text):
            span = f"segment {segment.name!r} [{segment.start}, {segment.stop})"
            raise FieldError(f"{span} leaves the text of {len(prompt.text)} characters", remedy)
    if len(prompt.letters) != len(prompt.options):
        hint = 'give each option its letter, as "letters": ["A", "B"], or the file a --mapping'
        raise FieldError(f"{len(prompt.letters)} letters for {len(prompt.options)} options", hint)
    if prompt.gold is not None and not 0 <= prompt.gold < len(prompt.options):
        raise FieldError(f"gold {prompt.gold} is none of the {len(prompt.options)} options (from 0)", remedy)
