"""Words, sentences and numbers of prompts, by the marks between them: enough for counting, in any script."""

import re
import unicodedata
from functools import lru_cache

# Scripts that put no spaces between words: each character counts as one.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
# "and" is written as the first letter of the next word in Arabic and Hebrew.
_PREFIXED_AND = re.compile(r"(?<!\S)([وו])(?=\S\S)")
_SENTENCE_END = re.compile(r"[.!?؟。！？।\n]+")
_SENTENCE = re.compile(r"[^.!?؟。！？।\n]+[.!?؟。！？।]*")
_NUMBER = re.compile(r"\d+")


@lru_cache(maxsize=65536)
def words(text: str) -> tuple[str, ...]:
    """Words of a text in lower case, without marks; a digit counts as a letter."""
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text.lower())
    return tuple(_PREFIXED_AND.sub(r"\1 ", _UNSPACED.sub(r" \g<0> ", kept)).split())


@lru_cache(maxsize=65536)
def word_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Characters `[start, stop)` of each word of a text, in order; what lies between them belongs to no word.

    A word is a longest run of letters, digits and the marks on them, as in `words`. Chinese characters and Japanese
    kana are a word each: nothing in the text says where their words end. Nor does it in Thai, Lao, Khmer and
    Burmese, where a word here is whatever stands between spaces. Prefixed particles stay with their word.
    """
    spans: list[tuple[int, int]] = []
    alone = True  # whether the last character is a whole word
    for i, character in enumerate(text):
        category = unicodedata.category(character)[0]
        if category not in "LMN":
            continue
        follows = bool(spans) and spans[-1][1] == i
        unspaced = _UNSPACED.match(character) is not None
        if follows and (category == "M" or not (alone or unspaced)):
            spans[-1] = (spans[-1][0], i + 1)
        else:
            spans.append((i, i + 1))
            alone = unspaced
    return tuple(spans)


def sentences(text: str) -> list[str]:
    """The sentences of a text, without their end marks."""
    return [s for s in _SENTENCE_END.split(text) if s.strip()]


def whole_sentences(text: str) -> list[str]:
    """The sentences of a text, with their end marks and without the spaces between them."""
    return [s.strip() for s in _SENTENCE.findall(text) if s.strip()]


def sentence_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Characters `[start, stop)` of each of `whole_sentences`, in order."""
    found = (
        (m.start() + len(m[0]) - len(m[0].lstrip()), m.start() + len(m[0].rstrip())) for m in _SENTENCE.finditer(text)
    )
    return tuple((start, stop) for start, stop in found if start < stop)


def numbers(text: str) -> list[int]:
    """The whole numbers in a text."""
    return [int(n) for n in _NUMBER.findall(text)]
