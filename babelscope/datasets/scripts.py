"""Which script a text is written in, as Unicode names its letters."""

import unicodedata
from collections import Counter
from collections.abc import Iterable

NO_SCRIPT = "no script"  # digits, marks and spaces

# First words of names of letters that belong to several scripts or to none.
_SHARED = {"MODIFIER", "COMBINING", "FEMININE", "MASCULINE", "MICRO", "IDEOGRAPHIC", "VARIATION"}
_RENAMED = {"CJK": "Han"}


def main_script(texts: Iterable[str]) -> str:
    """The script of most letters of some texts, the first of them where two have as many."""
    counts = Counter(script for text in texts for c in text if (script := script_of(c)))
    return counts.most_common(1)[0][0] if counts else NO_SCRIPT


def script_of(character: str) -> str:
    """Unicode script of a letter or of a mark on one, "" for anything else.

    The first word of a letter's name in Unicode, which is its script but for letters that several scripts share.
    """
    found = ""
    for c in unicodedata.normalize("NFKC", character):
        if unicodedata.category(c)[0] in "LM":
            word = unicodedata.name(c, "").split(" ")[0]
            if word and "-" not in word and word not in _SHARED:
                found = found or _RENAMED.get(word, word.capitalize())
    return found
