"""Sentences of a segment as segments of their own, where translations have as many of them."""

from dataclasses import replace

from babelscope.datasets.text_units import sentence_spans
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment


def sentence_segments(prompts: PromptSet, name: str) -> tuple[PromptSet, float]:
    """The prompts with the sentences of a segment in its place, named `NAME-1`, `NAME-2` and so on.

    Sentence k of an item is then the same unit in every language, which holds where texts are translated sentence by
    sentence. Items whose numbers of sentences differ between languages, or that a language lacks, are left out.

    Parameters
    ----------
    prompts : PromptSet
    name : str
        Of the segment, such as `context`.

    Returns
    -------
    prompts : PromptSet
    coverage : float
        Share of the items that are kept.

    Raises
    ------
    BabelScopeError
        If no prompt has the segment, or no item has as many sentences in all languages.
    """
    known = {s.name for p in prompts.prompts for s in p.segments}
    if name not in known:
        raise unknown_name("segment of these prompts", name, known)
    split = {(p.item, p.language): _split(p, name) for p in prompts.prompts}
    kept = [item for item in prompts.items if _agree(split, item, prompts.languages, name)]
    if not kept:
        raise BabelScopeError(
            f"prompt set {prompts.name!r}: no item has as many sentences of {name!r} in all languages",
            "use the segment as a whole, or fewer languages",
        )
    chosen = tuple(split[item, language] for language in prompts.languages for item in kept)
    return PromptSet(prompts.name, chosen, prompts.source), len(kept) / len(prompts.items)


def _split(prompt: Prompt, name: str) -> Prompt:
    found, number = [], 0
    for segment in prompt.segments:
        if segment.name != name:
            found.append(segment)
            continue
        for start, stop in sentence_spans(prompt.text[segment.start : segment.stop]):
            number += 1
            at = segment.start
            found.append(Segment(f"{name}-{number}", at + start, at + stop, segment.language))
    return replace(prompt, segments=tuple(found))


def _agree(split: dict[tuple[str, str], Prompt], item: str, languages: tuple[str, ...], name: str) -> bool:
    counts = {
        sum(s.name.startswith(f"{name}-") for s in split[item, g].segments) if (item, g) in split else None
        for g in languages
    }
    return len(counts) == 1 and counts != {None}
