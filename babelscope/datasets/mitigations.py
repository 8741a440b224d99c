"""What may help with mixed-language questions: a sentence, demonstrations, translating first, other letters.

Chua et al. (2024), arXiv:2406.16135. Each is a variant of every setting, `mixup+awareness-1` beside `mixup`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from babelscope.datasets.choice_cells import CUE, letter_spans
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment

INSTRUCTION = "instruction"

Said = TypeVar("Said")

# By language of the base: our own wording.
AWARENESS: Mapping[str, tuple[str, str]] = {
    "en": (
        "The question and its options may be written in different languages. Read each in its own language.",
        "Some parts may not be in English. Choose by what an option means, not by the language that it is in.",
    )
}
# Stands between a mixed question and the same in the base language.
RESTATED: Mapping[str, str] = {"en": "In English:"}

NAMES = {
    "awareness-1": "a sentence that languages may differ",
    "awareness-2": "a sentence that meaning counts, not language",
    "english-shots": "demonstrations in the base language",
    "same-shots": "demonstrations in the setting of the question, which give away what is foreign in it",
    "translate": "demonstrations that say question and options again in the base language, then answer",
    "ids-1234": "digits for letters",
    "ids-CDEF": "other letters: any of `ids-` and as many characters as there are options",
}
# Covariates by which demonstrations are of the same kind as a question, the first that the set has.
KINDS = ("subject", "rule", "task")


def mitigated(
    mixed: PromptSet, names: Sequence[str], *, base: str = "en", demonstrations: PromptSet | None = None, shots: int = 5
) -> PromptSet:
    """A set of mixed-language questions with variants of every setting behind it.

    Parameters
    ----------
    mixed : PromptSet
        Of `mixed_choice`.
    names : sequence of str
        Of `NAMES`; one a variant, they are not combined.
    base : str
    demonstrations : PromptSet, optional
        Other items in the same settings (of `mixed_choice`, too), for shots and `translate`: the first `shots` of the
        kind of a question (`KINDS`), in their order.
    shots : int

    Raises
    ------
    BabelScopeError
        For an unknown name, demonstrations that are missing, too few or among the questions, or a base language for
        which there is no wording.
    """
    made = list(mixed.prompts)
    for name in dict.fromkeys(names):
        change = _change(name, mixed, base, demonstrations, shots)
        made += [replace(change(p), language=f"{p.language}+{name}") for p in mixed.prompts]
    source = {**mixed.source, "mitigations": list(dict.fromkeys(names))}
    if demonstrations is not None:
        source |= {"shots": shots, "demonstrations": {"digest": demonstrations.digest(), **demonstrations.source}}
    return PromptSet(mixed.name, tuple(made), source)


def _change(
    name: str, mixed: PromptSet, base: str, demonstrations: PromptSet | None, shots: int
) -> Callable[[Prompt], Prompt]:
    if name in ("awareness-1", "awareness-2"):
        sentence = _said(AWARENESS, base, name)[int(name[-1]) - 1]
        return lambda prompt: _with_sentence(prompt, sentence, base)
    if name.startswith("ids-"):
        letters = tuple(name.removeprefix("ids-"))
        return lambda prompt: relabeled(prompt, letters)
    if name not in NAMES:
        raise unknown_name("mitigation", name, NAMES)
    if demonstrations is None:
        raise BabelScopeError(f"{name} needs demonstrations", "name other items with --demos, as a train split")
    shown = _Demonstrations(demonstrations, mixed, shots)
    if name == "translate":
        restated = _said(RESTATED, base, name)
        return lambda prompt: shown.before(prompt, prompt.language, base, restated)
    return lambda prompt: shown.before(prompt, base if name == "english-shots" else prompt.language, base)


def _said(table: Mapping[str, Said], base: str, name: str) -> Said:
    if base not in table:
        raise BabelScopeError(
            f"{name} has no wording in {base!r}, only in {', '.join(table)}", "mix with another base, or leave it out"
        )
    return table[base]


def _with_sentence(prompt: Prompt, sentence: str, base: str) -> Prompt:
    """A sentence on a line of its own behind the instruction, or before everything."""
    place = _body(prompt)
    return _inserted(prompt, place, sentence, "\n", "awareness", base)


def _inserted(prompt: Prompt, place: int, new: str, behind: str, name: str, language: str) -> Prompt:
    """The prompt with a text of its own segment, and what stands behind it, put in at a place."""
    shift = len(new) + len(behind)
    moved = [
        Segment(s.name, s.start + shift, s.stop + shift, s.language) if s.start >= place else s for s in prompt.segments
    ]
    segments = sorted([*moved, Segment(name, place, place + len(new), language)], key=lambda s: (s.start, -s.stop))
    text = prompt.text[:place] + new + behind + prompt.text[place:]
    return replace(prompt, text=text, segments=tuple(segments))


def _body(prompt: Prompt) -> int:
    """Where the prompt begins behind its instruction, if it begins with one."""
    heads = [s for s in prompt.segments if s.name == INSTRUCTION and not prompt.text[: s.start].strip()]
    others = [s.start for s in prompt.segments if heads and s.start >= heads[0].stop]
    return min(others) if others else 0


class _Demonstrations:
    """Items with their answers, shown before a question."""

    def __init__(self, shown: PromptSet, mixed: PromptSet, shots: int) -> None:
        self._by_key = {(p.item, p.language): p for p in shown.prompts}
        self._items = shown.items
        self._facts = {p.item: p.covariates for p in shown.prompts}
        self._shots = shots
        if shots < 1:
            raise BabelScopeError(f"{shots} demonstrations show nothing", "ask for --shots 1 or more")
        asked = {p.text for p in mixed.prompts}
        for prompt in shown.prompts:
            if prompt.text in asked or prompt.item in mixed.items:
                raise BabelScopeError(
                    f"item {prompt.item!r} is among the demonstrations and among the questions",
                    "demonstrate with other items, as --demos of a train split",
                )

    def before(self, prompt: Prompt, language: str, base: str, restated: str | None = None) -> Prompt:
        """The prompt behind demonstrations in a setting.

        With `restated` each demonstration is its mixed question and options, a line with that text, question and
        options in the base language, and the cue with the answer; the prompt ends with the line, behind which a model
        says it all again and then, on a line that begins with the cue, its answer.
        """
        blocks = []
        for item in self._chosen(prompt):
            told = self._of(item, language)
            if restated is not None:
                blocks.append(f"{_bare(told)}\n{restated}\n{_solved(self._of(item, base))}")
            else:
                blocks.append(_solved(told))
        if restated is not None:
            prompt = _asked_again(prompt, restated, base)
        shown = "\n\n".join(blocks)
        return _inserted(prompt, _body(prompt), shown, "\n\n", "demonstrations", language if restated is None else base)

    def _chosen(self, prompt: Prompt) -> list[str]:
        kind = next((k for k in KINDS if k in prompt.covariates), None)
        items = [item for item in self._items if kind is None or self._facts[item].get(kind) == prompt.covariates[kind]]
        if len(items) < self._shots:
            what = f" of {kind} {prompt.covariates[kind]!r}" if kind else ""
            raise BabelScopeError(
                f"{len(items)} items{what} to demonstrate with, {self._shots} are asked for",
                "give more items with --demos, or ask for fewer --shots",
            )
        return items[: self._shots]

    def _of(self, item: str, language: str) -> Prompt:
        if (item, language) not in self._by_key:
            raise BabelScopeError(
                f"the demonstrations have no {item!r} in the setting {language!r}",
                "mix them with the same languages and settings as the questions",
            )
        return self._by_key[item, language]


def _solved(prompt: Prompt) -> str:
    """A demonstration without its instruction, and the label of the right option behind its cue."""
    body = prompt.text[_body(prompt) :]
    label = prompt.letters[prompt.gold or 0] if prompt.letters else prompt.answer
    return body + ("" if body[-1:].isspace() else " ") + label


def _bare(prompt: Prompt) -> str:
    """A demonstration without instruction and cue."""
    return prompt.text[_body(prompt) : _end(prompt)].rstrip()


def _end(prompt: Prompt) -> int:
    """Where the cue begins, with which a prompt ends; else the end."""
    cues = [s for s in prompt.segments if s.name == CUE and not prompt.text[s.stop :].strip()]
    return cues[-1].start if cues else len(prompt.text)


def _asked_again(prompt: Prompt, restated: str, base: str) -> Prompt:
    """The prompt with a line in place of its cue: what follows is the question in the base language."""
    end = _end(prompt)
    kept = [s for s in prompt.segments if s.stop <= end]
    text = prompt.text[:end].rstrip()
    line = Segment("restated", len(text) + 1, len(text) + 1 + len(restated), base)
    return replace(prompt, text=f"{text}\n{restated}\n", segments=(*kept, line))


def relabeled(prompt: Prompt, letters: Sequence[str]) -> Prompt:
    """The prompt with other letters before its options, and in its instruction where that lists them all.

    Raises
    ------
    BabelScopeError
        If there are not as many as options, or two are alike.
    """
    if len(letters) != len(prompt.options) or len(set(letters)) != len(letters):
        raise BabelScopeError(
            f"item {prompt.item!r} has {len(prompt.options)} options, the letters are {''.join(letters)!r}",
            "write as many different characters behind ids-, as ids-1234",
        )
    edits = list(zip(letter_spans(prompt), letters, strict=True))
    listed = r"(?:\W+(?:\w+\W+)?)".join(rf"(?<!\w)({re.escape(x)})(?!\w)" for x in prompt.letters)
    for segment in (s for s in prompt.segments if s.name == INSTRUCTION):
        match = re.compile(listed).search(prompt.text, segment.start, segment.stop)
        if match is not None:
            edits += [(match.span(k + 1), letter) for k, letter in enumerate(letters)]
    text, segments = prompt.text, list(prompt.segments)
    for (start, stop), letter in sorted(edits, reverse=True):
        text = text[:start] + letter + text[stop:]
        shift = len(letter) - (stop - start)
        segments = [
            Segment(s.name, s.start + shift * (s.start >= stop), s.stop + shift * (s.stop >= stop), s.language)
            for s in segments
        ]
    return replace(prompt, text=text, segments=tuple(segments), letters=tuple(letters))
