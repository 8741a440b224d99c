"""Knowledge questions in the shell of the knowledge-free tasks: only the demand differs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from babelscope.datasets.dataset import DatasetInfo, Split, item_ids, item_rng
from babelscope.datasets.fact_order import OPTIONS, asked_facts
from babelscope.datasets.facts import Fact, fact_question, term
from babelscope.datasets.shell import Letters, Task, in_shell
from babelscope.datasets.words import LANGUAGES
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS

NAME = "knowledge"


@dataclass(frozen=True, slots=True)
class Problem:
    """A fact to ask for and four objects, as references, one of them its own."""

    fact: Fact
    options: tuple[str, ...]
    gold: int


def render(problem: Problem, language: str) -> Task:
    """The problem in words."""
    options = tuple(term(o, language) for o in problem.options)
    return Task("", fact_question(problem.fact, language), options, problem.gold)


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

    def problems(self) -> Iterator[Problem]:
        """The problems in item order, without a language."""
        for index, (fact, quartet) in enumerate(asked_facts(self.items, self.seed, self.split)):
            order = item_rng(f"{NAME}/{self.split}", self.seed, index).permutation(OPTIONS)
            options = tuple(quartet[i].object for i in order)
            yield Problem(fact, options, options.index(fact.object))

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        problems = list(self.problems())
        ids = list(item_ids(NAME, self.split, self.seed, len(problems)))
        prompts = []
        for language in dict.fromkeys(languages or self.info.languages):
            for (_, item), problem in zip(ids, problems, strict=True):
                covariates = {
                    "task": NAME,
                    "rule": problem.fact.relation,
                    "depth": 0,
                    "demand": self.info.demand,
                    "template": "shell",
                    "dataset": NAME,
                    "gold_letter": LETTERS[problem.gold],
                    "fact": problem.fact.subject,
                }
                prompts.append(in_shell(item, language, render(problem, language), covariates, self.letters))
        return PromptSet(NAME, tuple(prompts), {"generator": NAME, **asdict(self)})


dataset = Knowledge
