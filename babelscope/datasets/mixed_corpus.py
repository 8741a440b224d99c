"""Mixed-language corpora out of parallel ones: each unit of a document in a language drawn for it."""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, TypeAlias, get_args

import numpy as np

from babelscope.datasets.dataset import item_rng
from babelscope.datasets.multiple_choice import check_choice
from babelscope.datasets.options import below
from babelscope.datasets.text_units import word_spans
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment

Unit: TypeAlias = Literal["document", "sentence", "chunk", "unmixed"]
MIXED = "mixed"
CHUNK = 8  # words of the first language


def mixed_corpus(
    prompts: PromptSet, unit: Unit, *, languages: Sequence[str] | None = None, run: int = 1, seed: int = 0
) -> PromptSet:
    """The documents of a parallel corpus, each unit in a language drawn uniformly from all of them, in order.

    arXiv:2406.16135, section on mixed-language fine-tuning: units document, sentence, and chunks of eight words within
    a sentence. The controls are the same call: with one language the plain corpus; `unmixed` the same amount of other
    languages without a switch within a document, every language for equally many documents (give or take one);
    `run` another frequency of switches in the same documents.

    The paper has each unit translated by itself; here the sentences are translated already, and a chunk is cut out
    of them by position. Chunk k of a sentence of w words in the *first* of the languages ends after word min(8 (k +
    1), w), and in a translation of v words after word round(v min(8 (k + 1), w) / w). So a sentence has as many
    chunks in all languages, chunk k covers the same share of each, and neighboring chunks of one language stand as
    they stood. Nothing aligns the words: where the languages order them differently, a word near a seam may be said
    twice or not at all, and in a translation of fewer words than chunks some chunks are empty. Words are counted as
    `text_units.word_spans` does: every Chinese character and kana is one.

    Parameters
    ----------
    prompts : PromptSet
        An item is a document, its text has one sentence on each line. Documents that a language lacks are left out.
    unit : "document", "sentence", "chunk" or "unmixed"
    languages : sequence of str, optional
        Default: all of the set, in its order.
    run : int
        Sentences or chunks in a row for which a language is drawn at once; 1 draws for each.
    seed : int

    Returns
    -------
    PromptSet
        One text a document, all in the language `mixed`, or in the one language there is. Segments `text` say which
        characters are in which language. Covariates: unit, run, and switches, the changes of language in the text.

    Raises
    ------
    BabelScopeError
        If a language is not in the set, or an item has not as many sentences in all of them (it is named).
    """
    check_choice("unit", unit, get_args(Unit))
    codes = tuple(dict.fromkeys(prompts.languages if languages is None else languages))
    missing = next((c for c in codes if c not in prompts.languages), None)
    if missing is not None:
        raise unknown_name("language in these prompts", missing, prompts.languages)
    if run < 1 or (run > 1 and unit not in ("sentence", "chunk")):
        hint = "give 1 or more sentences or chunks; a document has one language in any case"
        raise BabelScopeError(f"a language cannot be drawn for a run of {run} with the unit {unit!r}", hint)
    shared = prompts.select(languages=codes).parallel()
    by_language = [shared.of(code) for code in codes]
    dealt = _dealt(len(shared.items), len(codes), seed)
    made = []
    for n, translations in enumerate(zip(*by_language, strict=True)):
        split = [tuple(line.strip() for line in p.text.splitlines() if line.strip()) for p in translations]
        _check(translations, split)
        rng = item_rng(f"{MIXED}/{unit}", seed, n)
        drawn = iter([dealt[n]]) if unit == "unmixed" else _drawn(rng, len(codes), run)
        pieces = _pieces(split, unit, drawn)
        made.append(_record(translations[0].item, codes, pieces, unit, run))
    source = {"corpus": dict(prompts.source), "languages": list(codes), "unit": unit, "run": run, "seed": seed}
    return PromptSet(f"{prompts.name}-{unit}", tuple(made), source)


def _dealt(documents: int, languages: int, seed: int) -> list[int]:
    """A language for each document, every one equally often, give or take one, and which one at random."""
    rng = item_rng(f"{MIXED}/dealt", seed, 0)
    dealt: list[int] = (rng.permutation(documents) % languages).tolist()
    return dealt


def _drawn(rng: np.random.Generator, languages: int, run: int) -> Iterator[int]:
    while True:
        language = below(rng, languages)
        yield from [language] * run


def _check(translations: Sequence[Prompt], split: Sequence[Sequence[str]]) -> None:
    for prompt, sentences in zip(translations, split, strict=True):
        if len(sentences) != len(split[0]):
            raise BabelScopeError(
                f"item {prompt.item!r} has {len(sentences)} sentences in {prompt.language!r}, but {len(split[0])} in "
                f"{translations[0].language!r}",
                "write one sentence on each line, the same ones in every language",
            )


def _pieces(split: Sequence[Sequence[str]], unit: Unit, drawn: Iterator[int]) -> Iterator[tuple[str, int]]:
    """Texts in order, each with the index of its language; those that a draw leaves empty are passed over."""
    if unit in ("document", "unmixed"):
        language = next(drawn)
        yield from ((sentence, language) for sentence in split[language])
        return
    for sentence in zip(*split, strict=True):
        if unit == "sentence":
            language = next(drawn)
            yield sentence[language], language
            continue
        cuts = [_cuts(text, sentence[0]) for text in sentence]
        chosen = [(k, next(drawn)) for k in range(len(cuts[0]) - 1)]
        parts = []
        # Neighbors of one language are cut out together, with what stands between them.
        for language, group in groupby(chosen, lambda pair: pair[1]):
            ks = [k for k, _ in group]
            text = sentence[language][cuts[language][ks[0]] : cuts[language][ks[-1] + 1]].strip()
            if text:
                parts.append((text, language))
        # Translations of fewer words than chunks may be drawn just where they say nothing.
        yield from parts or [(sentence[chosen[0][1]], chosen[0][1])]


def _cuts(text: str, reference: str) -> list[int]:
    """Characters at which the chunks of a sentence begin, and the end of the last one."""
    spans, words = word_spans(text), len(word_spans(reference))
    inner = [round(len(spans) * CHUNK * k / words) for k in range(1, math.ceil(words / CHUNK))]
    return [0, *(_before(text, spans, n) for n in inner), len(text)]


def _before(text: str, spans: Sequence[tuple[int, int]], n: int) -> int:
    """Where word n begins, with the marks that open it: after the last space before it, if there is one."""
    if n == 0 or n >= len(spans):
        return 0 if n == 0 else len(text)
    before, start = spans[n - 1][1], spans[n][0]
    return next((i + 1 for i in range(start - 1, before - 1, -1) if text[i].isspace()), start)


def _record(item: str, codes: Sequence[str], pieces: Iterator[tuple[str, int]], unit: Unit, run: int) -> Prompt:
    text = ""
    segments: list[Segment] = []
    for piece, language in pieces:
        text += " " if text and not (_is_wide(text[-1]) and _is_wide(piece[0])) else ""
        continues = segments and segments[-1].language == codes[language]
        start = segments.pop().start if continues else len(text)
        text += piece
        segments.append(Segment("text", start, len(text), codes[language]))
    language_code = MIXED if len(codes) > 1 else codes[0]
    covariates = {"unit": unit, "run": run, "switches": len(segments) - 1}
    return Prompt(item, language_code, text, tuple(segments), covariates=covariates)


def _is_wide(character: str) -> bool:
    """Whether a character is of a script that puts no spaces between sentences; Korean, as wide, puts them."""
    return unicodedata.east_asian_width(character) in "WF" and "HANGUL" not in unicodedata.name(character, "")
