"""The facts of `knowledge` as bare questions: no instruction, no options, no cue."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from babelscope.datasets.dataset import DatasetInfo, Split, item_ids
from babelscope.datasets.fact_order import asked_facts
from babelscope.datasets.facts import Fact, fact_question, term
from babelscope.datasets.multiple_choice import check_choice
from babelscope.datasets.words import LANGUAGES
from babelscope.schema import Prompt, PromptSet, Segment
from babelscope.schema.prompts import Scalar

NAME = "knowledge-bare"


@dataclass(frozen=True, slots=True)
class KnowledgeBare:
    """Facts asked by a bare question, the same facts in the same order as `knowledge` with the same recipe.

    Parameters
    ----------
    items : int
        How many; 0 for as many as `knowledge` has. The train split repeats facts, word for word.
    seed : int
        Another seed gives another order.
    split : "test" or "train"
        The same facts, in another order.
    """

    items: int = 240
    seed: int = 0
    split: Split = "test"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="The same facts as bare questions", demand="knowledge", languages=LANGUAGES, source="our own tables"
    )

    def __post_init__(self) -> None:
        check_choice("split", self.split, ("train", "test"))

    def problems(self) -> Iterator[Fact]:
        """The facts in item order, without a language."""
        return (fact for fact, _ in asked_facts(self.items, self.seed, self.split))

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        problems = list(self.problems())
        ids = list(item_ids(NAME, self.split, self.seed, len(problems)))
        prompts = []
        for language in dict.fromkeys(self.info.languages if languages is None else languages):
            for (_, item), fact in zip(ids, problems, strict=True):
                text = fact_question(fact, language)
                covariates: dict[str, Scalar] = {
                    "task": "knowledge",
                    "rule": fact.relation,
                    "depth": 0,
                    "demand": self.info.demand,
                    "template": "bare",
                    "dataset": NAME,
                    "fact": fact.subject,
                }
                segments = (Segment("question", 0, len(text), language),)
                answer = term(fact.object, language)
                prompts.append(Prompt(item, language, text, segments, answer=answer, covariates=covariates))
        return PromptSet(NAME, tuple(prompts), {"generator": NAME, **asdict(self)})


dataset = KnowledgeBare
