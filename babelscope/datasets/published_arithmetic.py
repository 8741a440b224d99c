"""The arithmetic problems as published, with their flaws, for comparison with the corrected ones.

The three wrong options are the answers of other random problems of the same rule, so that the units digit,
the magnitude or the digits of the input give the right one away; they may repeat each other. The input 0, 0
of the geometric sequence stands for thirty-one problems, so that it can occur in both splits, and more than once in
a set that is otherwise free of repeats.

References
----------
Hu et al. (2024), arXiv:2406.16655, appendix A.1, and the authors' generator of arithmetic data.
"""

from functools import cache
from math import isqrt

import numpy as np

from babelscope.datasets.dataset import Split
from babelscope.datasets.number_options import split_of_problem
from babelscope.datasets.options import N_OPTIONS, ORDERS, below

LARGEST = 999
LARGEST_FACTOR = 47

Numbers = tuple[int, ...]


def published(rule: str, split: Split, rng: np.random.Generator) -> tuple[Numbers, tuple[Numbers, ...], int, Numbers]:
    """Input shown, four options, the index of the right one, and the pair of numbers behind the problem."""
    while True:
        pair = _pair(rule, rng)
        shown, answer = _shown_and_answer(rule, *pair)
        # By what is shown, so that training on published problems never shows a corrected test problem. Only the
        # pairs behind the input 0, 0 are split one by one, as published.
        if split_of_problem(rule, shown if any(shown) else pair) == split:
            break
    options = [answer]
    while len(options) < N_OPTIONS:
        other = _shown_and_answer(rule, *_pair(rule, rng))[1]
        if other != answer:
            options.append(other)
    order = ORDERS[below(rng, len(ORDERS))]
    return shown, tuple(options[i] for i in order), order.index(0), pair


def _pair(rule: str, rng: np.random.Generator) -> tuple[int, int]:
    if rule in ("multiplication", "division", "geometric_sequence"):
        pairs = _pairs(rule)
        return pairs[below(rng, len(pairs))]
    while True:
        a, b = below(rng, LARGEST + 1), below(rng, LARGEST + 1)
        if rule in ("equality", "ascending_sort"):
            return a, b
        if rule == "addition" and a + b <= LARGEST:
            return a, b
        if rule == "subtraction" and a >= b:
            return a, b
        if rule == "arithmetic_sequence" and a + 2 * b <= LARGEST:
            return a, b


@cache
def _pairs(rule: str) -> tuple[tuple[int, int], ...]:
    if rule == "geometric_sequence":
        return tuple((a, q) for q in range(1, isqrt(LARGEST) + 1) for a in range(LARGEST // (q * q) + 1))
    lowest = 1 if rule == "division" else 0
    factors = range(LARGEST_FACTOR + 1)
    return tuple((a, b) for a in factors[lowest:] for b in factors if a * b <= LARGEST)


def _shown_and_answer(rule: str, a: int, b: int) -> tuple[Numbers, Numbers]:
    match rule:
        case "addition":
            return (a, b), (a + b,)
        case "subtraction":
            return (a, b), (a - b,)
        case "multiplication":
            return (a, b), (a * b,)
        case "division":
            return (a * b, a), (b,)
        case "equality":
            return (a, b), (a, b)
        case "arithmetic_sequence":
            return (a, a + b), (a + 2 * b,)
        case "geometric_sequence":
            return (a, a * b), (a * b * b,)
        case _:
            return (a, b), (min(a, b), max(a, b))
