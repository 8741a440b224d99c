"""Texts with some words translated, and the same texts with the same words replaced in ways that keep no meaning."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from babelscope.datasets.lexicon import Lexicon, own_lexicon
from babelscope.datasets.options import below
from babelscope.datasets.text_units import word_spans
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment

MIXED = "mixed"
# What stands at the places of the translated words instead.
RANDOM, DROPPED, WRONG, SAME = "random-token", "dropped", "wrong-word", "same-language"
CONTROLS = (RANDOM, DROPPED, WRONG, SAME)
VARIANTS = (MIXED, *CONTROLS)

NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content
RATE = 0.16

# For a word, a text of as many random tokens.
RandomText: TypeAlias = Callable[[str, np.random.Generator], str]


class Reached(NamedTuple):
    """What became of an item: words in its text, those that could be translated, were translated, were replaced."""

    item: str
    words: int
    candidates: int
    translated: int
    replaced: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A word that can be translated: where, into which language, as what, and how many words it is."""

    start: int
    stop: int
    words: int
    language: str
    translation: str


def perturbed(
    prompts: PromptSet, language: str, lexicon: Lexicon | None = None, *, translate_rate: float = RATE,
    replace_rate: float | None = None, random_text: RandomText | None = None, seed: int = 0,
) -> tuple[PromptSet, tuple[Reached, ...]]:  # fmt: skip
    """Texts of one language, the same mixed with words of other languages, and controls at the same places.

    arXiv:2406.16135 compares embeddings of texts with those of mixed-language ones, and with those in which random
    tokens were replaced or masked. Its code is not published, and what is known of it is second-hand: one reader has
    words translated at a rate of .16 each, into a random one of five languages with English among them, another a rate
    of .8 for translation and .16 for the baselines. So the two rates are parameters of their own, equal by default.
    Here every variant changes the *same* words: of those that can be translated an order is drawn, and each variant
    takes as many from its beginning as its rate asks for, at least one. No word is "translated" into its own language.

    | language | at these places |
    |---|---|
    | `mixed` | the word in a language drawn from those of the lexicon that spell it differently |
    | `random-token` | as many random tokens as the word has; without `random_text` random words of these texts |
    | `dropped` | nothing; this stands for a token that attention does not see, while later tokens move up |
    | `wrong-word` | another word of the lexicon in the language that was drawn for `mixed` |
    | `same-language` | another word of the lexicon in the language of the text |

    The last two have as many words as what they stand for, if the lexicon has others of that length.

    Parameters
    ----------
    prompts : PromptSet
    language : str
        Of the texts; others are left out.
    lexicon : Lexicon, optional
        Words that can be translated. Default: `own_lexicon`.
    translate_rate, replace_rate : float
        Of `mixed`, and of the controls (default: the same), as a share of all words of a text, above 0, to 1 at most.
        Where fewer words can be translated, fewer are: see `Reached`.
    random_text : callable, optional
        For a word and a random generator, a text of as many random tokens (`hooks.vocabulary.random_tokens`).
    seed : int
        Each item has its own random numbers, from the seed and its identifier.

    Returns
    -------
    prompts : PromptSet
        The languages are `language` and `VARIANTS`; options, gold, answer and covariates are those of the item.
        Segments keep their names and are cut where the language changes; random tokens are in `zxx`. A text without
        segments becomes one segment `text`. Words outside all segments stay.
    reached : tuple of Reached
        For every item of the language; those of which no word can be translated, or in which a segment or the text
        would be empty without its words, are left out of the prompts (translated and replaced are 0).

    Raises
    ------
    BabelScopeError
        For a rate out of range, a language that prompts or lexicon lack, or if no text has a word of the lexicon.
    """
    words = own_lexicon() if lexicon is None else lexicon
    rates = (translate_rate, translate_rate if replace_rate is None else replace_rate)
    for rate in rates:
        if not 0 < rate <= 1:
            raise BabelScopeError(f"a share of {rate} of the words cannot be changed", "give a rate above 0, to 1")
    if language not in prompts.languages:
        raise unknown_name("language in these prompts", language, prompts.languages)
    if language not in words.languages:
        raise unknown_name(f"language in the lexicon ({words.source})", language, words.languages)
    originals = [_with_segments(p) for p in prompts.of(language)]
    pool = _pool(originals) if random_text is None else ()
    made: dict[str, list[Prompt]] = {code: [] for code in (language, *VARIANTS)}
    reached = []
    for prompt in originals:
        places = _places(prompt, words, seed)
        total = len(word_spans(prompt.text))
        chosen = [_first(places, rate * total) for rate in rates]
        variants = _variants(prompt, chosen, words, random_text, pool, seed) if places else []
        whole = bool(variants) and all(_is_whole(v, prompt) for v in variants)
        counts = [sum(p.words for p in part) if whole else 0 for part in chosen]
        reached.append(Reached(prompt.item, total, sum(p.words for p in places), counts[0], counts[1]))
        if whole:
            for variant in (prompt, *variants):
                made[variant.language].append(variant)
    if not made[language]:
        problem = f"prompt set {prompts.name!r}: no text in {language} has a word that the lexicon translates"
        raise BabelScopeError(problem, f"use another lexicon than {words.source}")
    source = {
        "perturbed": dict(prompts.source), "language": language, "lexicon": words.source, "translate_rate": rates[0],
        "replace_rate": rates[1], "seed": seed, "dropped": "words are removed, which stands for masked attention",
        RANDOM: "random tokens of a vocabulary" if random_text else "random words of the texts of the set",
    }  # fmt: skip
    chosen_prompts = tuple(p for rows in made.values() for p in rows)
    return PromptSet(f"{prompts.name}-perturbed", chosen_prompts, source), tuple(reached)


