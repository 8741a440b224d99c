"""Lexicons: words that mean the same in several languages, from a table or from our own aligned vocabularies."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from babelscope.datasets.facts import terms
from babelscope.datasets.text_units import word_spans
from babelscope.datasets.words import LANGUAGES, wording
from babelscope.errors import BabelScopeError

KEY = "key"  # a first column of this name is no language: it says which concept a row is


@dataclass(frozen=True)
class Lexicon:
    """Concepts and the word of each in every language that has one.

    Parameters
    ----------
    languages : tuple of str
    concepts : tuple of mapping
        Language -> word; a concept may lack languages.
    source : str
        Where it comes from, with the hash of a file.
    """

    languages: tuple[str, ...]
    concepts: tuple[Mapping[str, str], ...]
    source: str

    def words(self, language: str) -> tuple[str, ...]:
        """All words of a language, each spelling once, in the order of the concepts."""
        return self._words[language]

    def words_of_length(self, language: str, n_words: int) -> tuple[str, ...]:
        """Those entries of a language that consist of so many words, as `text_units.word_spans` counts them."""
        return self._by_length[language].get(n_words, ())

    @cached_property
    def _by_length(self) -> Mapping[str, Mapping[int, tuple[str, ...]]]:
        found: dict[str, dict[int, tuple[str, ...]]] = {g: {} for g in self.languages}
        for language, by_length in found.items():
            for word in self.words(language):
                n_words = len(word_spans(word))
                by_length[n_words] = (*by_length.get(n_words, ()), word)
        return found

    @cached_property
    def _words(self) -> Mapping[str, tuple[str, ...]]:
        return {g: tuple(dict.fromkeys(c[g] for c in self.concepts if g in c)) for g in self.languages}

    def found(self, text: str, language: str) -> list[tuple[int, int, int]]:
        """Words of the lexicon in a text, as (first character, character after the last, concept).

        From left to right, the longest entry first, and none inside another. Letter case does not count. A spelling of
        several concepts is the first of them.
        """
        known, longest = self._spellings[language]
        spans, found, place = word_spans(text), [], 0
        while place < len(spans):
            for last in range(min(place + longest, len(spans)) - 1, place - 1, -1):
                start, stop = spans[place][0], spans[last][1]
                concept = known.get(text[start:stop].casefold())
                if concept is not None:
                    found.append((start, stop, concept))
                    place = last
                    break
            place += 1
        return found

    @cached_property
    def _spellings(self) -> Mapping[str, tuple[Mapping[str, int], int]]:
        """Language -> concept by spelling, and how many words the longest entry has."""
        made = {}
        for language in self.languages:
            known: dict[str, int] = {}
            for number, concept in enumerate(self.concepts):
                if language in concept:
                    known.setdefault(concept[language].casefold(), number)
            made[language] = (known, max((len(word_spans(w)) for w in known), default=1))
        return made


@cache
def own_lexicon() -> Lexicon:
    """The nouns and adjectives of the generated prompts and the terms of the facts, in fourteen languages.

    Nouns and names for the most part: no verb, no function word, and base forms alone.
    """
    spoken = {language: wording(language) for language in LANGUAGES}
    concepts: list[Mapping[str, str]] = []
    for kind in ("nouns", "adjectives"):
        keys = getattr(spoken[LANGUAGES[0]], kind)
        concepts += [{g: str(getattr(w, kind)[key]) for g, w in spoken.items()} for key in keys]
    concepts += [{g: row[g] for g in LANGUAGES} for row in terms()]
    return Lexicon(LANGUAGES, tuple(concepts), "aligned vocabularies of the generated prompts")


def read_lexicon(path: str | Path) -> Lexicon:
    """The lexicon in a tab-separated file: a header row of language codes, then one concept a row.

    A first column called `key` is passed over. A cell may be empty, in languages that lack the concept.

    Parameters
    ----------
    path : str or Path
        UTF-8; quotes mean nothing.

    Raises
    ------
    BabelScopeError
        If the file cannot be read, its header does not name two languages, each once, a row has another number of cells
        than the header, or there is no row.
    """
    where = Path(path)
    try:
        data = where.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise BabelScopeError(f"{where}: cannot be read: {error.strerror}", "check the path of the lexicon") from None
    except UnicodeDecodeError:
        raise BabelScopeError(f"{where}: not UTF-8", "save the lexicon as UTF-8") from None
    rows = list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = [code.strip() for code in rows[0]] if rows else []
    languages = tuple(header[1:] if header[:1] == [KEY] else header)
    if len(languages) < 2 or len(set(languages)) < len(languages) or not all(languages):
        problem = f"{where}: the header does not name two or more languages, each once: {', '.join(header) or 'empty'}"
        raise BabelScopeError(problem, "begin with a row of language codes between tabs, as en<TAB>de<TAB>fr")
    concepts = tuple(_concept(where, number, header, cells) for number, cells in enumerate(rows[1:], start=2) if cells)
    if not concepts:
        raise BabelScopeError(f"{where}: no words follow the header", "write one concept a row")
    return Lexicon(languages, concepts, f"{where.name}, sha256 {hashlib.sha256(data).hexdigest()[:16]}")


def _concept(where: Path, number: int, header: Sequence[str], cells: Sequence[str]) -> Mapping[str, str]:
    if len(cells) != len(header):
        problem = f"{where}, line {number}: {len(cells)} cells, but the header has {len(header)}"
        raise BabelScopeError(problem, "leave a cell empty where a language lacks the word")
    return {code: cell.strip() for code, cell in zip(header, cells, strict=True) if cell.strip() and code != KEY}
