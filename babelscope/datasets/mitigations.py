"""What may help with mixed-language questions: a sentence, demonstrations, translating first, other letters.

Chua et al. (2024), arXiv:2406.16135. Each is a variant of every setting, `mixup+awareness-1` beside `mixup`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from babelscope.datasets.choice_cells import letter_spans
from babelscope.datasets.demonstrations import Demonstrations, body_start, put_in
from babelscope.datasets.language_files import is_code
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet

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

IDS = "ids-"
NAMES = {
    "awareness-1": "a sentence that languages may differ",
    "awareness-2": "a sentence that meaning counts, not language",
    "english-shots": "demonstrations in the base language",
    "same-shots": "demonstrations in the setting of the question, which give away what is foreign in it",
    "translate": "demonstrations that say question and options again in the base language, then answer",
    "ids-1234": "digits for letters",
    "ids-CDEF": "other letters: any of `ids-` and at least as many letters or digits as there are options",
}
NEED_DEMONSTRATIONS = frozenset({"english-shots", "same-shots", "translate"})


def mitigated(
    mixed: PromptSet, names: Sequence[str], *, base: str = "en", demonstrations: PromptSet | None = None, shots: int = 5
) -> PromptSet:
    r"""A set of mixed-language questions with variants of every setting behind it, the base among them.

    `translate` asks for free text. A prompt shows demonstrations and ends in the line `In English:` and a line break in
    place of its cue. What follows in a demonstration, and is expected of a model, is the question, the options on
    lines with their letters, both in English, and on the last line the cue and a label: `Answer: B`, where the cue is
    that of the prompts in the base language. What answers is the last line of that form.

    ::

        Welche Farbe hat der Himmel?
        A) blau
        B) red
        In English:
        What is the color of the sky?
        A) blue
        B) red
        Answer: A

    Parameters
    ----------
    mixed : PromptSet
        Of `mixed_choice`.
    names : sequence of str
        Of `NAMES`; one a variant, they are not combined.
    base : str
    demonstrations : PromptSet, optional
        Other items in the same settings (of `mixed_choice`, too), for `NEED_DEMONSTRATIONS`: the first `shots` of the
        kind of a question (`demonstrations.KINDS`), in their order.
    shots : int

    Returns
    -------
    PromptSet
        The prompts of `mixed`, then those of each variant. New segments: `awareness`, `restated`, and `demonstrations`
        for each run of demonstrations that is in one language.

    Raises
    ------
    BabelScopeError
        For an unknown name, demonstrations that are missing, too few or among the questions, letters that do not fit,
        or a base language for which there is no wording.
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
    """What a mitigation makes of a prompt."""
    if "+" in name:
        raise BabelScopeError(f"{name}: mitigations are not combined", "name each with a --mitigation of its own")
    if name.startswith(IDS):
        if not is_code(f"{base}+{name}"):
            raise BabelScopeError(f"{name}: labels are letters a-z, A-Z or digits, up to ten", "write it as ids-1234")
        letters = tuple(name.removeprefix(IDS))
        return lambda prompt: relabeled(prompt, letters)
    if name not in NAMES:
        raise unknown_name("mitigation", name, NAMES)
    if name not in NEED_DEMONSTRATIONS:
        sentence = _said(AWARENESS, base, name)[int(name[-1]) - 1]
        return lambda prompt: put_in(prompt, body_start(prompt), [(sentence, base)], "awareness", "\n")
    if demonstrations is None:
        raise BabelScopeError(f"{name} needs demonstrations", "name other items with --demos, as a train split")
    shown = Demonstrations(demonstrations, mixed, base, shots)
    if name == "translate":
        line = _said(RESTATED, base, name)
        return lambda prompt: shown.restating(prompt, prompt.language, line)
    return lambda prompt: shown.before(prompt, base if name == "english-shots" else prompt.language)


def _said(table: Mapping[str, Said], base: str, name: str) -> Said:
    if base not in table:
        raise BabelScopeError(
            f"{name} has no wording in {base!r}, only in {', '.join(table)}", "mix with another base, or leave it out"
        )
    return table[base]


def relabeled(prompt: Prompt, letters: Sequence[str]) -> Prompt:
    """The prompt with other letters before its options, and in its instruction where that lists them all.

    Parameters
    ----------
    prompt : Prompt
    letters : sequence of str
        All different; the first ones are taken where there are fewer options.

    Raises
    ------
    BabelScopeError
        If there are too few, two are alike, or these are the letters that the prompt has.
    """
    if len(letters) < len(prompt.options) or len({x.casefold() for x in letters}) < len(letters):
        raise BabelScopeError(
            f"item {prompt.item!r} has {len(prompt.options)} options, the letters are {''.join(letters)!r}",
            "write as many different characters behind ids-, as ids-1234",
        )
    letters = tuple(letters[: len(prompt.options)])
    if letters == prompt.letters:
        raise BabelScopeError(f"{''.join(letters)} are the letters that the questions have", "name others")
    edits = list(zip(letter_spans(prompt), letters, strict=True))
    listed = r"\W+(?:\w+\W+)?".join(rf"(?<!\w)({re.escape(x)})(?!\w)" for x in prompt.letters)
    for segment in (s for s in prompt.segments if s.name == "instruction"):
        match = re.compile(listed).search(prompt.text, segment.start, segment.stop)
        if match is not None:
            edits += [(match.span(k + 1), letter) for k, letter in enumerate(letters)]
    text, segments = prompt.text, list(prompt.segments)
    for (start, stop), letter in sorted(edits, reverse=True):
        text = text[:start] + letter + text[stop:]
        shift = len(letter) - (stop - start)
        segments = [
            replace(s, start=s.start + shift * (s.start >= stop), stop=s.stop + shift * (s.stop >= stop))
            for s in segments
        ]
    return replace(prompt, text=text, segments=tuple(segments), letters=letters)
