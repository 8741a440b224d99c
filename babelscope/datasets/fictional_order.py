"""The order in which fictional facts are asked, and which four of them share their options."""

from collections.abc import Iterator
from itertools import count, zip_longest

from babelscope.datasets.dataset import Split, item_rng
from babelscope.datasets.fact_order import Quartet, quartets
from babelscope.datasets.facts import Fact
from babelscope.datasets.fictional import GROUPS, OBJECTS, fictional_facts
from babelscope.datasets.multiple_choice import check_choice
from babelscope.errors import BabelScopeError

# Which people are asked about: one group, or all in turn.
EVERYONE = "all"


def check_people(items: int, group: str, world: int, split: str) -> None:
    """Refuse fields that mean nothing; BabelScopeError names those that do."""
    check_choice("split", split, ("train", "test"))
    check_choice("group", group, (EVERYONE, *GROUPS))
    if items < 0:
        raise BabelScopeError(f"{items} items were asked for", "give --items 1 or more (0 for one whole pass)")
    if world < 0:
        raise BabelScopeError(f"world {world} does not exist", "give --world 0 or more")


def asked_authors(items: int, seed: int, split: Split, group: str, world: int) -> Iterator[tuple[str, Fact, Quartet]]:
    """Group, fact and the quartet whose objects are its options, in the order asked.

    Groups and relations take turns. The test split asks each fact once, the train split starts over with fresh
    quartets as often as it needs.

    Raises
    ------
    BabelScopeError
        If more items are asked of the test split than there are facts.
    """
    groups = GROUPS if group == EVERYONE else (group,)
    whole = sum(len(fictional_facts(world, g)) for g in groups)
    if split == "test" and items > whole:
        raise BabelScopeError(
            f"{items} items were asked for, but there are {whole} facts to ask and none is asked twice",
            f"give --items {whole} or fewer",
        )
    left = items or whole
    for number in count():
        for entry in _one_pass(groups, seed, split, world, number)[:left]:
            yield entry
            left -= 1
        if left <= 0:
            return


def _one_pass(
    groups: tuple[str, ...], seed: int, split: Split, world: int, number: int
) -> list[tuple[str, Fact, Quartet]]:
    columns = []
    for relation in OBJECTS:
        for group in groups:
            of_relation = [f for f in fictional_facts(world, group) if f.relation == relation]
            drawn = quartets(of_relation, item_rng(f"fictional/{split}/{relation}/{group}/{world}", seed, number))
            columns.append([(group, fact, quartet) for quartet in drawn for fact in quartet])
    return [entry for turn in zip_longest(*columns) for entry in turn]
