"""Arithmetic problems of the knowledge-free reasoning dataset: eight rules on numbers up to 999."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng, split_of
from babelscope.datasets.multiple_choice import Compat, check_fields, prompts_in, without_repeats
from babelscope.datasets.options import N_OPTIONS, ORDERS, alone_resembles, anagrams, arithmetic_progressions, below
from babelscope.datasets.published_arithmetic import published
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.words import LANGUAGES, wording
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "kfrd-arithmetic"
RULES = (
    "addition",
    "subtraction",
    "multiplication",
    "division",
    "equality",
    "arithmetic_sequence",
    "geometric_sequence",
    "ascending_sort",
)

LARGEST = 999  # MAXNUM of the published generator
LARGEST_FACTOR = 47  # floor(1.5 * sqrt(LARGEST)), as published
LARGEST_RATIO = 31  # the largest q with q * q <= LARGEST
LARGEST_DIFFERENCE = 499

# Multiples of ten, so that the units digit says nothing. Quotients are below 48, where tens do not fit.
STEPS = tuple(range(10, 100, 10))
QUOTIENT_STEPS = tuple(range(1, 10))

# How often operands are drawn for four options before other options are.
OPERAND_DRAWS = 2

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArithmeticProblem:
    """One problem, the same in every language.

    Parameters
    ----------
    rule : str
        One of `RULES`.
    operands : tuple of int
        Numbers shown.
    options : tuple of tuple of int
        Four options of one number, or of two for equality and ascending_sort.
    gold : int
        Index of the right option.
    """

    rule: str
    operands: Numbers
    options: tuple[Numbers, ...]
    gold: int

    @property
    def shown(self) -> str:
        """What the prompt shows of the problem, without the options."""
        return f"{self.rule}:{','.join(map(str, self.operands))}"


@dataclass(frozen=True, slots=True)
class KfrdArithmetic:
    """Eight rules on numbers, four options; item i has rule i mod 8, so that a prefix is balanced.

    The corrected construction draws the options first and the right one among them uniformly. One-number
    options form an arithmetic progression with a common units digit; pairs form a grid of two numbers and
    their anagrams. Which option shares most digits with the operands is drawn as well, and no option can be
    ruled out by its size. Problems that need no computing are left out: operands of 0 or 1 in products and
    quotients, terms of 0, a difference of 0, a ratio of 1, and options that repeat an operand.

    Parameters
    ----------
    items : int
        Items per language.
    seed : int
    split : {"test", "train"}
        No problem is in both, whatever the seeds.
    letters : {"latin", "native"}
        Option letters.
    compat : {"corrected", "paper"}
        "paper": the published construction with its flaws, see `published_arithmetic`.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 2 and appendix A: rules and ranges of operands.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Arithmetic without knowledge: 8 rules on numbers up to 999",
        demand="knowledge-free",
        languages=LANGUAGES,
        source="arXiv:2406.16655",
    )

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    compat: Compat = "corrected"

    def __post_init__(self) -> None:
        check_fields(self.split, self.letters, self.compat)

    def problems(self) -> Iterator[ArithmeticProblem]:
        """The problems of the recipe, in order, without a language."""
        build = _corrected if self.compat == "corrected" else _published
        draws = (build(RULES[i % len(RULES)], self.split, item_rng(NAME, self.seed, i)) for i in range(self.items))
        return without_repeats(draws, self.split)

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, asdict(self), list(self.problems()), render, covariates)


dataset = KfrdArithmetic


def render(problem: ArithmeticProblem, language: str) -> Task:
    """A problem said in a language."""
    words = wording(language)
    rule = words.say("arithmetic.rule", rule=words.table["arithmetic"]["rules"][problem.rule])
    shown = words.say("arithmetic.input", operands=words.numbers(problem.operands))
    options = tuple(words.numbers(option) for option in problem.options)
    return Task(words.sentences((rule, shown)), words.say("arithmetic.question"), options, problem.gold)


