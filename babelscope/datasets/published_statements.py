"""Statements to be judged true or false, written as the published sets are laid out; the mappings read them back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from babelscope.datasets.language_files import PLACE
from babelscope.datasets.native import SUFFIXES, write_lines
from babelscope.datasets.text_units import whole_sentences
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet

# Records of one file, each with what to call it in an error.
Lines: TypeAlias = Iterator[tuple[str, Mapping[str, Any]]]


def write_published(prompts: PromptSet, layout: str, pattern: str | Path) -> list[Path]:
    """Write one file per language in a published layout, so that code made for the published set can read it.

    Parameters
    ----------
    prompts : PromptSet
        Two options each, false and true in this order; segments `context` and `question`.
    layout : "ruletaker" or "leap-of-thought"
        RuleTaker: a context a line with its `questions` (`text`, `label`, `meta.QDep`, from the covariate `depth`);
        consecutive prompts with one context share a line. LeapOfThought: `context`, `phrase`, `answer` (0 or 1) and
        `metadata.rules` (the sentences of the context).
    pattern : str or Path
        Path with `{language}` in it, such as `data/{language}/original/depth-5/test.jsonl`; folders are made.

    Returns
    -------
    list of Path
        The files, in order of the languages.

    Raises
    ------
    BabelScopeError
        If the pattern has no place for the language, or a prompt is no such statement (the item is named).
    """
    if layout not in LAYOUTS:
        raise unknown_name("layout", layout, LAYOUTS)
    if PLACE not in str(pattern) or Path(pattern).suffix not in SUFFIXES:
        hint = f"write it as data/{PLACE}/test.jsonl"
        raise BabelScopeError(f"{pattern}: a published layout is one JSON Lines file per language", hint)
    for prompt in prompts.prompts:
        _check(prompt)
    written = []
    for language in prompts.languages:
        target = Path(str(pattern).replace(PLACE, language))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"{target.parent}: cannot be made: {error.strerror}"
            raise BabelScopeError(problem, "name a folder that can be written") from None
        write_lines(target, LAYOUTS[layout](prompts.of(language)))
        written.append(target)
    return written


def _check(prompt: Prompt) -> None:
    where = f"item {prompt.item!r} in {prompt.language!r}"
    hint = "export statements to be judged, as those of ruletaker and leap-of-thought"
    if len(prompt.options) != 2 or prompt.gold is None:
        raise BabelScopeError(f"{where} has {len(prompt.options)} options, expected false and true", hint)
    missing = next((name for name in ("context", "question") if not prompt.segment(name)), None)
    if missing is not None:
        raise BabelScopeError(f"{where} has no segment {missing!r}", hint)


def _ruletaker(prompts: Sequence[Prompt]) -> Lines:
    for context, group in groupby(prompts, lambda p: p.segment("context")):
        asked = list(group)
        questions = [
            {
                "id": p.item,
                "text": p.segment("question"),
                "label": bool(p.gold),
                "meta": {"QDep": p.covariates["depth"]} if "depth" in p.covariates else {},
            }
            for p in asked
        ]
        yield f"item {asked[0].item!r}", {"id": asked[0].item, "context": context, "questions": questions}


def _leap_of_thought(prompts: Sequence[Prompt]) -> Lines:
    for p in prompts:
        context = p.segment("context")
        yield (
            f"item {p.item!r}",
            {
                "id": p.item,
                "context": context,
                "phrase": p.segment("question"),
                "answer": int(p.gold or 0),
                "metadata": {"rules": whole_sentences(context)},
            },
        )


LAYOUTS: Mapping[str, Callable[[Sequence[Prompt]], Lines]] = MappingProxyType(
    {"ruletaker": _ruletaker, "leap-of-thought": _leap_of_thought}
)
