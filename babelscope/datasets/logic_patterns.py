"""Logical problems before names and properties are filled in, built so that only reasoning tells the options apart.

The four options of a pattern are the cells of a 2 x 2 table: two names by two properties (or pairs of
properties). Both names, and both properties, stand in equally many premises; each name stands beside each
property in equally many; and the options differ from each other equally. So neither counting words nor
comparing options singles one out. What remains are shortcuts of a reader who follows half of the
reasoning, such as linking premises without minding the direction of an implication; none gets beyond one in two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from types import MappingProxyType

import numpy as np

from babelscope.datasets.logic_solver import Statement, entailed_options, is_consistent


@dataclass(frozen=True, slots=True)
class Pattern:
    """Premises and four options over placeholders; the first option follows and no other does.

    Names are upper case, properties lower case.
    """

    premises: tuple[Statement, ...]
    options: tuple[Statement, ...]


# Six premises, or 2 d + 4 in a chain of depth d.
Build = Callable[[np.random.Generator, int], Pattern]


def implication_chain(rng: np.random.Generator, depth: int) -> Pattern:
    """E stands at the head of a chain of implications, F at the end of another, where nothing follows.

    The two chains are mirror images: each option's property is once a condition and once a consequence.
    """
    u, v = _chain("u", depth + 2), _chain("v", depth + 2)
    premises = (("is", "E", u[0]), ("is", "F", v[-1]), *_links(u), *_links(v))
    return Pattern(premises, _table("is", (u[depth],), (v[1],)))


def contradiction(rng: np.random.Generator, depth: int) -> Pattern:
    """The mirror image of `implication_chain`: E lacks what the end of a chain says, F what the head says."""
    u, v = _chain("u", 3), _chain("v", 3)
    premises = (("not", "E", u[2]), ("not", "F", v[0]), *_links(u), *_links(v))
    return Pattern(premises, _table("not", (u[1],), (v[1],)))


def conjunction_introduction(rng: np.random.Generator, depth: int) -> Pattern:
    """Of a pair of properties, only E has both; the others are merely mentioned, in a condition or an alternative."""
    coins = rng.integers(0, 2, 3)
    # An alternative says the name once, as an assertion does; a condition says it twice, so E and F have
    # one each or none.
    f_is_b = ("is", "F", "b") if coins[0] else ("or", "F", "b", "z")
    premises = (
        ("is", "E", "a"),
        ("is", "E", "b"),
        _mention("E", "d", "x", coins[2]),
        _mention("F", "a", "y", coins[2]),
        f_is_b,
        ("is", "F", "d"),
    )
    pairs = (("a", "b"), ("a", "d")) if coins[1] else (("b", "a"), ("d", "a"))
    return Pattern(premises, _table("and", *pairs))


def conjunction_elimination(rng: np.random.Generator, depth: int) -> Pattern:
    """E, F and G have two properties each, but of E and F only E has one that is asked for."""
    coins = rng.integers(0, 2, 5)
    # The properties of options come first in their sentences equally often, so quoting a premise is no cue.
    premises = (
        _pair("and", "E", "b", "x", coins[0]),
        _pair("or", "E", "d", "y", not coins[0]),
        _pair("or", "F", "b", "d", coins[1]),
        _pair("and", "F", "z", "w", coins[2]),
        _pair("and", "G", "d", "v", coins[3]),
        _pair("or", "G", "b", "u", coins[4]),
    )
    return Pattern(premises, _table("is", ("b",), ("d",)))


def disjunction_introduction(rng: np.random.Generator, depth: int) -> Pattern:
    """E and F have one property each, but only E has one that an alternative asks for.

    The others stand as consequences, never as conditions, where some languages inflect them: the right one
    would be the only one that looks as it does in the options.
    """
    premises = (
        ("is", "E", "a"),
        ("so", "E", "x", "c"),
        ("so", "E", "v", "w"),
        ("is", "F", "y"),
        ("so", "F", "p", "a"),
        ("so", "F", "q", "c"),
    )
    pairs = (("a", "z"), ("c", "z")) if rng.integers(2) else (("z", "a"), ("z", "c"))
    return Pattern(premises, _table("or", *pairs))


def disjunction_elimination(rng: np.random.Generator, depth: int) -> Pattern:
    """Both alternatives of E lead to c; of those that lead to d, each name lacks one."""
    coins = rng.integers(0, 2, 2)
    premises = (
        _pair("or", "E", "a", "b", coins[0]),
        _pair("or", "F", "p", "q", coins[1]),
        ("any", "a", "c"),
        ("any", "b", "c"),
        ("any", "a", "d"),
        ("any", "p", "d"),
    )
    return Pattern(premises, _table("is", ("c",), ("d",)))


PATTERNS: Mapping[str, Build] = MappingProxyType(
    {
        "implication_elimination": implication_chain,
        "conjunction_introduction": conjunction_introduction,
        "conjunction_elimination": conjunction_elimination,
        "disjunction_introduction": disjunction_introduction,
        "disjunction_elimination": disjunction_elimination,
        "proof_by_contradiction": contradiction,
        "chain": implication_chain,
    }
)


@lru_cache(maxsize=4096)
def check(pattern: Pattern) -> None:
    """Raise if the premises clash or any option but the first follows from them.

    Which names and properties are filled in makes no difference to what follows, so each pattern is
    solved once and the verdict holds for every item made of it.

    Raises
    ------
    AssertionError
        A slip in this module, not of the user.
    """
    if not is_consistent(pattern.premises) or entailed_options(pattern.premises, pattern.options) != (0,):
        raise AssertionError(f"not exactly the first option follows: {pattern}")


def _table(form: str, right: tuple[str, ...], wrong: tuple[str, ...]) -> tuple[Statement, ...]:
    return tuple((form, name, *properties) for name in ("E", "F") for properties in (right, wrong))


def _chain(letter: str, n: int) -> list[str]:
    return [f"{letter}{i}" for i in range(n)]


def _links(chain: list[str]) -> list[Statement]:
    return [("any", a, b) for a, b in pairwise(chain)]


def _pair(form: str, name: str, a: str, b: str, in_order: object) -> Statement:
    return (form, name, a, b) if in_order else (form, name, b, a)


def _mention(name: str, a: str, other: str, as_consequence: object) -> Statement:
    """A premise in which the name is said to be `a`, but not asserted to be: both quote "NAME is a".

    As a condition it might be inflected, unlike in the options.
    """
    return ("so", name, other, a) if as_consequence else ("or", name, a, other)
