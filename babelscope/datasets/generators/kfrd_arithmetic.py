"""Arithmetic problems of the knowledge-free reasoning dataset: eight rules on numbers up to 999."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import ClassVar

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng
from babelscope.datasets.multiple_choice import Compat, check_fields, prompts_in, without_repeats
from babelscope.datasets.number_options import LARGEST, Numbers, number_options, shown_problem, split_of_problem
from babelscope.datasets.options import N_OPTIONS, ORDERS, anagrams, below
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
    pair : tuple of int
        The two numbers behind a published problem; () for a corrected one.
    """

    rule: str
    operands: Numbers
    options: tuple[Numbers, ...]
    gold: int
    pair: Numbers = ()

    @property
    def shown(self) -> str:
        """What the prompt shows of the problem, without the options."""
        return shown_problem(self.rule, self.operands)

    @property
    def identity(self) -> str:
        """What no two items of a test set share: of a published problem the pair, as in the published generator."""
        return shown_problem(self.rule, self.pair or self.operands)


@dataclass(frozen=True, slots=True)
class KfrdArithmetic:
    """Eight rules on numbers, four options; item i has rule i mod 8, so that a prefix is balanced.

    The corrected construction draws the options, and which of them is right uniformly and apart from that, in
    both splits: each of the four is the answer of a problem of the split. One-number options form an arithmetic
    progression, with a common units digit except for quotients, which are too small for it; pairs form a grid
    of two numbers and their anagrams. The option that shares most digits with the operands is right as often as
    any, and all one-number options are on the same side of the largest operand. Problems that need no computing
    are left out: operands of 0 or 1 in products and quotients, a difference of 0, a ratio of 1, and one-number
    options that repeat an operand.

    Parameters
    ----------
    items : int
        Items per language. No test problem is asked twice, which ends the corrected test split after some 1,100
        items: geometric sequences have the fewest problems.
    seed : int
    split : {"test", "train"}
        No problem is in both, whatever the seeds and the construction; only the published input 0, 0 of a
        geometric sequence stands for several problems, and can be in both.
    letters : {"latin", "native"}
        Option letters.
    compat : {"corrected", "paper"}
        "paper": the published construction with its flaws, see `published_arithmetic`.

    Raises
    ------
    BabelScopeError
        If a field has a value that means nothing, or there are fewer test problems than items.

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
        draws = (
            build(RULES[i % len(RULES)], self.split, item_rng(f"{NAME}/{self.split}", self.seed, i))
            for i in range(self.items)
        )
        return without_repeats(draws, self.split, attrgetter("identity"))

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


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
    """Draw what must be uniform, and return what draws problems that have it."""
    right, resembling, order = below(rng, N_OPTIONS), below(rng, N_OPTIONS), ORDERS[below(rng, len(ORDERS))]

    def draw() -> ArithmeticProblem:
        if rule in GRIDS:
            options, operands = _grid_options(rule, split, right, rng)
        else:
            numbers, operands = number_options(rule, split, right, resembling, rng)
            options = tuple((number,) for number in numbers)
        return ArithmeticProblem(rule, operands, tuple(options[i] for i in order), order.index(right))

    return draw


def _grid_options(rule: str, split: Split, right: int, rng: np.random.Generator) -> tuple[tuple[Numbers, ...], Numbers]:
    while True:
        options = GRIDS[rule](rng)
        operands = options[right]
        if rule == "ascending_sort" and rng.random() < 0.5:
            operands = operands[::-1]
        if split_of_problem(rule, operands) == split:
            return options, operands


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


GRIDS: Mapping[str, Callable[[np.random.Generator], tuple[Numbers, ...]]] = {
    "equality": _equality_grid,
    "ascending_sort": _sorted_grid,
}


def _published(rule: str, split: Split, rng: np.random.Generator) -> Callable[[], ArithmeticProblem]:
    def draw() -> ArithmeticProblem:
        return ArithmeticProblem(rule, *published(rule, split, rng))

    return draw
