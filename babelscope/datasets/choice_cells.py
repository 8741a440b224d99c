"""Cells of a multiple-choice prompt: where its question and each option stand, and other texts in their place."""

import re
from collections.abc import Mapping
from dataclasses import replace

from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, Segment

QUESTION, OPTIONS, CUE = "question", "options", "cue"


def option_name(number: int) -> str:
    """Segment of an option, counted from 1."""
    return f"option-{number}"


def is_option(name: str) -> bool:
    """Whether a segment is an option of its own."""
    return re.fullmatch(r"option-\d+", name) is not None


def cells(prompt: Prompt) -> tuple[Segment, ...]:
    """The segments of the question and of the options, in this order, of a prompt `with_cells`."""
    names = [QUESTION, *(option_name(k + 1) for k in range(len(prompt.options)))]
    by_name = {s.name: s for s in prompt.segments}
    return tuple(by_name[name] for name in names)


def changed(prompt: Prompt, base: Prompt) -> tuple[bool, ...]:
    """Whether each cell has another text than in the base prompt of the item: numbers and names may well not."""
    return tuple(
        prompt.text[a.start : a.stop].strip() != base.text[b.start : b.stop].strip()
        for a, b in zip(cells(prompt), cells(base), strict=True)
    )


def effective_mix(prompt: Prompt, base: Prompt) -> float:
    """Share of the cells in another language whose text differs from the base prompt's; NaN where none is."""
    foreign = [s.language != base.language for s in cells(prompt)]
    differing = [c for c, is_foreign in zip(changed(prompt, base), foreign, strict=True) if is_foreign]
    return sum(differing) / len(differing) if differing else float("nan")


def with_cells(prompt: Prompt) -> Prompt:
    """The prompt with a segment for each option, `option-1` first, spanning its text without the letter.

    One that has them is returned as it is.

    Raises
    ------
    BabelScopeError
        If there are no options, letters or gold, not exactly one segment `question`, or a text is not where it should.
    """
    where = f"item {prompt.item!r} in {prompt.language!r}"
    if len(prompt.options) < 2 or prompt.gold is None or len(prompt.letters) != len(prompt.options):
        raise BabelScopeError(
            f"{where} has no options, each with a letter, one of them right", "mix sets of multiple-choice questions"
        )
    questions = [s for s in prompt.segments if s.name == QUESTION]
    if len(questions) != 1:
        raise BabelScopeError(
            f"{where} has {len(questions)} segments {QUESTION!r}, one is needed",
            'name the field so in the mapping, as text: "{stem:question}\\n{options}"',
        )
    if any(s.name == option_name(1) for s in prompt.segments):
        return prompt
    found = [
        Segment(option_name(k + 1), start, start + len(text), prompt.language)
        for k, (_, start, text) in enumerate(_located(prompt, where))
    ]
    segments = sorted([*prompt.segments, *found], key=lambda s: (s.start, -s.stop))
    return replace(prompt, segments=tuple(segments))


def letter_spans(prompt: Prompt) -> tuple[tuple[int, int], ...]:
    """Characters `[start, stop)` of the letter before each option; raises as `with_cells`."""
    found = _located(prompt, f"item {prompt.item!r} in {prompt.language!r}")
    return tuple((start, start + len(letter)) for (start, _, _), letter in zip(found, prompt.letters, strict=True))


def _located(prompt: Prompt, where: str) -> list[tuple[int, int, str]]:
    """Where each option's letter and text begin, and the text: the first place behind its letter and the option before.

    Between letter and text stand marks and spaces alone, so that a letter within another text is not taken for it, and
    the text does not go on behind its last letter, so that `1` is not found in `10`.
    """
    lists = [s for s in prompt.segments if s.name == OPTIONS]
    if len(lists) != 1:
        raise BabelScopeError(
            f"{where} has {len(lists)} segments {OPTIONS!r}, one is needed", "put {options} into the text once"
        )
    found, place, stop = [], lists[0].start, lists[0].stop
    for letter, option in zip(prompt.letters, prompt.options, strict=True):
        text = option.strip()
        end = r"(?!\w)" if re.search(r"\w\Z", text) else ""
        form = rf"(?<!\w){re.escape(letter)}([^\w\n]*){re.escape(text)}{end}"
        match = re.compile(form).search(prompt.text, place, stop) if text else None
        if match is None:
            raise BabelScopeError(
                f"{where}: option {text!r} does not stand behind its letter in the text",
                "show the options as they are given, each behind its letter",
            )
        found.append((match.start(), match.start() + len(letter) + len(match[1]), text))
        place = match.end()
    return found


def check_together(base: Prompt, other: Prompt) -> None:
    """Refuse two prompts that are no translations of one item; BabelScopeError says in what they differ."""
    for what, a, b in (
        ("the right option", base.gold, other.gold),
        ("the number of options", len(base.options), len(other.options)),
        ("the number of questions", 1, sum(s.name == QUESTION for s in other.segments)),
    ):
        if a != b:
            raise BabelScopeError(
                f"item {base.item!r}: {what} differs between {base.language!r} and {other.language!r}: {a} and {b}",
                "correct the key or the label: these are no translations of one item",
            )


def replaced(prompt: Prompt, code: str, texts: Mapping[str, tuple[str, str]]) -> Prompt:
    """The prompt with other texts in some cells, segment name -> (text, language), under a language code.

    Segments within a cell that is replaced are left out: they say nothing about the new text.
    """
    own = {s.name: s for s in cells(prompt)}
    edits = sorted(((own[name], *new) for name, new in texts.items()), key=lambda e: e[0].start)
    text, end, moves = "", 0, [(0, 0)]  # where a move begins, and by how much
    for segment, new, _ in edits:
        text += prompt.text[end : segment.start] + new
        end = segment.stop
        moves.append((end, len(text) - end))
    text += prompt.text[end:]
    spans = [(s.start, s.stop) for s, _, _ in edits]
    segments = []
    for s in prompt.segments:
        new_language = texts[s.name][1] if s.name in texts else s.language
        inside = s.name not in texts and any(a <= s.start and s.stop <= b for a, b in spans)
        if not inside:
            segments.append(Segment(s.name, _moved(s.start, moves), _moved(s.stop, moves), new_language))
    options = tuple(texts.get(option_name(k + 1), (option, ""))[0] for k, option in enumerate(prompt.options))
    answer = options[prompt.gold] if prompt.gold is not None else prompt.answer
    return replace(prompt, language=code, text=text, segments=tuple(segments), options=options, answer=answer)


def _moved(place: int, moves: list[tuple[int, int]]) -> int:
    """A place of the old text in the new one."""
    return place + [shift for begin, shift in moves if begin <= place][-1]
