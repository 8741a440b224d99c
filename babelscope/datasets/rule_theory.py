"""Small theories of facts and rules under the closed world, built so that only reasoning tells what follows.

A theory has two sides that mirror each other: two names, and two chains of rules of the same length and the same
kinds. The first name has what the first chain leads to and the second name what the second one leads to; of either
name, the other chain is false. A statement puts one of the names beside one of the properties at one depth, so neither
the theory alone nor the statement alone says whether it is true, and both names, and both properties, occur equally
often. What makes the difference is the *contrast*, at one link of the chains:

- `start`: each name has the first property of its own chain, and the last one of the other chain, where no rule leads
  back, so that linking sentences without minding the direction of rules ties;
- `condition`: both names are at the start of both chains, and each has the second condition of its own chain only;
- `exception`: both are at the start of both, and each has the property that the *other* chain forbids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from babelscope.datasets.logic_solver import Statement

# Form of a sentence: `("is", name, a)`, `("not", name, a)`, `("any", a, b)` (everyone who is a is b),
# `("both", a, b, c)` (everyone who is a and b is c), `("but_not", a, b, c)` (everyone who is a and not b is c).
Atom: TypeAlias = tuple[str, str]

CONTRASTS = ("start", "condition", "exception")
# Links that are no contrast: half have one condition, the others a second one that both names satisfy.
KINDS = ("any", "any", "both", "but_not")


@dataclass(frozen=True, slots=True)
class Theory:
    """Facts and rules, and for each depth the two properties that tell the names apart.

    Parameters
    ----------
    sentences : tuple of Statement
        In random order.
    contrast : str
        One of `CONTRASTS`, or "fact" without rules.
    kinds : tuple of str
        The rule at each link of either chain.
    holders : tuple of (str, str)
        The two names that mirror each other.
    properties : tuple of (str, str)
        By depth of the statement: what the first, and what the second of `holders` has and the other lacks.
        Empty strings before the contrast, where both names have both.
    """

    sentences: tuple[Statement, ...]
    contrast: str
    kinds: tuple[str, ...]
    holders: tuple[str, str]
    properties: tuple[tuple[str, str], ...]


def closure(sentences: Sequence[Statement]) -> Mapping[Atom, int]:
    """All that is true under the closed world, each with the number of rules in the longest line of its proof.

    Forward chaining, one property after another in an order in which a rule is applied after all that its
    conditions depend on; of several proofs the one with the fewest rules in a line counts.

    Raises
    ------
    ValueError
        If a property depends on itself, so that there is no such order.
    """
    depth: dict[Atom, int] = {(s[1], s[2]): 0 for s in sentences if s[0] == "is"}
    rules = [s for s in sentences if s[0] in ("any", "both", "but_not")]
    names = dict.fromkeys(name for name, _ in depth)
    for conclusion in _in_order(rules):
        for form, *conditions, _ in (r for r in rules if r[-1] == conclusion):
            needed = conditions[:1] if form == "but_not" else conditions
            for name in names:
                blocked = form == "but_not" and (name, conditions[1]) in depth
                if blocked or not all((name, c) in depth for c in needed):
                    continue
                steps = 1 + max(depth[name, c] for c in needed)
                depth[name, conclusion] = min(steps, depth.get((name, conclusion), steps))
    return depth


def _in_order(rules: Sequence[Statement]) -> list[str]:
    """Conclusions of rules, each after the conclusions that its conditions are."""
    waits = {r[-1]: {c for q in rules if q[-1] == r[-1] for c in q[1:-1]} for r in rules}
    order: list[str] = []
    while waits:
        ready = [c for c, needs in waits.items() if not needs & waits.keys()]
        if not ready:
            raise ValueError(f"rules depend on each other in a circle: {sorted(waits)}")
        order += ready
        waits = {c: needs for c, needs in waits.items() if c not in ready}
    return order


def mirrored_theory(
    links: int, asked: int, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> Theory:
    """A theory of two chains of `links` rules whose contrast comes before the properties at depth `asked`."""
    contrast = CONTRASTS[int(rng.integers(len(CONTRASTS)))]
    at = 0 if contrast == "start" else int(rng.integers(max(asked, 1)))
    length = links + (contrast == "start")
    kinds = [KINDS[int(i)] for i in rng.integers(len(KINDS), size=length)]
    if contrast != "start":
        kinds[at] = {"condition": "both", "exception": "but_not"}[contrast]
    first, second, other = (names[i] for i in rng.permutation(len(names))[:3].tolist())
    free = (properties[i] for i in rng.permutation(len(properties)).tolist())
    chains = tuple(tuple(next(free) for _ in range(length + 1)) for _ in range(2))
    marks = next(free), next(free)
    helpers = {i: next(free) for i, kind in enumerate(kinds) if kind != "any" and (i != at or contrast == "start")}
    seconds = [(helpers[i],) * 2 if i in helpers else marks if kinds[i] != "any" else ("", "") for i in range(length)]
    sentences = [
        rule
        for side, chain in enumerate(chains)
        for i, kind in enumerate(kinds)
        for rule in [_rule(kind, chain[i], seconds[i][side], chain[i + 1], rng)]
    ]
    sentences += _facts(contrast, (first, second), chains, marks)
    for i, helper in helpers.items():
        sentences += [("is", n, helper) for n in ((first, second) if kinds[i] == "both" else (other,))]
    told = [
        (chains[0][depth], chains[1][depth]) if depth > at or contrast == "start" else ("", "")
        for depth in range(links + 1)
    ]
    if contrast != "start":
        # What the contrast itself says of the names is told by a fact.
        told[0] = marks if contrast == "condition" else (marks[1], marks[0])
    shuffled = tuple(sentences[i] for i in rng.permutation(len(sentences)).tolist())
    return Theory(shuffled, contrast, tuple(kinds), (first, second), tuple(told))


def mirrored_facts(names: Sequence[str], properties: Sequence[str], rng: np.random.Generator) -> Theory:
    """A theory without rules: two names, each with a property that the other lacks."""
    first, second = (names[i] for i in rng.permutation(len(names))[:2].tolist())
    own, others = (properties[i] for i in rng.permutation(len(properties))[:2].tolist())
    sentences: list[Statement] = [("is", first, own), ("is", second, others)]
    shuffled = tuple(sentences[i] for i in rng.permutation(2).tolist())
    return Theory(shuffled, "fact", (), (first, second), ((own, others),))


def _rule(kind: str, before: str, second: str, after: str, rng: np.random.Generator) -> Statement:
    if kind == "any":
        return ("any", before, after)
    conditions = (second, before) if kind == "both" and rng.random() < 0.5 else (before, second)
    return (kind, *conditions, after)


def _facts(
    contrast: str, holders: tuple[str, str], chains: Sequence[Sequence[str]], marks: tuple[str, str]
) -> Iterator[Statement]:
    """What is said of the two names."""
    for side, name in enumerate(holders):
        own, others = chains[side], chains[1 - side]
        yield ("is", name, own[0])
        yield ("is", name, others[-1] if contrast == "start" else others[0])
        if contrast != "start":
            yield ("is", name, marks[side] if contrast == "condition" else marks[1 - side])
