"""Logical inference in natural sentences: which option follows from the premises."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_ids, item_rng, split_of
from babelscope.datasets.logic_paper import published_problem
from babelscope.datasets.logic_patterns import PATTERNS, check
from babelscope.datasets.logic_solver import Statement
from babelscope.datasets.shell import Letters, Task, in_shell
from babelscope.datasets.words import LANGUAGES, Wording, wording
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS

NAME = "kfrd-logical"
RULES = tuple(rule for rule in PATTERNS if rule != "chain")


@dataclass(frozen=True, slots=True)
class Problem:
    """Premises and options as statements over the keys of names and adjectives, in the order shown."""

    rule: str
    depth: int
    premises: tuple[Statement, ...]
    options: tuple[Statement, ...]
    gold: int


def render(problem: Problem, language: str) -> Task:
    """The problem in words."""
    words = wording(language)
    context = words.sentences([_say(s, words) for s in problem.premises])
    options = tuple(_say(s, words) for s in problem.options)
    return Task(context, words.say("logical.question"), options, problem.gold)


def _say(statement: Statement, words: Wording) -> str:
    form, *keys = statement
    if form == "any":
        a, b = keys
        return words.say("logical.any", a=words.adjectives[a], b=words.adjectives[b])
    name, *rest = keys
    properties = {field: words.adjectives[key] for field, key in zip("ab", rest, strict=False)}
    return words.say(f"logical.{form}", name=words.names[name], **properties)


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
        If `max_depth` is below 1 or asks for more properties than there are words, or for published chains.
    """

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    compat: Literal["corrected", "paper"] = "corrected"
    max_depth: int = 1

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Logical inference by six rules, and chains of implications",
        demand="knowledge-free",
        languages=LANGUAGES,
        source="after arXiv:2406.16655",
    )

    def problems(self) -> Iterator[Problem]:
        """The problems in item order, without a language."""
        names, properties = list(wording("en").names), list(wording("en").adjectives)
        self._check_depth(len(properties))
        kinds = [(rule, 1) for rule in RULES] + [("chain", depth) for depth in range(2, self.max_depth + 1)]
        for index in range(self.items):
            rule, depth = kinds[index % len(kinds)]
            rng = item_rng(f"{NAME}/{self.compat}/{self.split}", self.seed, index)
            while True:
                if self.compat == "paper":
                    problem = _published(rule, names, properties, rng)
                else:
                    problem = _corrected(rule, depth, names, properties, rng)
                if split_of(_shown(problem)) == self.split:
                    break
            yield problem

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        problems = list(self.problems())
        ids = list(item_ids(NAME, self.split, self.seed, len(problems)))
        prompts = []
        for language in dict.fromkeys(languages or self.info.languages):
            for (_, item), problem in zip(ids, problems, strict=True):
                covariates = {
                    "task": "logical",
                    "rule": problem.rule,
                    "depth": problem.depth,
                    "demand": self.info.demand,
                    "template": "shell",
                    "dataset": NAME,
                    "gold_letter": LETTERS[problem.gold],
                }
                prompts.append(in_shell(item, language, render(problem, language), covariates, self.letters))
        return PromptSet(NAME, tuple(prompts), {"generator": NAME, **asdict(self)})

    def _check_depth(self, n_properties: int) -> None:
        # A chain of depth d and its mirror image have d + 2 properties each.
        longest = n_properties // 2 - 2
        if not 1 <= self.max_depth <= longest:
            raise BabelScopeError(
                f"{NAME} cannot make chains of depth {self.max_depth}", f"give a max_depth from 1 to {longest}"
            )
        if self.compat == "paper" and self.max_depth > 1:
            raise BabelScopeError(
                f"{NAME}: the published construction has no chains", "leave out max_depth, or compat='paper'"
            )


def _corrected(
    rule: str, depth: int, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> Problem:
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
    options = [fill(s) for s in pattern.options]
    return _ordered(rule, depth, [premises[i] for i in order], options, rng)


def _published(rule: str, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator) -> Problem:
    premises, options = published_problem(rule, names, properties, rng)
    return _ordered(rule, 1, premises, options, rng)


def _ordered(
    rule: str, depth: int, premises: Sequence[Statement], options: Sequence[Statement], rng: np.random.Generator
) -> Problem:
    order = rng.permutation(len(options)).tolist()
    return Problem(rule, depth, tuple(premises), tuple(options[i] for i in order), order.index(0))


def _shown(problem: Problem) -> str:
    # Sorted: the same premises and options in another order are the same problem.
    return "/".join("|".join(sorted(" ".join(s) for s in part)) for part in (problem.premises, problem.options))


dataset = KfrdLogical
