"""Prompts that ask for a translation, out of parallel texts."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from babelscope.datasets.language_names import language_name
from babelscope.datasets.language_pairs import parts_of
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment

# `en-to-de`: a language code like any other to a store, and never a pair `a-b`, which has two parts.
TO = "-to-"


def direction_of(code: str) -> tuple[str, str] | None:
    """The two languages of a code such as `en-to-de` or `zh-Hant-to-en`; None if it is no direction."""
    source, to, target = code.partition(TO)
    return (source, target) if to and parts_of(f"{source}-{target}") == (source, target) else None


def translation_prompts(
    prompts: PromptSet, pairs: Sequence[str], *, shots: int = 4, segment: str = "", seed: int = 0
) -> PromptSet:
    """Prompts that ask for a translation of every item, in one or more directions.

    An instruction in English that names the two languages, demonstrations, the text, and the name of the language in
    which to go on. The wording is our own: `Translate from English into German.`, and for each text a line
    `English: ...` and a line `German: ...`. Demonstrations are other items, drawn for each item from the seed and its
    identifier, the same ones in all directions; never one whose text is that of the item in any of the languages.

    Texts are put on one line each, as what follows the first line of a continuation does not count. Of items with the
    same texts in all of the languages, as questions about one paragraph have, the first is kept.

    Parameters
    ----------
    prompts : PromptSet
        With all of the languages. Items that one of them lacks are left out.
    pairs : sequence of str
        Directions such as `en-de`, `de-en`.
    shots : int
        Demonstrations.
    segment : str
        Name of the segment that is translated; "" for the whole text.
    seed : int
        Another one draws other demonstrations.

    Returns
    -------
    PromptSet
        The language of a direction is `en-to-de`, `answer` the reference. Segments: `instruction`, `demonstrations`,
        `question` (the text, in its own language) and `cue`. Covariates are those of the items.

    Raises
    ------
    BabelScopeError
        If a pair does not name two languages of the set, a prompt lacks the segment, or there are fewer other items
        than demonstrations.
    """
    if shots < 0:
        raise BabelScopeError(f"{shots} demonstrations cannot be shown", "give --shots 0 or more")
    directions = [_direction(prompts, pair) for pair in dict.fromkeys(pairs)]
    if not directions:
        raise BabelScopeError("no direction was named", "write --pairs en-de,de-en")
    languages = list(dict.fromkeys(code for pair in directions for code in pair))
    texts = _texts(prompts, languages, segment)
    covariates = {p.item: p.covariates for p in prompts.prompts}
    if shots and len(texts) <= shots:
        raise BabelScopeError(
            f"prompt set {prompts.name!r}: {shots} demonstrations need {shots + 1} items with different texts, not "
            f"{len(texts)}",
            "give fewer --shots or more items",
        )
    made = []
    for source, target in directions:
        for item in texts:
            shown = [texts[other] for other in _demonstrations(texts, item, shots, seed)]
            made.append(_prompt(item, (source, target), texts[item], shown, covariates[item]))
    about = {"texts": dict(prompts.source), "segment": segment, "shots": shots, "seed": seed}
    return PromptSet(f"{prompts.name}-translation", tuple(made), about)


Texts = dict[str, str]


def _direction(prompts: PromptSet, pair: str) -> tuple[str, str]:
    found = parts_of(pair)
    if found is None or found[0] == found[1]:
        raise BabelScopeError(f"{pair!r} does not name two languages", "write source-target, as en-de")
    for language in found:
        if language not in prompts.languages:
            raise unknown_name("language in these prompts", language, prompts.languages)
    return found


def _texts(prompts: PromptSet, languages: Sequence[str], segment: str) -> dict[str, Texts]:
    """Item -> language -> text on one line; items that a language lacks are left out, and those that repeat another."""
    found: dict[str, Texts] = {}
    for prompt in prompts.prompts:
        if prompt.language in languages:
            text = " ".join((prompt.segment(segment) if segment else prompt.text).split())
            if not text:
                problem = f"item {prompt.item!r} in {prompt.language!r} has no segment {segment!r}"
                names = dict.fromkeys(s.name for s in prompt.segments)
                raise BabelScopeError(problem, f"it has: {', '.join(names) or 'none; leave out --segment'}")
            found.setdefault(prompt.item, {})[prompt.language] = text
    seen: set[tuple[str, ...]] = set()
    kept: dict[str, Texts] = {}
    for item, texts in found.items():
        if len(texts) == len(languages):
            told = tuple(texts[language] for language in languages)
            if told not in seen:
                kept[item] = texts
            seen.add(told)
    if not kept:
        problem = f"prompt set {prompts.name!r}: no item is there in all of {', '.join(languages)}"
        raise BabelScopeError(problem, "join translations by a key that is equal in all of them")
    return kept


def _demonstrations(texts: dict[str, Texts], item: str, shots: int, seed: int) -> list[str]:
    """Other items in random order, without those that show the text to be translated or its translation."""
    if not shots:
        return []
    digest = hashlib.sha256(f"translation/{seed}/{item}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    names, own = list(texts), texts[item]
    # Drawn by random keys of the items themselves: a smaller set of items would shift what indices mean.
    found: list[str] = []
    for place in rng.permutation(len(names)):
        other = texts[names[place]]
        if names[place] != item and not any(other[g] == own[g] for g in own):
            found.append(names[place])
        if len(found) == shots:
            return found
    most = Counter(t for other in texts.values() for t in other.values()).most_common(1)[0][1]
    raise BabelScopeError(
        f"item {item!r}: fewer than {shots} other items have other texts (one text occurs {most} times)",
        "give fewer --shots, or another --segment",
    )


def _prompt(item: str, direction: tuple[str, str], own: Texts, shown: Sequence[Texts], covariates: object) -> Prompt:
    source, target = direction
    names = language_name(source), language_name(target)
    text = ""
    segments: list[Segment] = []

    def add(part: str, name: str, language: str, after: str = "") -> None:
        nonlocal text
        segments.append(Segment(name, len(text), len(text) + len(part), language))
        text += part + after

    add(f"Translate from {names[0]} into {names[1]}.", "instruction", "en", "\n\n")
    for demonstration in shown:
        for language, name, after in ((source, names[0], "\n"), (target, names[1], "\n\n")):
            add(f"{name}: ", "demonstrations", "en")
            add(demonstration[language], "demonstrations", language, after)
    text += f"{names[0]}: "
    add(own[source], "question", source, "\n")
    add(f"{names[1]}:", "cue", "en")
    made = dict(covariates) if isinstance(covariates, dict) else {}
    return Prompt(item, f"{source}{TO}{target}", text, tuple(segments), answer=own[target], covariates=made)
