"""Symbolic problems of the knowledge-free reasoning dataset: a list of words changed in one to k steps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import ClassVar

import numpy as np

from babelscope.datasets.dataset import DatasetInfo, Split, item_rng, split_of
from babelscope.datasets.list_steps import Step, Words, after
from babelscope.datasets.multiple_choice import Compat, check_fields, prompts_in, without_repeats
from babelscope.datasets.options import N_OPTIONS, ORDERS, below, distinct_below
from babelscope.datasets.published_symbolic import published
from babelscope.datasets.shell import Letters, Task
from babelscope.datasets.words import LANGUAGES, wording
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from babelscope.schema.prompts import LETTERS, Scalar

NAME = "kfrd-symbolic"
SHORTEST, LONGEST = 3, 5  # words in the list, as published
MOST_STEPS = 24  # each may insert a word that no other step or list has

# What a step does, up to its positions. To rearrange is to swap two words or to leave the list unchanged: a
# problem whose right option is the input itself needs others, as often, in which the input is a wrong option.
KINDS = ("insert", "rearrange", "delete", "rearrange")
UNCHANGED_SHARE = 0.5
LONGER = {"insert": 1, "delete": -1}


@dataclass(frozen=True, slots=True)
class SymbolicProblem:
    """One problem, the same in every language.

    Parameters
    ----------
    words : tuple of str
        The list shown, as keys of the nouns.
    steps : tuple of Step
        What is done to it, in order.
    options : tuple of tuple of str
        Four lists of equal length, as keys.
    gold : int
        Index of the right option.
    """

    words: Words
    steps: tuple[Step, ...]
    options: tuple[Words, ...]
    gold: int

    @property
    def shown(self) -> str:
        """What the prompt shows of the problem, without the options."""
        steps = (f"{s.kind} {s.word} {' '.join(map(str, s.positions))}" for s in self.steps)
        return f"{' '.join(self.words)};{';'.join(steps)}"


@dataclass(frozen=True, slots=True)
class KfrdSymbolic:
    """A list of words and one to `max_steps` steps; item i has 1 + i mod `max_steps` steps.

    The corrected construction draws four programs that differ in the positions of their steps alone and end
    in four different lists of equal length; the one shown is a uniformly random one of them. So nothing that
    does not read the steps (the other options, the words of the prompt, the order of the input) is better than
    chance. With more than one step the four are a grid: two steps, each with a right and a wrong position.

    Parameters
    ----------
    items : int
        Items per language.
    seed : int
    split : {"test", "train"}
        No problem is in both, whatever the seeds.
    letters : {"latin", "native"}
        Option letters.
    compat : {"corrected", "paper"}
        "paper": the published construction with its flaws, see `published_symbolic`.
    max_steps : int
        From 1 to 24.

    Raises
    ------
    BabelScopeError
        If a field has a value that means nothing.

    References
    ----------
    Hu et al. (2024), arXiv:2406.16655, section 2 and appendix A: the four operations.
    """

    info: ClassVar[DatasetInfo] = DatasetInfo(
        title="Lists of words changed step by step, without knowledge",
        demand="knowledge-free",
        languages=LANGUAGES,
        source="arXiv:2406.16655",
    )

    items: int = 240
    seed: int = 0
    split: Split = "test"
    letters: Letters = "latin"
    compat: Compat = "corrected"
    max_steps: int = 3

    def __post_init__(self) -> None:
        check_fields(self.split, self.letters, self.compat)
        if not 1 <= self.max_steps <= MOST_STEPS:
            raise BabelScopeError(f"max_steps is {self.max_steps}", f"choose a number of steps from 1 to {MOST_STEPS}")

    def problems(self) -> Iterator[SymbolicProblem]:
        """The problems of the recipe, in order, without a language."""
        vocabulary = tuple(wording("en").nouns)
        build = _corrected if self.compat == "corrected" else _published
        draws = (
            partial(build, 1 + i % self.max_steps, i // self.max_steps, vocabulary, self.split, rng)
            for i, rng in ((i, item_rng(NAME, self.seed, i)) for i in range(self.items))
        )
        return without_repeats(draws, self.split)

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        chosen = self.info.languages if languages is None else languages
        return prompts_in(chosen, NAME, self, list(self.problems()), render, covariates)


dataset = KfrdSymbolic


def render(problem: SymbolicProblem, language: str) -> Task:
    """A problem said in a language."""
    words = wording(language)
    nouns = words.nouns
    sentences = [words.say("symbolic.input", items=words.list([nouns[key] for key in problem.words]))]
    for n, step in enumerate(problem.steps, start=1):
        sentences.append(words.say("symbolic.step", n=n, step=_said(step, language)))
    options = tuple(words.list([nouns[key] for key in option]) for option in problem.options)
    return Task(words.sentences(sentences), words.say("symbolic.question"), options, problem.gold)


def _said(step: Step, language: str) -> str:
    words, template = wording(language), f"symbolic.steps.{step.kind}"
    match step.kind:
        case "insert":
            return words.say(template, word=words.nouns[step.word], position=step.positions[0])
        case "delete":
            return words.say(template, position=step.positions[0])
        case "swap":
            return words.say(template, first=step.positions[0], second=step.positions[1])
        case _:
            return words.say(template)


def covariates(problem: SymbolicProblem) -> Mapping[str, Scalar]:
    """What is known about a problem in every language; `steps` names its operations, as `insert+swap`."""
    depth = len(problem.steps)
    return {
        "task": "symbolic",
        "rule": f"{depth}-step",
        "steps": "+".join(step.kind for step in problem.steps),
        "depth": depth,
        "demand": "knowledge-free",
        "template": "shell",
        "dataset": NAME,
        "gold_letter": LETTERS[problem.gold],
    }


def _corrected(depth: int, block: int, vocabulary: Words, split: Split, rng: np.random.Generator) -> SymbolicProblem:
    while True:
        words, kinds, inserted = _skeleton(depth, block, vocabulary, rng)
        programs = _programs(kinds, inserted, len(words), rng)
        options = tuple(after(words, program) for program in programs)
        if len(set(options)) < N_OPTIONS:
            continue
        gold = below(rng, N_OPTIONS)
        problem = SymbolicProblem(words, programs[gold], options, gold)
        if split_of(problem.shown) == split:
            return problem


def _skeleton(
    depth: int, block: int, vocabulary: Words, rng: np.random.Generator
) -> tuple[Words, tuple[str, ...], Words]:
    """The list, the kind of each step, and the words to insert, all different."""
    drawn = [vocabulary[i] for i in distinct_below(rng, len(vocabulary), LONGEST + depth)]
    if depth == 1:
        kinds: tuple[str, ...] = (KINDS[block % len(KINDS)],)
        # Four places to insert or delete at take four words.
        shortest = SHORTEST if kinds[0] == "rearrange" else N_OPTIONS
        length = shortest + below(rng, LONGEST + 1 - shortest)
        return tuple(drawn[:length]), kinds, tuple(drawn[LONGEST:])
    length = now = SHORTEST + below(rng, LONGEST + 1 - SHORTEST)
    chosen: list[str] = []
    while len(chosen) < depth:
        kind = KINDS[below(rng, len(KINDS))]
        if kind == "delete" and now == 2:  # a list of one word would leave nothing to rearrange
            continue
        now += LONGER.get(kind, 0)
        chosen.append(kind)
    return tuple(drawn[:length]), tuple(chosen), tuple(drawn[LONGEST:])


def _programs(kinds: tuple[str, ...], inserted: Words, length: int, rng: np.random.Generator) -> list[tuple[Step, ...]]:
    """Four programs of the same kinds of steps and inserted words, in random order."""
    n = len(kinds)
    counts = dict.fromkeys(distinct_below(rng, n, 2), 2) if n > 1 else {0: N_OPTIONS}
    choices = []
    for i, (kind, word) in enumerate(zip(kinds, inserted, strict=True)):
        choices.append(_different_steps(kind, word, length, counts.get(i, 1), rng))
        length += LONGER.get(kind, 0)
    programs = list(product(*choices))
    return [programs[i] for i in ORDERS[below(rng, len(ORDERS))]]


def _different_steps(kind: str, word: str, length: int, n: int, rng: np.random.Generator) -> tuple[Step, ...]:
    """`n` steps of a kind at different positions."""
    steps: dict[Step, None] = {}
    while len(steps) < n:
        if kind == "insert":
            # Never before position length + 1, which the list does not have.
            step = Step("insert", (1 + below(rng, length),), word)
        elif kind == "delete":
            step = Step("delete", (1 + below(rng, length),))
        elif rng.random() < UNCHANGED_SHARE:
            step = Step("repeat")
        else:
            first, second = sorted(distinct_below(rng, length, 2))
            step = Step("swap", (first + 1, second + 1))
        steps[step] = None
    return tuple(steps)


def _published(depth: int, block: int, vocabulary: Words, split: Split, rng: np.random.Generator) -> SymbolicProblem:
    while True:
        problem = SymbolicProblem(*published(depth, block, vocabulary, rng))
        if split_of(problem.shown) == split:
            return problem
