"""The language of each token of a prompt."""

from collections.abc import Sequence

from babelscope.schema import Prompt


def languages_of(prompt: Prompt, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The language of each token, from the character span of each; (0, 0) for those that a tokenizer adds.

    A token has the language of the last segment that its characters reach: to many tokenizers a word begins with the
    space before it. One that reaches none, as separators and special tokens do, has that of the token before it; those
    at the beginning that of the first one that has any: so [CLS] belongs to the context, and the last [SEP] to the
    question (arXiv:2310.15258, the authors' preparation of data). A prompt whose segments name one language is
    monolingual.
    """
    found: list[str] = []
    for begin, end in spans:
        reached = [s for s in prompt.segments if begin < end and s.start < end and begin < s.stop]
        last = max(reached, key=lambda s: min(s.stop, end), default=None)
        found.append(last.language if last else (found[-1] if found else ""))
    first = next((code for code in found if code), prompt.language)
    return [code or first for code in found]
