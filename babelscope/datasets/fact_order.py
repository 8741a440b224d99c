"""The order in which facts are asked, and which four of them share their options."""

from collections.abc import Iterator, Sequence
from itertools import count, zip_longest

import numpy as np

from babelscope.datasets.dataset import Split, item_rng
from babelscope.datasets.facts import Fact, facts
from babelscope.errors import BabelScopeError

# Four options, so four facts exchange their objects.
OPTIONS = 4

# Four facts of one relation with four different objects.
Quartet = tuple[Fact, Fact, Fact, Fact]


def asked_facts(items: int, seed: int, split: Split) -> Iterator[tuple[Fact, Quartet]]:
    """Facts in the order asked, each with the quartet whose objects are its options.

    Relations take turns, so any prefix is balanced over them until the smallest is used up. The test split
    asks each fact at most once; the train split starts over with fresh quartets as often as it needs.

    Parameters
    ----------
    items : int
        How many; 0 for one whole pass.
    seed : int
    split : "train" or "test"
        Other quartets and another order, of the same facts.

    Raises
    ------
    BabelScopeError
        If more items are asked of the test split than one pass has, or fewer than none.
    """
    if items < 0:
        raise BabelScopeError(f"{items} items were asked for", "give --items 1 or more (0 for one whole pass)")
    first = _one_pass(split, seed, 0)
    if split == "test" and items > len(first):
        raise BabelScopeError(
            f"{items} items were asked for, but there are {len(first)} facts to ask and none is asked twice",
            f"give --items {len(first)} or fewer",
        )
    left = items or len(first)
    for number in count():
        asked = first if number == 0 else _one_pass(split, seed, number)
        yield from asked[:left]
        left -= len(asked)
        if left <= 0:
            return


def _one_pass(split: Split, seed: int, number: int) -> list[tuple[Fact, Quartet]]:
    relations = dict.fromkeys(fact.relation for fact in facts())
    columns = []
    for relation in relations:
        of_relation = [fact for fact in facts() if fact.relation == relation]
        drawn = quartets(of_relation, item_rng(f"facts/{split}/{relation}", seed, number))
        columns.append([(fact, quartet) for quartet in drawn for fact in quartet])
    return [entry for turn in zip_longest(*columns) for entry in turn if entry is not None]


def quartets(of_relation: Sequence[Fact], rng: np.random.Generator) -> list[Quartet]:
    """As many disjoint quartets of facts with four different objects as there are, drawn at random.

    Within a quartet every object is the right answer once and a wrong one three times. So whoever knows
    the facts' frequencies but not the facts, for instance that most countries of the list lie in Europe,
    gains nothing from the options.
    Drawing three wrong answers independently cannot do that: an object that answers more than a quarter of the
    questions would have to be a wrong answer in more questions than are left.

    Parameters
    ----------
    of_relation : sequence of Fact
        Facts of one relation, no two with the same subject.
    rng : numpy.random.Generator

    Returns
    -------
    list of Quartet
        Facts beyond the largest number of quartets are left out, others for another `rng`.
    """
    waiting: dict[str, list[Fact]] = {}
    for i in rng.permutation(len(of_relation)):
        waiting.setdefault(of_relation[i].object, []).append(of_relation[i])
    sizes = {o: len(of_object) for o, of_object in waiting.items()}
    total = _most_quartets(list(sizes.values()))
    drawn: list[Quartet] = []
    for left in range(total, 0, -1):
        # An object with as many facts as quartets are left must be in each of them, unless too many are.
        due = [o for o, n in sizes.items() if n >= left]
        chosen = [due[i] for i in rng.permutation(len(due))[:OPTIONS]]
        if len(chosen) < OPTIONS:
            free = [o for o, n in sizes.items() if 0 < n < left]
            weights = np.array([sizes[o] for o in free], dtype=float)
            more = rng.choice(len(free), OPTIONS - len(chosen), replace=False, p=weights / weights.sum())
            chosen += [free[i] for i in more]
        for o in chosen:
            sizes[o] -= 1
        a, b, c, d = (waiting[chosen[i]].pop() for i in rng.permutation(OPTIONS))
        drawn.append((a, b, c, d))
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _most_quartets(sizes: Sequence[int]) -> int:
    """Largest k such that k quartets exist: no object fills more than one place of a quartet."""
    k = sum(sizes) // OPTIONS
    while sum(min(n, k) for n in sizes) < OPTIONS * k:
        k -= 1
    return k
