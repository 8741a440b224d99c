"""Which option a model means by what it wrote behind a prompt."""

import re
import unicodedata
from collections.abc import Sequence

from babelscope.schema import Prompt

_OPENING, _CLOSING = r"[\s(\[{\"'*_`]*", r"[)\]}\"'*_`]*"
# A label stands alone: "B", "(B)", "B.", "B: Paris", "B) Paris"; not "Bern", "1.5" or "A cat".
_ALONE = rf"{_CLOSING}\s*(?:$|[.):,;\-](?!\d))"


def written_option(prompt: Prompt, written: str) -> int | None:
    """Index of the option that a text names, or None where none can be read, or more than one.

    What is looked for, the first that is found counts:

    1. where the prompt ends in its cue (`Answer:`), a label that stands alone at the start of the text;
    2. the last line that has the cue, or `Answer:`, and behind it a label alone or the text of an option;
    3. a label that stands alone at the start of the text, whatever the prompt ends in;
    4. the text of one option at the start of the first line.

    A model that goes on with another question and answers it, too, would be taken at its last word by 2, hence 1.
    Case, brackets, full stops and the width of letters count for nothing. A label with more behind it, as in `A cat`,
    is read only where that is the text of its option.

    Parameters
    ----------
    prompt : Prompt
        With `letters`, and `options` where texts are kept.
    written : str
        The continuation.
    """
    labels = [_plain(label) for label in prompt.letters]
    options = [_plain(option) for option in prompt.options]
    lines = [line for line in map(_plain, written.splitlines()) if line]
    if not lines:
        return None
    cue = _plain(_cue(prompt))
    if cue and _plain(prompt.text).endswith(cue):
        at_once = _label(lines[0], labels, options)
        if at_once is not None:
            return at_once
    for line in reversed(lines):
        behind = _behind_cue(line, cue)
        if behind is not None:
            named = _label(behind, labels, options)
            named = _option(behind, options) if named is None else named
            if named is not None:
                return named
    named = _label(lines[0], labels, options)
    return _option(lines[0], options) if named is None else named


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def _cue(prompt: Prompt) -> str:
    """What the prompt asks for the answer with: its segment `cue`, else its last line where that ends in a colon."""
    last = prompt.text.rstrip().rpartition("\n")[2]
    return prompt.segment("cue") or (last if _plain(last).endswith(":") else "")


def _behind_cue(line: str, cue: str) -> str | None:
    """What a line has behind the cue, or behind `answer:`."""
    found = [line.rpartition(mark)[2] for mark in (cue, "answer:") if mark and mark in line]
    return min(found, key=len) if found else None


def _label(text: str, labels: Sequence[str], options: Sequence[str]) -> int | None:
    """The label at the start of a text, if it stands alone or before the text of its own option."""
    found = []
    for index, label in enumerate(labels):
        match = re.match(rf"{_OPENING}{re.escape(label)}(?!\w)", text)
        if match is None:
            continue
        own = index < len(options) and options[index] and text[match.end() :].strip(" .:)-") == options[index]
        if own or re.match(_ALONE, text[match.end() :]):
            found.append(index)
    return found[0] if len(found) == 1 else None


def _option(text: str, options: Sequence[str]) -> int | None:
    """The one option whose text stands at the start; of options that begin alike, the longest."""
    text = re.sub(f"^{_OPENING}", "", text)
    found = {
        index: len(option)
        for index, option in enumerate(options)
        if option and re.match(rf"{re.escape(option)}(?!\w)", text)
    }
    longest = [index for index, length in found.items() if length == max(found.values())]
    return longest[0] if len(longest) == 1 else None
