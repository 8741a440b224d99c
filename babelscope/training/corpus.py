"""Training prompts of the organisms: generated, from the train split alone, in every language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from babelscope import plugins
from babelscope.schema import Prompt


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and what should follow it, with its leading space."""

    prompt: str
    answer: str


def examples(languages: Sequence[str], mixture: Mapping[str, float], n: int, seed: int) -> list[Example]:
    """Training examples: `n` prompts, shares by `mixture`, languages and problems drawn evenly.

    A problem is drawn once and said in one language, so that no item is seen in two languages except the
    facts, of which there are few.
    """
    rng = np.random.default_rng(seed)
    total = sum(mixture.values())
    drawn: list[Example] = []
    for dataset, share in mixture.items():
        drawn += _of_dataset(dataset, languages, round(n * share / total), seed, rng)
    order = rng.permutation(len(drawn))
    return [drawn[i] for i in order]


def _of_dataset(
    dataset: str, languages: Sequence[str], n: int, seed: int, rng: np.random.Generator
) -> list[Example]:
    per_language = -(-n // len(languages))
    recipe = plugins.load("dataset", dataset)
    found: list[Example] = []
    for i, language in enumerate(languages):
        # Seeds of the train split start high, so that they stay apart from the seeds of evaluations.
        prompts = recipe(items=per_language, split="train", seed=1000 + seed * 100 + i).generate([language])
        found += [Example(p.text, _answer(p)) for p in prompts.prompts]
    return [found[i] for i in rng.permutation(len(found))[:n]]


def _answer(prompt: Prompt) -> str:
    return f" {prompt.letters[prompt.gold]}" if prompt.gold is not None else f" {prompt.answer}"
