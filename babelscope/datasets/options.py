"""Sets of four options that show nothing about which of them is right.

The principle is the same everywhere: the four options are drawn, and which of them is right uniformly and apart
from that; only then is a problem drawn that has it as its answer. So whatever looks at the options of an item
alone is at chance by construction, not by tuning.
"""

from collections.abc import Iterable, Sequence
from itertools import permutations

import numpy as np

N_OPTIONS = 4
ORDERS = tuple(permutations(range(N_OPTIONS)))

TOLERANCE = 0.005  # how far from chance a heuristic may stay; less would leave few options


def below(rng: np.random.Generator, n: int) -> int:
    """A random whole number in [0, n); several times as fast as `rng.integers`, and as good for small n."""
    return int(rng.random() * n)


def distinct_below(rng: np.random.Generator, n: int, k: int) -> tuple[int, ...]:
    """`k` different random whole numbers in [0, n), in random order; ValueError if there are not so many."""
    if k > n:
        raise ValueError(f"{k} different numbers below {n}")
    drawn: dict[int, None] = {}
    while len(drawn) < k:
        drawn[below(rng, n)] = None
    return tuple(drawn)


def arithmetic_progressions(feasible: Iterable[int], steps: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """All four-term progressions with one of the `steps` whose terms are all feasible answers.

    A step that is a multiple of ten gives all four options the same units digit; any step makes the outer
    options the right ones as often as the inner ones.
    """
    answers = set(feasible)
    progressions = (tuple(low + i * step for i in range(N_OPTIONS)) for step in steps for low in sorted(answers))
    return tuple(p for p in progressions if answers.issuperset(p))


def anagrams(number: int) -> tuple[int, ...]:
    """Other numbers with the same digits and no leading zero, in ascending order; empty if there are none."""
    digits = str(number)
    if len(set(digits)) == 1:
        return ()
    found = {int("".join(p)) for p in permutations(digits) if p[0] != "0"}
    return tuple(sorted(found - {number}))


def common_digits(option: int, shown: str) -> int:
    """How many digits an option shares with the digits shown, each counted as often as both have it."""
    # Of all that draws a problem this runs most often; counting each digit takes three times as long.
    common = 0
    for digit in str(option):
        if digit in shown:
            shown = shown.replace(digit, "", 1)
            common += 1
    return common


def alone_resembles(options: Sequence[int], shown: Sequence[int], index: int) -> bool:
    """Whether the option at `index` shares more digits with the numbers shown than every other option does."""
    digits = "".join(map(str, shown))
    most = common_digits(options[index], digits)
    return all(i == index or common_digits(option, digits) < most for i, option in enumerate(options))


def share_by_digits(options: Sequence[int], shown: Sequence[int], right: int) -> float:
    """Chance that the option which shares most digits with the numbers shown, drawn from those that tie, is right."""
    digits = "".join(map(str, shown))
    common = [common_digits(option, digits) for option in options]
    return (common[right] == max(common)) / common.count(max(common))


def trimmed_to_chance(scored: Sequence[tuple[tuple[int, ...], float]]) -> tuple[tuple[int, ...], ...]:
    """Options without those on which a heuristic does best (or worst), so that the rest leaves it at chance.

    Parameters
    ----------
    scored : sequence of (options, accuracy of the heuristic on them)
    """
    ordered = sorted(scored, key=lambda pair: (pair[1], pair[0]))
    excess = sum(accuracy - 1 / N_OPTIONS for _, accuracy in ordered)
    worst = -1 if excess > 0 else 0
    while abs(excess) > TOLERANCE * len(ordered):
        excess -= ordered.pop(worst)[1] - 1 / N_OPTIONS
    return tuple(options for options, _ in ordered)
