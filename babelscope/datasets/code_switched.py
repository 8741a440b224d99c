"""Code-switched prompts: the context in one language, all else of the same item in another."""

from collections.abc import Sequence

from babelscope.datasets.language_pairs import parts_of
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment

CONTEXT = "context"


def in_languages(prompts: PromptSet, languages: Sequence[str]) -> PromptSet:
    """The prompts of some languages, in this order, where `a-b` stands for context in a and question in b.

    A language of the set that is called `a-b` itself is taken as it is; others are made by `code_switched`.

    Raises
    ------
    BabelScopeError
        If a language is neither in the set nor made of two that are, or as `code_switched`.
    """
    kept: list[Prompt] = []
    for code in dict.fromkeys(languages):
        pair = parts_of(code)
        made = pair is not None and code not in prompts.languages and {*pair} <= {*prompts.languages}
        if not made and code not in prompts.languages:
            raise unknown_name("language in these prompts", code, prompts.languages)
        kept += code_switched(prompts, code).prompts if made else prompts.of(code)
    return PromptSet(prompts.name, tuple(kept), prompts.source)


def code_switched(prompts: PromptSet, code: str) -> PromptSet:
    """The items of a pair of languages `a-b`, with the context in a and everything else in b.

    The text is that of b in which the text of each segment `context` is replaced by that of a: instruction,
    question, options and cue, and what stands between them, stay in b, and so do letters, options and answer.
    The language of the prompts is `a-b`, a code like any other to `capture` and `evaluate`; the segments keep the
    languages of their parts. Items that one of the languages lacks are left out.

    Foroutan et al. (2023), arXiv:2310.15258, section 2: context and question of the same item in different languages.

    Parameters
    ----------
    prompts : PromptSet
        With both languages.
    code : str
        Such as `en-fr`.

    Raises
    ------
    BabelScopeError
        If the code does not name two languages of the set, if they have no item in common, or if the two texts of an
        item do not belong together: another right option, another number of options or of context segments.
    """
    made = tuple(_switched(context, asked, code) for context, asked in _pairs(prompts, code))
    return PromptSet(prompts.name, made, prompts.source)


def partly_switched(prompts: PromptSet, code: str, share: float, *, name: str = CONTEXT) -> PromptSet:
    """The items of a pair of languages `a-b` with only the first sentences of the context in a.

    As `code_switched`, for prompts whose sentences are segments of their own (`sentences.sentence_segments`). The
    language of the prompts is the code and the percentage, as `en-fr-25`; with a share of 1 it is the code alone.

    Parameters
    ----------
    prompts : PromptSet
        With both languages.
    code : str
        Such as `en-fr`.
    share : float
        Of the sentences of each item that are in a, 0.01 to 1; rounded, and at least one sentence.
    name : str
        Of the segment whose sentences these are.

    Raises
    ------
    BabelScopeError
        As `code_switched`, for another share, and if an item has no segment `NAME-1`.
    """
    if share != 1 and not 1 <= round(100 * share) <= 99:
        raise BabelScopeError(f"a share of {share} of the sentences cannot be switched", "give 0.01 to 0.99, or 1")
    made, named = [], code if share == 1 else f"{code}-{round(100 * share):02d}"
    for context, asked in _pairs(prompts, code):
        total = sum(s.name.rpartition("-")[0] == name for s in asked.segments)
        first = frozenset(f"{name}-{k + 1}" for k in range(max(1, round(share * total))))
        made.append(_switched(context, asked, named, first))
    return PromptSet(prompts.name, tuple(made), prompts.source)


def _pairs(prompts: PromptSet, code: str) -> list[tuple[Prompt, Prompt]]:
    """The prompts of each item in the two languages of a code."""
    pair = parts_of(code)
    if pair is None or pair[0] == pair[1]:
        raise BabelScopeError(f"{code!r} does not name two languages", "write context-question, as en-fr")
    for language in pair:
        if language not in prompts.languages:
            raise unknown_name("language in these prompts", language, prompts.languages)
    contexts = {p.item: p for p in prompts.of(pair[0])}
    found = [(contexts[p.item], p) for p in prompts.of(pair[1]) if p.item in contexts]
    if not found:
        hint = "join translations by a key that is equal in both"
        raise BabelScopeError(f"prompt set {prompts.name!r}: {pair[0]} and {pair[1]} have no item in common", hint)
    return found


def _switched(context: Prompt, asked: Prompt, code: str, names: frozenset[str] = frozenset({CONTEXT})) -> Prompt:
    spans = [[s for s in p.segments if s.name in names] for p in (context, asked)]
    _check(context, asked, spans, min(names))
    text, segments, end = "", [], 0
    moved = {s: s for s in asked.segments}
    for theirs, own in zip(*spans, strict=True):
        text += asked.text[end : own.start]
        shift = len(text) - theirs.start
        segments += [_by(s, shift) for s in context.segments if _is_inside(s, theirs)]
        text += context.text[theirs.start : theirs.stop]
        end = own.stop
        for segment in asked.segments:
            if segment.start >= end:
                moved[segment] = _by(segment, len(text) - end)
            elif _is_inside(segment, own):
                moved.pop(segment, None)
    text += asked.text[end:]
    segments = sorted([*segments, *moved.values()], key=lambda s: (s.start, -s.stop))
    return Prompt(
        asked.item, code, text, tuple(segments), asked.letters, asked.options, asked.gold, asked.answer,
        asked.covariates,
    )  # fmt: skip


def _check(context: Prompt, asked: Prompt, spans: list[list[Segment]], name: str) -> None:
    pair = f"{context.language!r} and {asked.language!r}"
    if not all(spans):
        lacks = context.language if not spans[0] else asked.language
        problem = f"item {asked.item!r} in {lacks!r} has no segment {name!r}"
        raise BabelScopeError(problem, "switch between context and question needs both; use a set that has contexts")
    for what, a, b in (
        ("the right option", context.gold, asked.gold),
        ("the number of options", len(context.options), len(asked.options)),
        ("the number of context segments", len(spans[0]), len(spans[1])),
    ):
        if a != b:
            problem = f"item {asked.item!r}: {what} differs between {pair}: {a} and {b}"
            raise BabelScopeError(problem, "correct the key or the label: these are no translations of one item")


def _is_inside(segment: Segment, span: Segment) -> bool:
    return span.start <= segment.start and segment.stop <= span.stop


def _by(segment: Segment, shift: int) -> Segment:
    return Segment(segment.name, segment.start + shift, segment.stop + shift, segment.language)
