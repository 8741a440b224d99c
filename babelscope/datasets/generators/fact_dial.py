"""The same question with none, some and all of the facts it needs in the prompt: only the demand differs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count, islice, zip_longest
from typing import ClassVar

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_ids, item_rng
from babelscope.datasets.fact_order import OPTIONS, quartets
from babelscope.datasets.facts import Fact, facts, term
from babelscope.datasets.fictional import people, written
from babelscope.datasets.multiple_choice import check_choice, recipe_name
from babelscope.datasets.shell import Letters, Task, in_shell
from babelscope.datasets.words import LANGUAGES, wording
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "fact-dial"

# What is asked about the country of birth, by how many facts that needs.
RULES = {2: ("country_of",), 3: ("official_language", "currency")}

# The facts that lead from one person to an option, in order: birthplace, country, and what is asked of the country.
Chain = tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class DialProblem:
    """One question, the same in every language and with any number of facts given.

    Parameters
    ----------
    rule : str
        The relation whose object is asked.
    chains : tuple of Chain
        Of the four people whose objects are the options, the one asked about first.
    others : tuple of Chain
        Of four more people, whose facts take the places of those that are not given.
    places : tuple of (int, int)
        Fact and person of each sentence of the context, in order.
    order : tuple of int
        Which person's object each option is.
    """

    rule: str
    chains: tuple[Chain, ...]
    others: tuple[Chain, ...]
    places: tuple[tuple[int, int], ...]
    order: tuple[int, ...]

    @property
    def needed(self) -> int:
        """How many facts lead from the question to its answer."""
        return len(self.chains[0])

    def context(self, given: int) -> tuple[Fact, ...]:
        """The facts that stand in the prompt when the first `given` are those that are needed."""
        return tuple((self.chains if fact < given else self.others)[person][fact] for fact, person in self.places)


@dataclass(frozen=True, slots=True)
class FactDial:
    """Questions about the country in which an invented writer was born, with 0, 1, ... and all facts they need.

    With all facts nothing has to be known; with one less it takes a fact of the world (the official language of a
    country), with two less another (the country of a capital). With none, nobody can know the answer: a model
    that is above chance there uses a shortcut. Every prompt of a question has the same number of sentences of the same
    forms in the same order. In the place of a fact that is not given stands one of the same kind about other people,
    cities or countries, and given facts are given for all four options, so none of them stands out.

    Parameters
    ----------
    items : int
        How many questions; each is asked `needed` + 1 times. Quartets of options repeat, people and contexts do not.
    seed : int
    split : "test" or "train"
        Other people, contexts and options.
    letters : "latin" or "native"
    needed : int
        2: the country itself is asked for; 3: its official language or currency.
    world : int
        Whose people. Those of world 0 are taught other birthplaces by `fictional-authors`.
    """

    items: int = 60
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    needed: int = 3
    world: int = 1

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="The same question with none, some and all of the facts it needs",
        demand="knowledge",
        languages=LANGUAGES,
        source="our own tables; after arXiv:2406.16655, appendix B (StrategyQA with facts)",
    )

    def __post_init__(self) -> None:
        check_choice("split", self.split, ("train", "test"))
        check_choice("kind of option letters", self.letters, ("latin", "native"))
        if self.needed not in RULES:
            raise BabelScopeError(f"no question needs {self.needed} facts", "give --needed 2 or 3")
        if self.items < 1 or self.world < 0:
            raise BabelScopeError(
                f"{self.items} items of world {self.world} cannot be asked", "give --items 1 and --world 0, or more"
            )

    def problems(self) -> Iterator[DialProblem]:
        """The questions of the recipe, in order, without a language."""
        for index, (rule, quartet, asked, letter) in enumerate(islice(self._asked(), self.items)):
            rng = item_rng(f"{NAME}/{self.split}/{self.needed}/{self.world}", self.seed, index)
            everyone = [name for group in people(self.world).values() for name in group]
            names = [everyone[i] for i in rng.choice(len(everyone), 2 * OPTIONS, replace=False)]
            relevant = [quartet[asked], *(quartet[i] for i in range(OPTIONS) if i != asked)]
            chains = [_chain(name, fact) for name, fact in zip(names, [*relevant, *_others(quartet, rng)], strict=True)]
            slots = [(fact, person) for fact in range(self.needed) for person in range(OPTIONS)]
            order = (1 + rng.permutation(OPTIONS - 1)).tolist()
            order.insert(letter, 0)
            yield DialProblem(
                rule, tuple(chains[:OPTIONS]), tuple(chains[OPTIONS:]),
                tuple(slots[i] for i in rng.permutation(len(slots))), tuple(order),
            )  # fmt: skip

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        problems = list(self.problems())
        named = [item for _, item in item_ids(recipe_name(NAME, self), self.split, self.seed, len(problems))]
        prompts = tuple(
            in_shell(f"{item}/facts-{given}", language, render(problem, given, language),
                     covariates(problem, given, item), self.letters)
            for language in dict.fromkeys(self.info.languages if languages is None else languages)
            for item, problem in zip(named, problems, strict=True)
            for given in range(problem.needed + 1)
        )  # fmt: skip
        return PromptSet(NAME, prompts, {"generator": NAME, **asdict(self)})

    def _asked(self) -> Iterator[tuple[str, tuple[Fact, ...], int, int]]:
        """Rule, quartet of facts, which of them is asked, and the place of its option.

        Rules take turns. Every fact of a quartet is asked, and every place is right in one of the four questions.
        """
        for number in count():
            columns = []
            for rule in RULES[self.needed]:
                rng = item_rng(f"{NAME}/{self.split}/{rule}", self.seed, number)
                drawn = quartets(_final_facts(rule), rng)
                columns.append([
                    (rule, q, i, place) for q in drawn for i, place in enumerate(rng.permutation(OPTIONS).tolist())
                ])  # fmt: skip
            yield from (entry for turn in zip_longest(*columns) for entry in turn if entry is not None)


dataset = FactDial


def render(problem: DialProblem, given: int, language: str) -> Task:
    """A question said in a language with some of its facts."""
    said = [
        term(f"dial_statements:{fact.relation}", language).format(
            subject=_named(fact.subject, language), object=term(fact.object, language)
        )
        for fact in problem.context(given)
    ]
    person = problem.chains[0][0].subject
    question = term(f"dial_questions:{problem.rule}", language).format(subject=_named(person, language))
    options = tuple(term(problem.chains[i][-1].object, language) for i in problem.order)
    separator = wording(language).table["sentence_separator"]
    return Task(separator.join(said), question, options, problem.order.index(0))


def covariates(problem: DialProblem, given: int, question: str) -> Mapping[str, Scalar]:
    """What is known about a prompt in every language."""
    demands = {0: "unknowable", problem.needed: "knowledge-free"}
    return {
        "task": NAME,
        "rule": problem.rule,
        "depth": problem.needed,
        "demand": demands.get(given, "knowledge"),
        "template": "shell",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.order.index(0)],
        "question": question,
        "facts_given": given,
        "facts_needed": problem.needed,
    }


def _final_facts(rule: str) -> list[Fact]:
    """Facts of a rule about countries whose capital is in the tables."""
    if rule == "country_of":
        return [Fact(rule, city, country) for country, city in _capitals().items()]
    return [fact for fact in facts() if fact.relation == rule and fact.subject in _capitals()]


def _capitals() -> dict[str, str]:
    return {fact.subject: fact.object for fact in facts() if fact.relation == "capital"}


def _chain(name: str, final: Fact) -> Chain:
    country = final.object if final.relation == "country_of" else final.subject
    city = _capitals()[country]
    last = () if final.relation == "country_of" else (final,)
    return (Fact("birthplace", f"person:{name}", city), Fact("country_of", city, country), *last)


def _others(quartet: Sequence[Fact], rng: np.random.Generator) -> list[Fact]:
    """Four facts of the same relation about other subjects, with four more objects."""
    taken, found = {fact.object for fact in quartet}, list[Fact]()
    known = _final_facts(quartet[0].relation)
    for i in rng.permutation(len(known)):
        if known[i].object not in taken and len(found) < OPTIONS:
            found.append(known[i])
            taken.add(known[i].object)
    return found


def _named(reference: str, language: str) -> str:
    return written(reference, language) if reference.startswith("person:") else term(reference, language)
