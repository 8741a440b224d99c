"""Four numbers to choose from, and operands for which one of them is the answer.

The options form an arithmetic progression in which every term is the answer of a problem of the split, and all
are on the same side of the largest operand; except for quotients, which are too small, they have the same units
digit. Which term is right is decided before. The digits of a product resemble those of its factors: left alone,
the option that shares most digits with the operands is right in .33 of the multiplications and .31 of the
divisions (measured; .23 to .25 elsewhere). So that option is balanced on top: where a number has many operands,
by drawing which one it is; where it has few, by leaving out operands, and then progressions, until it is right in
.25. The options alone stay uninformative either way: which progressions there are does not depend on which term
is right.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TypeAlias

import numpy as np

from babelscope.datasets.dataset import TEST_SHARE, Split, split_of
from babelscope.datasets.options import (
    N_OPTIONS,
    alone_resembles,
    arithmetic_progressions,
    below,
    share_by_digits,
    trimmed_to_chance,
)

LARGEST = 999  # MAXNUM of the published generator
LARGEST_FACTOR = 47  # floor(1.5 * sqrt(LARGEST)), as published
LARGEST_RATIO = 31  # the largest q with q * q <= LARGEST
LARGEST_DIFFERENCE = 499

# Multiples of ten, so that the units digit says nothing. Quotients are below 48, where tens do not fit.
STEPS = tuple(range(10, 100, 10))
QUOTIENT_STEPS = tuple(range(1, 10))

# How often operands are drawn before any are taken, whichever option is most like them. Every tenth of those drawn
# will do, and every tenth of these is in the test split.
PATIENCE: Mapping[Split, int] = {"train": 30, "test": 300}

Numbers = tuple[int, ...]


def shown_problem(rule: str, operands: Numbers) -> str:
    """What a prompt shows of a problem, which decides its split."""
    return f"{rule}:{','.join(map(str, operands))}"


def share_of_tests(rule: str) -> int:
    """One problem of the rule in how many is a test problem.

    Half of them where there are few: a tenth would leave hardly any options in which each of the four can be right.
    """
    return 2 if rule in FEW_OPERANDS else TEST_SHARE


def split_of_problem(rule: str, operands: Numbers) -> Split:
    """Split that a problem belongs to, whatever its options."""
    return split_of(shown_problem(rule, operands), share_of_tests(rule))


def number_options(
    rule: str, split: Split, right: int, resembling: int, rng: np.random.Generator
) -> tuple[Numbers, Numbers]:
    """Options in ascending order, and operands of the split whose answer is the one at index `right`.

    `resembling` is the index of the option that shares most digits with the operands, where that is drawn.
    """
    if rule in FEW_OPERANDS:
        kept = _options_with_operands(rule, split)
        options, operands_of = kept[below(rng, len(kept))]
        return options, operands_of[right][below(rng, len(operands_of[right]))]
    progressions = _progressions(rule)
    options = progressions[below(rng, len(progressions))]
    # Whichever is right: were only the right one looked at, the options would show it.
    while not _can_each_be_right(rule, split, options):
        options = progressions[below(rng, len(progressions))]
    numbers, operands_from = MANY_OPERANDS[rule](options[right], options)
    draws = 0
    while True:
        operands = operands_from(numbers[below(rng, len(numbers))])
        is_wanted = draws >= PATIENCE[split] or alone_resembles(options, operands, resembling)
        if is_wanted and _fits(rule, split, operands, options):
            return options, operands
        draws += 1


def _fits(rule: str, split: Split, operands: Numbers, options: Numbers) -> bool:
    return set(operands).isdisjoint(options) and split_of_problem(rule, operands) == split


@lru_cache(maxsize=65536)
def _can_each_be_right(rule: str, split: Split, options: Numbers) -> bool:
    """Whether each option is the answer of a problem of the split; of a hundred progressions all but three are so."""
    found = (MANY_OPERANDS[rule](answer, options) for answer in options)
    return all(any(_fits(rule, split, make(n), options) for n in numbers) for numbers, make in found)


# Numbers to choose from, equally likely, and the operands that belong to one.
Choices: TypeAlias = tuple[range, Callable[[int], Numbers]]


def _addends(total: int, options: Numbers) -> Choices:
    """Two addends, both below all options."""
    return range(total - options[0] + 1, options[0]), lambda first: (first, total - first)


def _minuend_and_subtrahend(difference: int, options: Numbers) -> Choices:
    """A minuend above all options, and what to subtract."""
    subtrahends = range(options[-1] - difference + 1, LARGEST - difference + 1)
    return subtrahends, lambda subtrahend: (difference + subtrahend, subtrahend)


def _first_terms_of_arithmetic(third: int, options: Numbers) -> Choices:
    """Two terms below all options."""
    differences = range(third - options[0] + 1, min(LARGEST_DIFFERENCE, third // 2) + 1)
    return differences, lambda difference: (third - 2 * difference, third - difference)


# Operands whose answer is the number given; the second argument is all options.
MANY_OPERANDS: Mapping[str, Callable[[int, Numbers], Choices]] = {
    "addition": _addends,
    "subtraction": _minuend_and_subtrahend,
    "arithmetic_sequence": _first_terms_of_arithmetic,
}


def _factors() -> list[tuple[int, Numbers]]:
    factors = range(2, LARGEST_FACTOR + 1)
    return [(a * b, (a, b)) for a in factors for b in factors if a * b <= LARGEST]


def _dividends_and_divisors() -> list[tuple[int, Numbers]]:
    return [(b, (product, a)) for product, (a, b) in _factors()]


def _first_terms_of_geometric() -> list[tuple[int, Numbers]]:
    ratios = range(2, LARGEST_RATIO + 1)
    return [(a * q * q, (a, a * q)) for q in ratios for a in range(1, LARGEST // (q * q) + 1)]


# All pairs of an answer and operands that have it.
FEW_OPERANDS: Mapping[str, Callable[[], list[tuple[int, Numbers]]]] = {
    "multiplication": _factors,
    "division": _dividends_and_divisors,
    "geometric_sequence": _first_terms_of_geometric,
}


@cache
def _operands_of(rule: str) -> Mapping[int, Sequence[Numbers]]:
    found: dict[int, list[Numbers]] = {}
    for answer, operands in FEW_OPERANDS[rule]():
        found.setdefault(answer, []).append(operands)
    return found


@cache
def _progressions(rule: str) -> tuple[Numbers, ...]:
    """Options of which none can be ruled out by its size: all are above the operands, or below the largest."""
    lowest = {"addition": 2, "subtraction": 1, "arithmetic_sequence": 2}
    highest = LARGEST - 1 if rule == "subtraction" else LARGEST
    feasible = range(lowest[rule], highest + 1) if rule in lowest else _operands_of(rule)
    found = arithmetic_progressions(feasible, QUOTIENT_STEPS if rule == "division" else STEPS)
    if rule == "subtraction":
        return found
    # The operands are at most half of a product or third term, and a dividend is at least twice a quotient.
    return tuple(p for p in found if p[-1] + 1 < 2 * p[0])


@cache
def _options_with_operands(rule: str, split: Split) -> tuple[tuple[Numbers, tuple[tuple[Numbers, ...], ...]], ...]:
    """Options of which each can be the right one, and for each of them the operands of the split."""
    belonging = {
        answer: [o for o in found if split_of_problem(rule, o) == split] for answer, found in _operands_of(rule).items()
    }
    kept, scored = {}, []
    for options in _progressions(rule):
        found = [[o for o in belonging[x] if set(o).isdisjoint(options)] for x in options]
        if all(found):
            trimmed = [_least_alike(options, operands, right) for right, operands in enumerate(found)]
            kept[options] = tuple(operands for operands, _ in trimmed)
            scored.append((options, sum(share for _, share in trimmed) / N_OPTIONS))
    return tuple((options, kept[options]) for options in trimmed_to_chance(scored))


def _least_alike(options: Numbers, operands: Sequence[Numbers], right: int) -> tuple[tuple[Numbers, ...], float]:
    """Operands of the right option without those most like it, and how often the option most like them is right.

    At least one is left; with few operands that may be more than chance.
    """
    ordered = sorted((share_by_digits(options, o, right), o) for o in operands)
    total = sum(share for share, _ in ordered)
    while len(ordered) > 1 and abs(_excess(total - ordered[-1][0], len(ordered) - 1)) < _excess(total, len(ordered)):
        total -= ordered.pop()[0]
    return tuple(o for _, o in ordered), total / len(ordered)


def _excess(total: float, n: int) -> float:
    return total / n - 1 / N_OPTIONS
