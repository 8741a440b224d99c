"""Steps that change a list of words: repeat, insert, delete, swap, at positions that count from 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

StepKind = Literal["repeat", "insert", "delete", "swap"]
Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Parameters
    ----------
    kind : {"repeat", "insert", "delete", "swap"}
    positions : tuple of int
        From 1: none for repeat, two different ones for swap. To insert before one more than the length of the
        list is to insert after its last word.
    word : str
        Key of the word to insert.
    """

    kind: StepKind
    positions: tuple[int, ...] = ()
    word: str = ""


def after(words: Words, steps: Sequence[Step]) -> Words:
    """The list after all steps; every position refers to the list as it is before its step."""
    now = list(words)
    for step in steps:
        places = [p - 1 for p in step.positions]
        if step.kind == "insert":
            now.insert(places[0], step.word)
        elif step.kind == "delete":
            del now[places[0]]
        elif step.kind == "swap":
            now[places[0]], now[places[1]] = now[places[1]], now[places[0]]
    return tuple(now)
