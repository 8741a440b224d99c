"""Knowledge questions in the shell of the knowledge-free tasks: only the demand differs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng
from babelscope.datasets.fact_order import OPTIONS, asked_facts
from babelscope.datasets.facts import Fact, fact_question, term
from babelscope.datasets.multiple_choice import check_fields, prompts_in
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.words import LANGUAGES
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "knowledge"


@dataclass(frozen=True, slots=True)
class KnowledgeProblem:
    """One problem, the same in every language.

    Parameters
    ----------
    fact : Fact
        What is asked.
    options : tuple of str
        References to four objects, in the order shown.
    gold : int
        Index of the fact's own object.
    """

    fact: Fact
    options: tuple[str, ...]
    gold: int

    @property
    def shown(self) -> str:
        """What the prompt shows of the problem, without the options."""
        return f"{self.fact.relation}:{self.fact.subject}"


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Facts asked with four options.

    Facts are not something to generalize over, so both splits ask the same ones: they differ in
    the arrangement, that is, in the options that stand beside the right one and in their order.
    The wrong options are right answers of other questions with the same options (`fact_order.quartets`),
    so options alone tell nothing.

    Parameters
    ----------
    items : int
        How many; 0 for as many as the facts give without asking one twice. The train split repeats facts.
    seed : int
        Another seed gives another order and other wrong options.
    split : "test" or "train"
    letters : "latin" or "native"
    """

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Facts asked with four options, in the shell of the knowledge-free tasks",
        demand="knowledge",
        languages=LANGUAGES,
        source="our own tables",
    )

    def __post_init__(self) -> None:
        check_fields(self.split, self.letters, "corrected")

    def problems(self) -> Iterator[KnowledgeProblem]:
        """The problems of the recipe, in order, without a language."""
        for index, (fact, quartet) in enumerate(asked_facts(self.items, self.seed, self.split)):
            order = item_rng(f"{NAME}/{self.split}", self.seed, index).permutation(OPTIONS).tolist()
            options = tuple(quartet[i].object for i in order)
            yield KnowledgeProblem(fact, options, options.index(fact.object))

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


dataset = Knowledge


def render(problem: KnowledgeProblem, language: str) -> Task:
    """A problem said in a language."""
    options = tuple(term(o, language) for o in problem.options)
    return Task("", fact_question(problem.fact, language), options, problem.gold)


def covariates(problem: KnowledgeProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language."""
    return {
        "task": NAME,
        "rule": problem.fact.relation,
        "depth": 0,
        "demand": "knowledge",
        "template": "shell",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
        "fact": problem.fact.subject,
    }
