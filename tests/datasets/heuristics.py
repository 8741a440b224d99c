"""Ways to answer without solving: each scores the options, and the highest score is the answer."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from math import sqrt
from typing import Any

Heuristic = Callable[[Any], Sequence[float]]


def accuracy(problems: Iterable[Any], heuristic: Heuristic) -> float:
    """Share of problems that a heuristic gets right; one that ties is as good as drawing among the best."""
    shares = []
    for problem in problems:
        scores = heuristic(problem)
        best = max(scores)
        shares.append((scores[problem.gold] == best) / list(scores).count(best))
    return sum(shares) / len(shares)


def chance_margin(n: int) -> float:
    """How far from 1/4 an accuracy over n problems may lie: 3.9 standard errors, p = 1e-4 for each check.

    Not the 99 % interval, because dozens of heuristics are checked and one in a hundred would fall outside.
    """
    return 3.9 * sqrt(0.25 * 0.75 / n)


def nearness_to_others(options: Sequence[Any], distance: Callable[[Any, Any], float]) -> list[float]:
    """By a distance that is the same both ways, so that each pair is measured once."""
    nearness = [0.0] * len(options)
    for i, j in combinations(range(len(options)), 2):
        apart = distance(options[i], options[j])
        nearness[i] -= apart
        nearness[j] -= apart
    return nearness


def edit_distance(a: Sequence[Any], b: Sequence[Any]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def common_subsequence(a: Sequence[Any], b: Sequence[Any]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        previous, row = row, [0]
        for j, y in enumerate(b, start=1):
            row.append(previous[j - 1] + 1 if x == y else max(previous[j], row[-1]))
    return row[-1]


def differing_places(a: Sequence[Any], b: Sequence[Any]) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))
