"""Logical inference in natural sentences: which option follows from the premises."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, TypeAlias

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng, split_of
from babelscope.datasets.logic_paper import published_problem
from babelscope.datasets.logic_patterns import PATTERNS, check
from babelscope.datasets.logic_solver import Statement
from babelscope.datasets.multiple_choice import Compat, check_fields, prompts_in, without_repeats
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.words import LANGUAGES, Wording, wording
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "kfrd-logical"
RULES = tuple(rule for rule in PATTERNS if rule != "chain")

# Premises in the order shown, and options of which the first is the right one.
Drawn: TypeAlias = tuple[list[Statement], list[Statement]]
# From rule, depth, names and properties.
Build: TypeAlias = Callable[[str, int, Sequence[str], Sequence[str], np.random.Generator], Drawn]


@dataclass(frozen=True, slots=True)
class LogicalProblem:
    """One problem, the same in every language.

    Parameters
    ----------
    rule : str
        One of `RULES`, or "chain".
    depth : int
        Implications to follow one after the other; 1 for the six rules.
    premises, options : tuple of Statement
        Over the keys of names and adjectives, in the order shown.
    gold : int
        Index of the right option.
    """

    rule: str
    depth: int
    premises: tuple[Statement, ...]
    options: tuple[Statement, ...]
    gold: int

    @property
    def shown(self) -> str:
        """The premises in a fixed order: shuffled premises make no other problem."""
        return "|".join(sorted(" ".join(s) for s in self.premises))


def render(problem: LogicalProblem, language: str) -> Task:
    """A problem said in a language."""
    words = wording(language)
    context = words.sentences([_say(s, words) for s in problem.premises])
    options = tuple(_say(s, words) for s in problem.options)
    return Task(context, words.say("logical.question"), options, problem.gold)


def _say(statement: Statement, words: Wording) -> str:
    form, *keys = statement
    name = "" if form == "any" else words.names[keys.pop(0)]
    a, b = words.adjectives[keys[0]], words.adjectives[keys[-1]]
    return words.say(f"logical.{form}", name=name, a=a, b=b)


@dataclass(frozen=True, slots=True)
class KfrdLogical:
    """Logical inference from six premises by one of six rules, and chains of implications.

    Corrected problems come from `logic_patterns`; published ones (`compat="paper"`) from `logic_paper`.

    Parameters
    ----------
    items : int
        Items take turns over the rules, and over the depths of chains.
    seed : int
    split : "test" or "train"
        The two share no problem.
    letters : "latin" or "native"
    compat : "corrected" or "paper"
    max_depth : int
        Depth of the longest chain of implications. Beyond 1, items of the rule `chain` with depths 2, 3, ...
        join the six rules; a chain of depth 1 is `implication_elimination`. A chain of depth d has 2 d + 4 premises.

    Raises
    ------
    BabelScopeError
        If `max_depth` is below 1, asks for more properties than there are words, or for published chains.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 2 and appendix A: the six rules.
    """

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    compat: Compat = "corrected"
    max_depth: int = 1

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Logical inference by six rules, and chains of implications",
        demand="knowledge-free",
        languages=LANGUAGES,
        source="arXiv:2406.16655",
    )

    def __post_init__(self) -> None:
        check_fields(self.split, self.letters, self.compat)
        # A chain of depth d and its mirror image have d + 2 properties each.
        longest = len(wording("en").adjectives) // 2 - 2 if self.compat == "corrected" else 1
        if not 1 <= self.max_depth <= longest:
            raise BabelScopeError(
                f"{NAME} ({self.compat}) cannot make chains of depth {self.max_depth}",
                f"give a max_depth from 1 to {longest}" if longest > 1 else "leave out max_depth: it has no chains",
            )

    def problems(self) -> Iterator[LogicalProblem]:
        """The problems of the recipe, in order, without a language."""
        words = list(wording("en").names), list(wording("en").adjectives)
        kinds = [(rule, 1) for rule in RULES] + [("chain", depth) for depth in range(2, self.max_depth + 1)]
        build = _corrected if self.compat == "corrected" else _published
        draws = (
            partial(_draw, build, *kinds[i % len(kinds)], self.split, *words, item_rng(NAME, self.seed, i))
            for i in range(self.items)
        )
        return without_repeats(draws, self.split)

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


dataset = KfrdLogical


def covariates(problem: LogicalProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language."""
    return {
        "task": "logical",
        "rule": problem.rule,
        "depth": problem.depth,
        "demand": "knowledge-free",
        "template": "shell",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
    }


def _draw(
    build: Build,
    rule: str,
    depth: int,
    split: Split,
    names: Sequence[str],
    properties: Sequence[str],
    rng: np.random.Generator,
) -> LogicalProblem:
    while True:
        premises, options = build(rule, depth, names, properties, rng)
        order = rng.permutation(len(options)).tolist()
        shown = tuple(options[i] for i in order)
        problem = LogicalProblem(rule, depth, tuple(premises), shown, order.index(0))
        if split_of(problem.shown) == split:
            return problem


def _corrected(
    rule: str, depth: int, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> Drawn:
    pattern = PATTERNS[rule](rng, depth)
    check(pattern)
    free_names = iter(rng.permutation(len(names)).tolist())
    free_properties = iter(rng.permutation(len(properties)).tolist())
    filled: dict[str, str] = {}

    def fill(statement: Statement) -> Statement:
        for word in statement[1:]:
            if word not in filled:
                filled[word] = names[next(free_names)] if word.isupper() else properties[next(free_properties)]
        return (statement[0], *(filled[word] for word in statement[1:]))

    premises = [fill(s) for s in pattern.premises]
    order = rng.permutation(len(premises)).tolist()
    return [premises[i] for i in order], [fill(s) for s in pattern.options]


def _published(
    rule: str, depth: int, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> Drawn:
    return published_problem(rule, names, properties, rng)
