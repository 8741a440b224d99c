"""Statements that follow from explicit rules about kinds and implicit knowledge of what belongs to them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import ClassVar, TypeAlias

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng, split_of
from babelscope.datasets.facts import facts, term
from babelscope.datasets.multiple_choice import check_fields, prompts_in, without_repeats
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.statements import judged
from babelscope.datasets.words import LANGUAGES, Wording, wording
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "leap-of-thought"
NUMBERS = range(11, 100)

# What kinds are about, and how many steps lead from a thing to its kind: whale - mammal - vertebrate.
TAXONOMIES: Mapping[str, tuple[str, int]] = {
    "class": ("animal", 1),
    "vertebrates": ("animal", 2),
    "continent": ("country", 1),
}

# Whether all of a kind have a number, or none; the kind; the number.
Rule: TypeAlias = tuple[bool, str, int]


@dataclass(frozen=True, slots=True)
class LeapProblem:
    """One statement about one thing, the same in every language.

    Parameters
    ----------
    taxonomy : str
        One of `TAXONOMIES`.
    rules : tuple of Rule
        Four, in the order shown.
    subject : str
        Reference to the thing that the statement is about; the rules do not name it.
    number : int
    negated : bool
        Whether the statement says that the subject does not have the number.
    gold : int
        1 if the statement is true.
    """

    taxonomy: str
    rules: tuple[Rule, ...]
    subject: str
    number: int
    negated: bool
    gold: int

    @property
    def shown(self) -> str:
        """The rules in a fixed order: another statement about them makes no other problem."""
        return "|".join(sorted(f"{all_} {kind} {number}" for all_, kind, number in self.rules))


def render(problem: LeapProblem, language: str) -> Task:
    """A problem said in a language."""
    words = wording(language)
    what, _ = TAXONOMIES[problem.taxonomy]
    rules = [
        words.say(f"leap.{'every' if all_ else 'no'}_{what}", kind=_kind(kind, words), number=number)
        for all_, kind, number in problem.rules
    ]
    form = f"leap.{'not_' if problem.negated else ''}{what}"
    statement = words.say(form, name=term(problem.subject, language), number=problem.number)
    return judged(words.sentences(rules), statement, bool(problem.gold), language, "leap.instruction")


def _kind(kind: str, words: Wording) -> str:
    return term(kind, words.language) if ":" in kind else words.say(f"leap.{kind}")


@dataclass(frozen=True, slots=True)
class LeapOfThought:
    """Rules about two kinds, and a statement about a thing that belongs to one of them.

    Of two kinds and two numbers, all of the first kind and none of the second have the first number, and the other way
    round; which kind the thing belongs to is not said. So the rules decide every statement, without a closed
    world, for whoever knows the kinds, and both kinds, numbers and forms of a rule occur equally often. The
    options are the words for false and true, in this order, so `gold` is the label.

    Parameters
    ----------
    items : int
        Items take turns over three taxonomies (classes of animals; vertebrates, a step further; continents of
        countries); in each, labels are balanced, and half of the statements with each label are negated.
    seed : int
    split : "test" or "train"
        The two share no set of rules. Both ask about the same things: facts are not something to generalize over.
    letters : "latin" or "native"

    References
    ----------
    Talmor et al. (2020), arXiv:2006.06609: the task. Foroutan et al. (2023), arXiv:2310.15258, appendix A.2: half of
    the statements negated.
    """

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Statements that follow from rules and from knowing what belongs to which kind",
        demand="knowledge",
        languages=LANGUAGES,
        source="arXiv:2006.06609",
    )

    def __post_init__(self) -> None:
        check_fields(self.split, self.letters, "corrected")

    def problems(self) -> Iterator[LeapProblem]:
        """The problems of the recipe, in order, without a language."""
        draws = (partial(_draw, i, self.split, item_rng(NAME, self.seed, i)) for i in range(self.items))
        return without_repeats(draws, self.split)

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


dataset = LeapOfThought


def covariates(problem: LeapProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language."""
    return {
        "task": NAME,
        "rule": problem.taxonomy,
        "depth": TAXONOMIES[problem.taxonomy][1],
        "label": bool(problem.gold),
        "negated": problem.negated,
        "demand": "knowledge",
        "template": "true-false",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
        "fact": problem.subject,
    }


@cache
def members(taxonomy: str) -> Mapping[str, tuple[str, ...]]:
    """References to the things of each kind, by kind."""
    relation = "continent" if taxonomy == "continent" else "animal_class"
    kinds: dict[str, list[str]] = {}
    for fact in facts():
        if fact.relation == relation:
            kind = fact.object
            if taxonomy == "vertebrates":
                kind = "invertebrates" if kind == "classes:insect" else "vertebrates"
            kinds.setdefault(kind, []).append(fact.subject)
    return {kind: tuple(things) for kind, things in kinds.items()}


def _draw(index: int, split: Split, rng: np.random.Generator) -> LeapProblem:
    round_, turn = divmod(index, len(TAXONOMIES))
    taxonomy = list(TAXONOMIES)[turn]
    label, negated = bool(round_ % 2), bool(round_ // 2 % 2)
    things = members(taxonomy)
    while True:
        kinds = [list(things)[i] for i in rng.permutation(len(things))[:2].tolist()]
        numbers = [NUMBERS[i] for i in rng.permutation(len(NUMBERS))[:2].tolist()]
        rules = [(i == j, kinds[i], numbers[j]) for i in range(2) for j in range(2)]
        shuffled = tuple(rules[i] for i in rng.permutation(len(rules)).tolist())
        side = int(rng.integers(2))
        # A thing has the number of its own kind; a negated statement is true of the other number.
        number = numbers[side if label != negated else 1 - side]
        subject = things[kinds[side]][int(rng.integers(len(things[kinds[side]])))]
        problem = LeapProblem(taxonomy, shuffled, subject, number, negated, int(label))
        if split_of(problem.shown) == split:
            return problem
