"""The published construction of the logical task (arXiv:2406.16655), flaws included.

Options are never compared with the premises, so another one may follow too (17 % of the published test
items), repeat a premise or repeat another option; names seen in the premises give the right one away; and of
a conjunction it is always the first part that is asked for. Ours differs in the vocabulary alone, which has
fewer properties (the published one has 400).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from babelscope.datasets.logic_solver import Statement

# As in the published code and data (the paper's appendix says eight).
PREMISES = 6
NAMES = 9
# As published: the share of wrong options that are right answers of other problems ...
FOREIGN = 0.5
# ... and the chance of each word of the others to come from what the item was made of so far.
SEEN = 0.7


@dataclass(frozen=True, slots=True)
class _Core:
    """The premises that a rule needs, and what it draws from them."""

    premises: tuple[Statement, ...]
    gold: Statement


def published_problem(
    rule: str, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> tuple[list[Statement], list[Statement]]:
    """Premises in the order shown, and four options of which the first is the right one.

    Parameters
    ----------
    rule : str
    names, properties : sequence of str
        What to draw from; of the names, only the first nine.
    rng : numpy.random.Generator
    """
    names = names[:NAMES]
    core = _core(rule, names, properties, rng)
    fillers = _fillers(core, rule, names, properties, rng)
    seen_names, seen = [core.gold[1]], _properties(core)
    options = [core.gold]
    while len(options) < 4:
        if rng.random() < FOREIGN:
            other = _core(rule, names, properties, rng)
            seen_names, seen = [*seen_names, other.gold[1]], [*seen, *_properties(other)]
            wrong = other.gold
        else:
            name = _of(seen_names if rng.random() < SEEN else names, rng)
            wrong = (core.gold[0], name, *_two(seen, properties, rng)[: len(core.gold) - 2])
        if wrong != core.gold:
            options.append(wrong)
    premises = [*core.premises, *fillers]
    return [premises[i] for i in rng.permutation(PREMISES)], options


def _core(rule: str, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator) -> _Core:
    name = _of(names, rng)
    a, b, c = _distinct(properties, 3, rng)
    return {
        "implication_elimination": _Core((("is", name, a), ("any", a, b)), ("is", name, b)),
        "conjunction_introduction": _Core((("is", name, a), ("is", name, b)), ("and", name, a, b)),
        "conjunction_elimination": _Core((("and", name, a, b),), ("is", name, a)),
        "disjunction_introduction": _Core((("is", name, a),), ("or", name, a, b)),
        "disjunction_elimination": _Core((("or", name, a, b), ("so", name, a, c), ("so", name, b, c)), ("is", name, c)),
        "proof_by_contradiction": _Core((("so", name, a, b), ("not", name, b)), ("not", name, a)),
    }[rule]


def _properties(core: _Core) -> list[str]:
    words = [w for s in (*core.premises, core.gold) for w in (s[1:] if s[0] == "any" else s[2:])]
    return list(dict.fromkeys(words))


def _fillers(
    core: _Core, rule: str, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> list[Statement]:
    """Random premises, drawn again while they hold a second instance of the rule among themselves."""
    while True:
        fillers = [_filler(names, properties, rng) for _ in range(PREMISES - len(core.premises))]
        if rule not in _SECOND_INSTANCE or not _SECOND_INSTANCE[rule](fillers, core.gold[1]):
            return fillers


def _filler(names: Sequence[str], properties: Sequence[str], rng: np.random.Generator) -> Statement:
    name = _of(names, rng)
    a, b = _distinct(properties, 2, rng)
    forms: tuple[Statement, ...] = (
        ("is", name, a), ("not", name, a), ("any", a, b), ("so", name, a, b), ("or", name, a, b)
    )  # fmt: skip
    return forms[int(rng.integers(len(forms)))]


def _applies_implication(fillers: Sequence[Statement], name: str) -> bool:
    conditions = {s[1] for s in fillers if s[0] == "any"}
    return any(s[0] == "is" and s[2] in conditions for s in fillers)


def _joins_two(fillers: Sequence[Statement], name: str) -> bool:
    holders = [s[1] for s in fillers if s[0] == "is"]
    return name in holders or len(set(holders)) < len(holders)


def _contradicts(fillers: Sequence[Statement], name: str) -> bool:
    lacking = {s[1:] for s in fillers if s[0] == "not"}
    return any(s[0] == "so" and (s[1], s[3]) in lacking for s in fillers)


# The published checks look at no other rule, and at fillers alone.
_SECOND_INSTANCE: Mapping[str, Callable[[Sequence[Statement], str], bool]] = MappingProxyType(
    {
        "implication_elimination": _applies_implication,
        "conjunction_introduction": _joins_two,
        "proof_by_contradiction": _contradicts,
    }
)


def _two(seen: Sequence[str], properties: Sequence[str], rng: np.random.Generator) -> list[str]:
    first, second = _distinct(properties, 2, rng)
    if rng.random() < SEEN:
        first = _of(seen, rng)
    if rng.random() < SEEN:
        second = _of(seen, rng)
    while second == first:
        second = _of(properties, rng)
    return [first, second]


def _of(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]


def _distinct(words: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))[:n]]