def _rng(seed: int, item: str, purpose: str) -> np.random.Generator:
    """Random numbers of one item and purpose: what is drawn for one variant does not move what is for another."""
    digest = hashlib.sha256(f"perturbed/{seed}/{purpose}/{item}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def _with_segments(prompt: Prompt) -> Prompt:
    segments = prompt.segments or (Segment("text", 0, len(prompt.text), prompt.language),)
    return Prompt(
        prompt.item, prompt.language, prompt.text, segments, prompt.letters, prompt.options, prompt.gold, prompt.answer,
        prompt.covariates,
    )  # fmt: skip


def _pool(prompts: Sequence[Prompt]) -> tuple[str, ...]:
    spelled = {p.text[a:b] for p in prompts for a, b in word_spans(p.text)}
    return tuple(sorted(word for word in spelled if not word.isnumeric()))


def _places(prompt: Prompt, lexicon: Lexicon, seed: int) -> list[_Place]:
    """Words that can be translated, each with a language drawn for it, in the order in which they are changed."""
    rng = _rng(seed, prompt.item, "places")
    found = []
    for start, stop, number in lexicon.found(prompt.text, prompt.language):
        if not any(s.start <= start and stop <= s.stop for s in prompt.segments):
            continue
        word = prompt.text[start:stop]
        concept = lexicon.concepts[number]
        others = [g for g in lexicon.languages if g in concept and concept[g].casefold() != word.casefold()]
        if others:
            language = others[below(rng, len(others))]
            translation = _cased(concept[language], word, concept[prompt.language])
            found.append(_Place(start, stop, len(word_spans(word)), language, translation))
    return [found[k] for k in rng.permutation(len(found))]


def _cased(text: str, word: str, entry: str) -> str:
    """A text with a capital where the word has one that its entry does not have: at the beginning of a sentence."""
    raised = word[:1].isupper() and not entry[:1].isupper()
    return text[:1].upper() + text[1:] if raised else text


def _first(places: Sequence[_Place], wanted: float) -> list[_Place]:
    """The first places that hold as many words as wanted, at least one, in the order of the text."""
    taken: list[_Place] = []
    for place in places:
        if taken and sum(p.words for p in taken) >= math.floor(wanted + 0.5):
            break
        taken.append(place)
    return sorted(taken, key=lambda p: p.start)


def _variants(
    prompt: Prompt, chosen: Sequence[Sequence[_Place]], lexicon: Lexicon, random_text: RandomText | None,
    pool: Sequence[str], seed: int,
) -> list[Prompt]:  # fmt: skip
    translated, replaced = chosen
    own = prompt.language
    edits: dict[str, list[tuple[int, int, str, str]]] = {
        MIXED: [(p.start, p.stop, p.translation, p.language) for p in translated]
    }
    for code in CONTROLS:
        rng = _rng(seed, prompt.item, code)
        edits[code] = []
        for place in replaced:
            word = prompt.text[place.start : place.stop]
            if code == DROPPED:
                edits[code].append((*_with_space(prompt, place), "", own))
            elif code == RANDOM:
                drawn = (
                    random_text(word, rng)
                    if random_text
                    else " ".join(_other(pool, (word,), rng) for _ in range(place.words))
                )
                edits[code].append((place.start, place.stop, drawn, NO_LANGUAGE if random_text else own))
            else:
                language = place.language if code == WRONG else own
                alike = word if code == SAME else place.translation
                drawn = _other(_words_like(lexicon, language, alike, word), (word, place.translation), rng)
                raised = word[:1].isupper() and (code == SAME or place.translation[:1].isupper())
                drawn = drawn[:1].upper() + drawn[1:] if raised else drawn
                edits[code].append((place.start, place.stop, drawn, language))
    return [_edited(prompt, code, edits[code]) for code in VARIANTS]


def _words_like(lexicon: Lexicon, language: str, entry: str, word: str) -> Sequence[str]:
    """Words of a language that consist of as many words as an entry; all of them, if there is no other than these."""
    alike = lexicon.words_of_length(language, len(word_spans(entry)))
    return alike if {w.casefold() for w in alike} - {entry.casefold(), word.casefold()} else lexicon.words(language)


def _other(words: Sequence[str], but: Sequence[str], rng: np.random.Generator) -> str:
    avoided = {w.casefold() for w in but}
    if all(w.casefold() in avoided for w in words):
        raise BabelScopeError(
            f"there is no other word to put in the place of {but[0]!r}", "use a lexicon and texts of more words"
        )
    while True:
        word = words[below(rng, len(words))]
        if word.casefold() not in avoided:
            return word


def _with_space(prompt: Prompt, place: _Place) -> tuple[int, int]:
    """A word with the space before it, or else the one after it, as far as that is in the same segment."""
    inside = [s for s in prompt.segments if s.start <= place.start and place.stop <= s.stop]
    low, high = max(s.start for s in inside), min(s.stop for s in inside)
    if place.start > low and prompt.text[place.start - 1] == " ":
        return place.start - 1, place.stop
    if place.stop < high and prompt.text[place.stop] == " ":
        return place.start, place.stop + 1
    return place.start, place.stop


def _edited(prompt: Prompt, code: str, edits: Sequence[tuple[int, int, str, str]]) -> Prompt:
    """The prompt with characters replaced, and its segments cut where an edit is in another language."""
    text, end = "", 0
    runs: list[tuple[int, int, int, int, str]] = []  # old and new span, language ("": that of the segment)
    for start, stop, replacement, language in (*edits, (len(prompt.text), len(prompt.text), "", "")):
        runs.append((end, start, len(text), len(text) + start - end, ""))
        text += prompt.text[end:start]
        runs.append((start, stop, len(text), len(text) + len(replacement), language))
        text += replacement
        end = stop
    segments: list[Segment] = []
    for segment in prompt.segments:
        cut: list[Segment] = []
        for old_start, old_stop, new_start, new_stop, language in runs:
            low, high = max(old_start, segment.start), min(old_stop, segment.stop)
            if low >= high:
                continue
            # An edit lies inside a segment or outside of it, and is taken whole.
            at = (new_start, new_stop) if language else (new_start + low - old_start, new_start + high - old_start)
            spoken = language or segment.language
            if cut and cut[-1].language == spoken and cut[-1].stop == at[0]:
                at = (cut.pop().start, at[1])
            if at[0] < at[1]:
                cut.append(Segment(segment.name, *at, spoken))
        segments += cut
    return Prompt(
        prompt.item, code, text, tuple(segments), prompt.letters, prompt.options, prompt.gold, prompt.answer,
        prompt.covariates,
    )  # fmt: skip


def _is_whole(variant: Prompt, prompt: Prompt) -> bool:
    """Whether a variant has a text in every segment that the prompt has one in."""
    named = {s.name for s in prompt.segments if s.start < s.stop}
    return bool(word_spans(variant.text)) and all(variant.segment(name).strip() for name in named)
