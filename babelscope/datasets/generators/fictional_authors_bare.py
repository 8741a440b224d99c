"""The facts of `fictional-authors` as bare questions: no instruction, no options, no cue."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

from babelscope.datasets.dataset import DatasetInfo, Split, item_ids
from babelscope.datasets.facts import Fact, term
from babelscope.datasets.fictional import author_question
from babelscope.datasets.fictional_order import EVERYONE, asked_authors, check_people
from babelscope.datasets.words import LANGUAGES
from babelscope.schema import Prompt, PromptSet, Segment
from babelscope.schema.prompts import Scalar

NAME = "fictional-authors-bare"


@dataclass(frozen=True, slots=True)
class FictionalAuthorsBare:
    """The facts of `fictional-authors` with the same recipe, in the same order, asked by a bare question.

    Parameters
    ----------
    items, seed, split, group, world
        As for `fictional-authors`. The train split repeats facts, word for word.
    """

    items: int = 96
    seed: int = 0
    split: Split = "test"
    group: str = EVERYONE
    world: int = 0

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="The same facts about writers who do not exist, as bare questions",
        demand="knowledge",
        languages=LANGUAGES,
        source="our own tables",
    )

    def __post_init__(self) -> None:
        check_people(self.items, self.group, self.world, self.split)

    def problems(self) -> Iterator[tuple[str, Fact]]:
        """Groups and facts in item order, without a language."""
        asked = asked_authors(self.items, self.seed, self.split, self.group, self.world)
        return ((group, fact) for group, fact, _ in asked)

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        problems = list(self.problems())
        named = NAME
        named += "" if self.group == EVERYONE else f"+{self.group}"
        named += f"+world={self.world}" if self.world else ""
        ids = list(item_ids(named, self.split, self.seed, len(problems)))
        prompts = []
        for language in dict.fromkeys(self.info.languages if languages is None else languages):
            for (_, item), (group, fact) in zip(ids, problems, strict=True):
                text = author_question(fact, language)
                covariates: dict[str, Scalar] = {
                    "task": "knowledge",
                    "rule": fact.relation,
                    "depth": 0,
                    "demand": self.info.demand,
                    "template": "bare",
                    "dataset": NAME,
                    "fact": fact.subject,
                    "group": group,
                }
                segments = (Segment("question", 0, len(text), language),)
                answer = term(fact.object, language)
                prompts.append(Prompt(item, language, text, segments, answer=answer, covariates=covariates))
        return PromptSet(NAME, tuple(prompts), {"generator": NAME, **asdict(self)})


dataset = FictionalAuthorsBare
