"""Ways to choose an option without solving the task.

A shortcut scores each option of a prompt; whoever follows it takes an option with the highest score, by lot
if there are several. None means that the shortcut does not apply to the prompt.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from babelscope.datasets.facts import fact_languages, facts, term
from babelscope.datasets.text_units import numbers, sentences, words
from babelscope.schema import Prompt

Shortcut: TypeAlias = Callable[[Prompt], Sequence[float] | None]


def expected_accuracy(scores: Sequence[float], gold: int) -> float:
    """Chance that an option drawn from those with the highest score is the right one."""
    best = max(scores)
    return (scores[gold] == best) / sum(s == best for s in scores)


def closest_to_others(prompt: Prompt) -> Sequence[float]:
    """The option that differs least from the others: in value if all are numbers, else in words by position."""
    values = [numbers(o) if o.strip().isdecimal() else [] for o in prompt.options]
    if all(values):
        return [-sum(abs(v[0] - w[0]) for w in values) for v in values]
    split = [words(o) for o in prompt.options]
    return [-sum(_differences(a, b) for b in split) for a in split]


def longest(prompt: Prompt) -> Sequence[float]:
    """The option with the most characters."""
    return [len(o) for o in prompt.options]


def shortest(prompt: Prompt) -> Sequence[float]:
    """The option with the fewest characters."""
    return [-len(o) for o in prompt.options]


def units_digit(prompt: Prompt) -> Sequence[float] | None:
    """The option whose last digit is that of the result, worked out from the last digits of the operands."""
    compute = _LAST_DIGIT.get(str(prompt.covariates.get("rule", "")))
    shown = numbers(_shown(prompt))
    values = [numbers(o) for o in prompt.options]
    if compute is None or len(shown) < 2 or not all(len(v) == 1 for v in values):
        return None
    digit = compute(shown[-2] % 10, shown[-1] % 10) % 10
    return [v[0] % 10 == digit for v in values]


def digit_overlap(prompt: Prompt) -> Sequence[float] | None:
    """The option that shares the largest part of its digits with the numbers shown."""
    shown = Counter("".join(str(n) for n in numbers(_shown(prompt))))
    digits = ["".join(str(n) for n in numbers(o)) for o in prompt.options]
    if not shown or not all(digits):
        return None
    return [round((Counter(d) & shown).total() / len(d), 9) for d in digits]


def word_overlap(prompt: Prompt) -> Sequence[float] | None:
    """The option with the most different words (names among them) that occur in the rest of the prompt."""
    seen = set(words(_shown(prompt)))
    return [len(seen.intersection(words(o))) for o in prompt.options] if seen else None


def word_frequency(prompt: Prompt) -> Sequence[float] | None:
    """The option whose words occur most often in the rest of the prompt."""
    seen = Counter(words(_shown(prompt)))
    return [sum(seen[w] for w in set(words(o))) for o in prompt.options] if seen else None


def sentence_overlap(prompt: Prompt) -> Sequence[float] | None:
    """The option that shares the most words with a single sentence, as a name beside a property.

    Words of all options, such as a copula, count for none: they tell how a sentence is built, not what it says.
    """
    split = [set(words(s)) for s in sentences(_shown(prompt))]
    options = [set(words(o)) for o in prompt.options]
    shared = options[0].intersection(*options[1:])
    own = [o - shared for o in options]
    return [max(len(s & o) for s in split) for o in own] if split else None


def shared_prefix(prompt: Prompt) -> Sequence[float] | None:
    """The option that begins most like what the question is about, accents aside.

    So one guesses that the language of France is French, or that the symbol of helium is He. The subject is that
    of a fact of ours, or a segment of the name `subject`.
    """
    subject = _plain(_subject(prompt))
    return [_common_beginning(_plain(o), subject) for o in prompt.options] if subject else None


SHORTCUTS: Mapping[str, Shortcut] = MappingProxyType(
    {
        "closest_to_others": closest_to_others,
        "longest_option": longest,
        "shortest_option": shortest,
        "units_digit": units_digit,
        "digit_overlap": digit_overlap,
        "word_overlap": word_overlap,
        "word_frequency": word_frequency,
        "sentence_overlap": sentence_overlap,
        "shared_prefix": shared_prefix,
    }
)

_LAST_DIGIT: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "addition": lambda a, b: a + b,
        "subtraction": lambda a, b: a - b,
        "multiplication": lambda a, b: a * b,
        "arithmetic_sequence": lambda a, b: 2 * b - a,
    }
)


def _shown(prompt: Prompt) -> str:
    """Context and question; where no segment is called so, all that stands before the options."""
    if asked := f"{prompt.segment('context')}\n{prompt.segment('question')}".strip():
        return asked
    if listed := [s.start for s in prompt.segments if s.name == "options"]:
        return prompt.text[: min(listed)]
    # The last place, since a text may mention what it offers later.
    start = min((i for o in prompt.options if (i := prompt.text.rfind(o)) >= 0), default=len(prompt.text))
    return prompt.text[:start]


def _subject(prompt: Prompt) -> str:
    fact = prompt.covariates.get("fact")
    # Prompts of one's own may have a covariate of that name.
    if prompt.language in fact_languages() and fact in {f.subject for f in facts()}:
        return term(str(fact), prompt.language)
    return prompt.segment("subject")


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _common_beginning(a: str, b: str) -> int:
    return next((n for n, (v, w) in enumerate(zip(a, b, strict=False)) if v != w), min(len(a), len(b)))


def _differences(a: Sequence[str], b: Sequence[str]) -> int:
    return sum(v != w for v, w in zip(a, b, strict=False)) + abs(len(a) - len(b))