def covariates(problem: ArithmeticProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language."""
    return {
        "task": "arithmetic",
        "rule": problem.rule,
        "depth": 1,
        "demand": "knowledge-free",
        "template": "shell",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
    }


def _corrected(rule: str, split: Split, rng: np.random.Generator) -> Callable[[], ArithmeticProblem]:
    """Draw what must be uniform, and return what draws problems that have it.

    The digits of a product resemble those of its factors, so the option that shares most digits with the
    operands would be right in 30 % of the cases. Which option that is is therefore drawn, too, and it is the
    only one: among several that tie the right one would still be too often.
    """
    right, resembling, order = below(rng, N_OPTIONS), below(rng, N_OPTIONS), ORDERS[below(rng, len(ORDERS))]

    def draw() -> ArithmeticProblem:
        while True:
            if rule in OPERANDS:
                options, operands = _number_options(rule, right, resembling, rng)
            else:
                options = _sorted_grid(rng) if rule == "ascending_sort" else _equality_grid(rng)
                turned = rule == "ascending_sort" and rng.random() < 0.5
                operands = options[right][::-1] if turned else options[right]
            problem = ArithmeticProblem(rule, operands, tuple(options[i] for i in order), order.index(right))
            if split_of(problem.shown) == split:
                return problem

    return draw


def _number_options(
    rule: str, right: int, resembling: int, rng: np.random.Generator
) -> tuple[tuple[Numbers, ...], Numbers]:
    """Four options in ascending order, the one at `right` being the answer for the operands returned."""
    progressions, draw_operands = _progressions(rule), OPERANDS[rule]
    while True:
        options = progressions[below(rng, len(progressions))]
        # Other operands before other options: whether some are found depends on which option is right.
        for _ in range(OPERAND_DRAWS):
            operands = draw_operands(options[right], options, rng)
            if set(operands).isdisjoint(options) and alone_resembles(options, operands, resembling):
                return tuple((option,) for option in options), operands


def _equality_grid(rng: np.random.Generator) -> tuple[Numbers, ...]:
    """Two numbers, each with an anagram: whichever option is right, the others have its digits."""
    (a, a2), (b, b2) = _number_and_anagram(rng), _number_and_anagram(rng)
    return ((a, b), (a, b2), (a2, b), (a2, b2))


def _sorted_grid(rng: np.random.Generator) -> tuple[Numbers, ...]:
    """The grid of `_equality_grid` in which every option is in ascending order."""
    while True:
        low, high = sorted((_number_and_anagram(rng), _number_and_anagram(rng)))
        if max(low) < min(high):
            return tuple((a, b) for a in low for b in high)


def _number_and_anagram(rng: np.random.Generator) -> tuple[int, int]:
    numbers = _numbers_with_anagrams()
    number = numbers[below(rng, len(numbers))]
    others = anagrams(number)
    return number, others[below(rng, len(others))]


@cache
def _numbers_with_anagrams() -> Numbers:
    return tuple(n for n in range(LARGEST + 1) if anagrams(n))


def _addends(total: int, options: Numbers, rng: np.random.Generator) -> Numbers:
    """Two addends, both below all options."""
    least = total - options[0] + 1
    first = least + below(rng, options[0] - least)
    return first, total - first


def _minuend_and_subtrahend(difference: int, options: Numbers, rng: np.random.Generator) -> Numbers:
    """A minuend above all options."""
    least = options[-1] - difference + 1
    subtrahend = least + below(rng, LARGEST - difference - least + 1)
    return difference + subtrahend, subtrahend


def _factors(product: int, options: Numbers, rng: np.random.Generator) -> Numbers:
    found = _factorizations()[product]
    return found[below(rng, len(found))]


def _dividend_and_divisor(quotient: int, options: Numbers, rng: np.random.Generator) -> Numbers:
    divisor = 2 + below(rng, min(LARGEST_FACTOR, LARGEST // quotient) - 1)
    return quotient * divisor, divisor


def _first_terms_of_arithmetic(third: int, options: Numbers, rng: np.random.Generator) -> Numbers:
    """Two terms below all options."""
    least = third - options[0] + 1
    difference = least + below(rng, min(LARGEST_DIFFERENCE, third // 2) - least + 1)
    return third - 2 * difference, third - difference


def _first_terms_of_geometric(third: int, options: Numbers, rng: np.random.Generator) -> Numbers:
    found = _geometric()[third]
    return found[below(rng, len(found))]


@cache
def _factorizations() -> Mapping[int, tuple[Numbers, ...]]:
    factors = range(2, LARGEST_FACTOR + 1)
    found: dict[int, tuple[Numbers, ...]] = {}
    for a in factors:
        for b in factors:
            if a * b <= LARGEST:
                found[a * b] = (*found.get(a * b, ()), (a, b))
    return found


@cache
def _geometric() -> Mapping[int, tuple[Numbers, ...]]:
    found: dict[int, tuple[Numbers, ...]] = {}
    for q in range(2, LARGEST_RATIO + 1):
        for a in range(1, LARGEST // (q * q) + 1):
            found[a * q * q] = (*found.get(a * q * q, ()), (a, a * q))
    return found


# Operands whose answer is the number given, all of them equally likely; the second argument is all options.
OPERANDS: Mapping[str, Callable[[int, Numbers, np.random.Generator], Numbers]] = {
    "addition": _addends,
    "subtraction": _minuend_and_subtrahend,
    "multiplication": _factors,
    "division": _dividend_and_divisor,
    "arithmetic_sequence": _first_terms_of_arithmetic,
    "geometric_sequence": _first_terms_of_geometric,
}


@cache
def _progressions(rule: str) -> tuple[Numbers, ...]:
    """Options of which none can be ruled out by its size: all are above the operands, or below the largest."""
    feasible: Mapping[str, Sequence[int]] = {
        "addition": range(2, LARGEST + 1),
        "subtraction": range(1, LARGEST),
        "multiplication": tuple(_factorizations()),
        "division": range(2, LARGEST_FACTOR + 1),
        "arithmetic_sequence": range(2, LARGEST + 1),
        "geometric_sequence": tuple(_geometric()),
    }
    found = arithmetic_progressions(feasible[rule], QUOTIENT_STEPS if rule == "division" else STEPS)
    if rule == "subtraction":
        return found
    # The operands are at most half of a product or third term, and a dividend is at least twice a quotient.
    return tuple(p for p in found if p[-1] + 1 < 2 * p[0])


def _published(rule: str, split: Split, rng: np.random.Generator) -> Callable[[], ArithmeticProblem]:
    def draw() -> ArithmeticProblem:
        operands, options, gold = published(rule, split, rng)
        return ArithmeticProblem(rule, operands, options, gold)

    return draw
