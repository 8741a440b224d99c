"""Facts about people who do not exist, in the shell of the knowledge-free tasks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng
from babelscope.datasets.fact_order import OPTIONS
from babelscope.datasets.facts import Fact, term
from babelscope.datasets.fictional import author_question
from babelscope.datasets.fictional_order import EVERYONE, asked_authors, check_people
from babelscope.datasets.multiple_choice import check_choice, prompts_in
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.words import LANGUAGES
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "fictional-authors"


@dataclass(frozen=True, slots=True)
class FictionalProblem:
    """One problem, the same in every language.

    Parameters
    ----------
    group : str
        Of the person, one of `fictional.GROUPS`.
    fact : Fact
        What is asked.
    options : tuple of str
        References to four objects, in the order shown.
    gold : int
        Index of the fact's own object.
    """

    group: str
    fact: Fact
    options: tuple[str, ...]
    gold: int

    @property
    def shown(self) -> str:
        """What the prompt shows of the problem, without the options."""
        return f"{self.fact.relation}:{self.fact.subject}"


@dataclass(frozen=True, slots=True)
class FictionalAuthors:
    """Three facts about each of 32 writers who do not exist, asked with four options.

    Both splits ask the same facts, as in `knowledge`. The wrong options are right answers for other people of the
    same group, and every object is right for one person of each group, so options alone tell nothing.

    Parameters
    ----------
    items : int
        How many; 0 for all facts once. The train split repeats facts.
    seed : int
        Another seed gives another order and other wrong options.
    split : "test" or "train"
    letters : "latin" or "native"
    group : str
        One group of eight people, to be taught in languages of its own; "all" for all four in turn.
    world : int
        Another world has other people with other facts.
    """

    items: int = 96
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    group: str = EVERYONE
    world: int = 0

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Facts about writers who do not exist, with four options",
        demand="knowledge",
        languages=LANGUAGES,
        source="our own tables",
    )

    def __post_init__(self) -> None:
        check_people(self.items, self.group, self.world, self.split)
        check_choice("kind of option letters", self.letters, ("latin", "native"))

    def problems(self) -> Iterator[FictionalProblem]:
        """The problems of the recipe, in order, without a language."""
        asked = asked_authors(self.items, self.seed, self.split, self.group, self.world)
        for index, (group, fact, quartet) in enumerate(asked):
            order = item_rng(f"{NAME}/{self.split}/{self.group}/{self.world}", self.seed, index).permutation(OPTIONS)
            options = tuple(quartet[i].object for i in order.tolist())
            yield FictionalProblem(group, fact, options, options.index(fact.object))

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


dataset = FictionalAuthors


def render(problem: FictionalProblem, language: str) -> Task:
    """A problem said in a language."""
    options = tuple(term(o, language) for o in problem.options)
    return Task("", author_question(problem.fact, language), options, problem.gold)


def covariates(problem: FictionalProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language."""
    return {
        "task": "knowledge",
        "rule": problem.fact.relation,
        "depth": 0,
        "demand": "knowledge",
        "template": "shell",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
        "fact": problem.fact.subject,
        "group": problem.group,
    }
