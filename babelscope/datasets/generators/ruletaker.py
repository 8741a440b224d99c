"""Statements about facts and rules under the closed world, in the manner of RuleTaker."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng, split_of
from babelscope.datasets.logic_solver import Statement
from babelscope.datasets.multiple_choice import check_fields, prompts_in, without_repeats
from babelscope.datasets.rule_theory import Theory, closure, mirrored_facts, mirrored_theory
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.statements import judged
from babelscope.datasets.words import LANGUAGES, Wording, wording
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "ruletaker"
DEEPEST = 12  # 48 properties are enough for two chains of twelve rules


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """One statement about one theory, the same in every language.

    Parameters
    ----------
    theory : Theory
    statement : Statement
        `("is", name, property)` or `("not", name, property)`.
    depth : int
        Rules in the longest line of the proof that one of the two names has the property.
    gold : int
        1 if the statement is true.
    """

    theory: Theory
    statement: Statement
    depth: int
    gold: int

    @property
    def shown(self) -> str:
        """The theory in a fixed order: another statement about it, or another order, makes no other problem."""
        return "|".join(sorted(" ".join(s) for s in self.theory.sentences))


def render(problem: RuleProblem, language: str) -> Task:
    """A problem said in a language."""
    words = wording(language)
    context = words.sentences([_say(s, words) for s in problem.theory.sentences])
    statement = _say(problem.statement, words)
    return judged(context, statement, bool(problem.gold), language, "ruletaker.instruction")


def _say(sentence: Statement, words: Wording) -> str:
    form, *keys = sentence
    if form in ("is", "not"):
        return words.say(f"logical.{form}", name=words.names[keys[0]], a=words.adjectives[keys[1]])
    section = "logical" if form == "any" else "ruletaker"
    filled = {field: words.adjectives[key] for field, key in zip("abc", keys, strict=False)}
    return words.say(f"{section}.{form}", **filled)


@dataclass(frozen=True, slots=True)
class RuleTaker:
    """Facts and rules with one or two conditions, and a statement that is true or false under the closed world.

    Negation is negation as failure: in conditions of rules (`not`) and in statements; facts and conclusions are
    never negated. `rule_theory` says how theories are built. A false property has the depth at which the other
    name has it. Options are the words for false and true, in this order, so `gold` is the label.

    Parameters
    ----------
    items : int
        Items take turns over the depths 0, 1, ..., `max_depth`; at each depth labels are balanced, and so is
        negation within each label, in every run of four.
    seed : int
    split : "test" or "train"
        The two share no theory.
    letters : "latin" or "native"
    max_depth : int
        Rules in each chain, as in the published sets depth-1, ..., depth-5. With 0, theories are facts alone: two
        names with a property each.

    Raises
    ------
    BabelScopeError
        If `max_depth` is below 0 or beyond what the vocabulary gives.

    References
    ----------
    Clark et al. (2020), arXiv:2002.05867: the task. Foroutan et al. (2023), arXiv:2310.15258: its use in several
    languages.
    """

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    max_depth: int = 5

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Statements about facts and rules, true or false under the closed world",
        demand="knowledge-free",
        languages=LANGUAGES,
        source="arXiv:2002.05867",
    )

    def __post_init__(self) -> None:
        check_fields(self.split, self.letters, "corrected")
        if not 0 <= self.max_depth <= DEEPEST:
            problem = f"{NAME} cannot make theories of depth {self.max_depth}"
            raise BabelScopeError(problem, f"give a max_depth from 0 to {DEEPEST}")

    def problems(self) -> Iterator[RuleProblem]:
        """The problems of the recipe, in order, without a language."""
        words = list(wording("en").names), list(wording("en").adjectives)
        draws = (
            partial(_draw, self.max_depth, *divmod(i, self.max_depth + 1), self.split, *words,
                    item_rng(NAME, self.seed, i))
            for i in range(self.items)
        )  # fmt: skip
        return without_repeats(draws, self.split)

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


dataset = RuleTaker


def covariates(problem: RuleProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language."""
    used = problem.theory.kinds[: problem.depth]
    return {
        "task": NAME,
        "rule": problem.theory.contrast,
        "rule_kinds": "+".join(sorted(set(used))) or "fact",
        "depth": problem.depth,
        "label": bool(problem.gold),
        "negated": problem.statement[0] == "not",
        "demand": "knowledge-free",
        "template": "true-false",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
    }


def _draw(
    max_depth: int,
    round_: int,
    depth: int,
    split: Split,
    names: Sequence[str],
    properties: Sequence[str],
    rng: np.random.Generator,
) -> RuleProblem:
    label, negated = bool(round_ % 2), bool(round_ // 2 % 2)
    while True:
        theory = (
            mirrored_theory(max_depth, depth, names, properties, rng)
            if max_depth
            else mirrored_facts(names, properties, rng)
        )
        side = int(rng.integers(2))
        asked = theory.properties[depth][side]
        subject = theory.holders[side if label != negated else 1 - side]
        problem = RuleProblem(theory, ("not" if negated else "is", subject, asked), depth, int(label))
        if split_of(problem.shown) == split:
            _check(problem)
            return problem


def _check(problem: RuleProblem) -> None:
    """Assert that the statement has its label and its depth."""
    true = closure(problem.theory.sentences)
    form, name, asked = problem.statement
    first, second = problem.theory.holders
    other = second if name == first else first
    assert ((name, asked) in true) == (bool(problem.gold) == (form == "is")), problem
    assert ((name, asked) in true) != ((other, asked) in true), problem
    assert true[name if (name, asked) in true else other, asked] == problem.depth, problem
