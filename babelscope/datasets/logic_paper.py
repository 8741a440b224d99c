"""The published construction of the logical task (arXiv:2406.16655), flaws included.

Options are never compared with the premises, so another one may follow too (17 % of the published test
items), repeat a premise or repeat another option; names seen in the premises give the right one away; and of
a conjunction it is always the first part that is asked for. Ours differs in the vocabulary alone.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from babelscope.datasets.logic_solver import Statement

# As published: six premises in the code and the data (the paper's appendix says eight).
PREMISES = 6
# As published: the share of wrong options that are right answers of other problems ...
FOREIGN = 0.5
# ... and the chance of each word of the others to be taken from the premises.
SEEN = 0.7

Drawn: TypeAlias = tuple[list[Statement], list[Statement]]


def published_problem(
    rule: str, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> Drawn:
    """Premises in the order shown, and four options of which the first is the right one.

    Parameters
    ----------
    rule : str
    names, properties : sequence of str
        What to draw from.
    rng : numpy.random.Generator
    """
    premises, gold = _core(rule, names, properties, rng)
    while len(premises) < PREMISES:
        filler = _filler(names, properties, rng)
        if filler not in premises and not _clashes(filler, premises):
            premises.append(filler)
    options = [gold]
    while len(options) < 4:
        wrong = _distractor(rule, gold, premises, names, properties, rng)
        if wrong != gold:
            options.append(wrong)
    return [premises[i] for i in rng.permutation(PREMISES)], options


def _core(
    rule: str, names: Sequence[str], properties: Sequence[str], rng: np.random.Generator
) -> tuple[list[Statement], Statement]:
    name = names[rng.integers(len(names))]
    a, b, c = _distinct(properties, 3, rng)
    cores: dict[str, tuple[list[Statement], Statement]] = {
        "implication_elimination": ([("is", name, a), ("any", a, b)], ("is", name, b)),
        "conjunction_introduction": ([("is", name, a), ("is", name, b)], ("and", name, a, b)),
        "conjunction_elimination": ([("and", name, a, b)], ("is", name, a)),
        "disjunction_introduction": ([("is", name, a)], ("or", name, a, b)),
        "disjunction_elimination": (
            [("or", name, a, b), ("so", name, a, c), ("so", name, b, c)],
            ("is", name, c),
        ),
        "proof_by_contradiction": ([("so", name, a, b), ("not", name, b)], ("not", name, a)),
    }
    return cores[rule]


def _filler(names: Sequence[str], properties: Sequence[str], rng: np.random.Generator) -> Statement:
    name = names[rng.integers(len(names))]
    a, b = _distinct(properties, 2, rng)
    forms: tuple[Statement, ...] = (
        ("is", name, a), ("not", name, a), ("any", a, b), ("so", name, a, b), ("or", name, a, b)
    )  # fmt: skip
    return forms[rng.integers(len(forms))]


def _clashes(filler: Statement, premises: Sequence[Statement]) -> bool:
    opposite = {"is": "not", "not": "is"}.get(filler[0])
    return opposite is not None and (opposite, *filler[1:]) in premises


def _distractor(
    rule: str,
    gold: Statement,
    premises: Sequence[Statement],
    names: Sequence[str],
    properties: Sequence[str],
    rng: np.random.Generator,
) -> Statement:
    if rng.random() < FOREIGN:
        return _core(rule, names, properties, rng)[1]
    seen_names = [s[1] for s in premises if s[0] != "any"]
    seen = [w for s in premises for w in (s[1:] if s[0] == "any" else s[2:])]
    words: list[str] = []
    while len(words) < len(gold) - 2:
        word = _of(seen, rng) if rng.random() < SEEN else _of(properties, rng)
        if word not in words:
            words.append(word)
    name = _of(seen_names, rng) if rng.random() < SEEN else _of(names, rng)
    return (gold[0], name, *words)


def _of(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]


def _distinct(words: Sequence[str], n: int, rng: np.random.Generator) -> list[str]:
    return [words[i] for i in rng.permutation(len(words))[:n]]
