"""The symbolic problems as published, with their flaws, for comparison with the corrected ones.

Each wrong option is the right one with one word replaced, so that the option closest to the three others is
nearly always right. To delete a word takes away its first occurrence, which after the insertion of a word that
the list already had may be another one.

References
----------
Hu et al. (2024), arXiv:2406.16655, appendix A.1, and the authors' generator of symbolic data.
"""

import numpy as np

from babelscope.datasets.list_steps import Step, StepKind, Words
from babelscope.datasets.options import N_OPTIONS, ORDERS, below, distinct_below

KINDS: tuple[StepKind, ...] = ("repeat", "insert", "delete", "swap")
SHORTEST, LONGEST = 3, 5


def published(
    depth: int, block: int, vocabulary: Words, rng: np.random.Generator
) -> tuple[Words, tuple[Step, ...], tuple[Words, ...], int]:
    """List, steps, four options and the index of the right one."""
    length = SHORTEST + below(rng, LONGEST + 1 - SHORTEST)
    words = tuple(vocabulary[i] for i in distinct_below(rng, len(vocabulary), length))
    now = list(words)
    steps: list[Step] = []
    while len(steps) < depth:
        kind = KINDS[block % len(KINDS)] if depth == 1 else KINDS[below(rng, len(KINDS))]
        if len(now) > 1 or kind not in ("delete", "swap"):
            steps.append(_done(kind, now, vocabulary, rng))
    options = [tuple(now)] + [_one_replaced(now, vocabulary, rng) for _ in range(N_OPTIONS - 1)]
    order = ORDERS[below(rng, len(ORDERS))]
    return words, tuple(steps), tuple(options[i] for i in order), order.index(0)


def _done(kind: StepKind, now: list[str], vocabulary: Words, rng: np.random.Generator) -> Step:
    """Draw a step and change the list by it."""
    place = below(rng, len(now))
    if kind == "insert":
        word = vocabulary[below(rng, len(vocabulary))]
        now.insert(place, word)
        return Step(kind, (place + 1,), word)
    if kind == "delete":
        now.remove(now[place])  # by value, as published
        return Step(kind, (place + 1,))
    if kind == "swap":
        place, other = distinct_below(rng, len(now), 2)
        now[place], now[other] = now[other], now[place]
        return Step(kind, (place + 1, other + 1))
    return Step(kind)


def _one_replaced(words: list[str], vocabulary: Words, rng: np.random.Generator) -> Words:
    place = below(rng, len(words))
    others = [w for w in vocabulary if w != words[place]]
    return (*words[:place], others[below(rng, len(others))], *words[place + 1 :])
