"""Two texts of one inference item in two languages, as code-switched pre-training reads them."""

import hashlib
from collections.abc import Sequence

from babelscope.datasets.language_pairs import parts_of
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Prompt, PromptSet, Segment


def nli_pairs(
    prompts: PromptSet,
    codes: Sequence[str],
    *,
    parallel: bool = True,
    swap: bool = False,
    seed: int = 0,
    texts: tuple[str, str] = ("premise", "hypothesis"),
) -> PromptSet:
    """A text in language a and a text in language b of each item, for each pair `a-b`.

    Foroutan et al. (2023), arXiv:2310.15258, pre-train their cross-lingual query on such pairs of XNLI. Their orders
    are `en-x` (code `en-fr`), `x-en` (code `fr-en`) and `x-x` (`swap`).

    Parameters
    ----------
    prompts : PromptSet
        Each with the segments that `texts` names.
    codes : sequence of str
        Such as `en-fr`, `en-de`.
    parallel : bool
        Whether the second text is the same premise (their `is_parallel`, their default), or else the hypothesis.
    swap : bool
        Whether half of the items, by a hash of the item, have the two languages the other way round. Their language is
        then `b-a`. The premise comes first in any case.
    seed : int
        Another one swaps other items.
    texts : tuple of str
        Segments that are the first text and the second; the default is what the mapping `xnli` makes.

    Returns
    -------
    PromptSet
        The two texts on a line each, as segments `context` (in a) and `question` (in b); no options. Covariates are
        those of the item. Items that one of the languages lacks are left out.

    Raises
    ------
    BabelScopeError
        If a code does not name two languages of the set, an item has no such segment (it is named), or the covariates
        (the label) of an item differ.
    """
    made: list[Prompt] = []
    for code in dict.fromkeys(codes):
        pair = parts_of(code)
        if pair is None or pair[0] == pair[1]:
            raise BabelScopeError(f"{code!r} does not name two languages", "write first-second, as en-fr")
        for language in pair:
            if language not in prompts.languages:
                raise unknown_name("language in these prompts", language, prompts.languages)
        by_item = [{p.item: p for p in prompts.of(language)} for language in pair]
        both = [(by_item[0][item], by_item[1][item]) for item in prompts.items if all(item in t for t in by_item)]
        turned = [swap and _is_turned(a.item, seed) for a, _ in both]
        named = (texts[0], texts[0 if parallel else 1])
        made += [_joined(a, b, named) for (a, b), turn in zip(both, turned, strict=True) if not turn]
        made += [_joined(b, a, named) for (a, b), turn in zip(both, turned, strict=True) if turn]
    return PromptSet(f"{prompts.name}-pairs", tuple(made), prompts.source)


def _is_turned(item: str, seed: int) -> bool:
    return hashlib.sha256(f"{seed}/{item}".encode()).digest()[0] % 2 == 1


def _joined(a: Prompt, b: Prompt, named: tuple[str, str]) -> Prompt:
    if a.covariates != b.covariates or a.gold != b.gold:
        problem = f"item {a.item!r}: the label differs between {a.language!r} and {b.language!r}"
        raise BabelScopeError(f"{problem}: {a.covariates} and {b.covariates}", "correct the key or the label")
    first, second = _text(a, named[0]), _text(b, named[1])
    segments = (
        Segment("context", 0, len(first), a.language),
        Segment("question", len(first) + 1, len(first) + 1 + len(second), b.language),
    )
    return Prompt(a.item, f"{a.language}-{b.language}", f"{first}\n{second}", segments, covariates=a.covariates)


def _text(prompt: Prompt, segment: str) -> str:
    text = prompt.segment(segment)
    if not text:
        problem = f"item {prompt.item!r} in {prompt.language!r} has no segment {segment!r}"
        raise BabelScopeError(problem, "read the file with a mapping that names both, as --mapping xnli")
    return text
