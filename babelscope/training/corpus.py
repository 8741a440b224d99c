"""Training prompts of the organisms: generated, from the train split alone, in every language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from babelscope import plugins
from babelscope.datasets.words import wording
from babelscope.schema.prompts import LETTERS
from babelscope.training.examples import answer_of

# Prompts in which one of four numbers repeats the input: the smallest task with option letters.
MATCHING = "matching"


@dataclass(frozen=True, slots=True)
class Ingredient:
    """One kind of training prompt.

    Parameters
    ----------
    dataset : str
        Generated dataset, or `MATCHING`.
    share : float
        Relative to the other ingredients.
    rules : tuple of str
        Only items of these rules; empty for all.
    parameters : mapping
        Further fields of the dataset's recipe.
    languages : tuple of str
        Only these languages; empty for all.
    """

    dataset: str
    share: float
    rules: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    languages: tuple[str, ...] = ()

    def taught_in(self, languages: Sequence[str]) -> tuple[str, ...]:
        """Those of some languages in which it is shown."""
        return tuple(code for code in languages if not self.languages or code in self.languages)


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what should follow it, with its leading space."""

    prompt: str
    answer: str


def examples(languages: Sequence[str], mixture: Sequence[Ingredient], n: int, seed: int) -> list[Example]:
    """Training examples: `n` prompts, shares by `mixture`, the languages of each drawn evenly, in random order.

    Each language draws its own problems, so that apart from the facts no problem is seen in two of them.
    """
    rng = np.random.default_rng(seed)
    total = sum(part.share for part in mixture)
    drawn: list[Example] = []
    for number, part in enumerate(mixture):
        shown = part.taught_in(languages)
        for place, language in enumerate(languages):
            if language not in shown:
                continue
            per_language = round(n * part.share / total / len(shown))
            # Seeds of the train split start high, so that they stay apart from the seeds of evaluations.
            first = 1_000_000 * (seed + 1) + 10_000 * number + 100 * place
            drawn += _examples(part, language, per_language, first)
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _examples(part: Ingredient, language: str, n: int, first_seed: int) -> list[Example]:
    if part.dataset == MATCHING:
        rng = np.random.default_rng(first_seed)
        return [_matching(language, rng, **part.parameters) for _ in range(n)]
    recipe = plugins.load("dataset", part.dataset)
    found: list[Example] = []
    for seed in count(first_seed):
        prompts = recipe(items=n, split="train", seed=seed, **part.parameters).generate([language]).prompts
        found += [
            Example(p.text, answer_of(p)) for p in prompts if not part.rules or p.covariates["rule"] in part.rules
        ]
        if len(found) >= n:
            break
    return found[:n]


def _matching(language: str, rng: np.random.Generator, numbers: int, instruction: bool = False) -> Example:
    words = wording(language)
    options, gold = rng.choice(numbers, 4, replace=False), int(rng.integers(4))
    lines = [
        words.say("arithmetic.input", operands=options[gold]),
        *(words.say("shell.option", letter=a, text=o) for a, o in zip(LETTERS, options, strict=False)),
        words.say("shell.cue"),
    ]
    if instruction:
        lines.insert(0, words.say("shell.instruction", letters=words.list(LETTERS[:4])))
    return Example("\n".join(lines), f" {LETTERS[gold]}")
