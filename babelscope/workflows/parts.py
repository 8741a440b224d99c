"""Which share of a plan a process captures: blocks are dealt out by number, so that nobody has to talk to anybody."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from babelscope.errors import BabelScopeError

T = TypeVar("T")

_WRITTEN = re.compile(r"(\d{1,6})/(\d{1,6})\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """The `number`-th of `count` shares, counted from 1.

    Pools of blocks are dealt out in turn and not in runs: neighbors are of one language, and languages differ in
    length.
    """

    number: int = 1
    count: int = 1

    def of(self, pools: Sequence[T]) -> tuple[T, ...]:
        """The pools of this share, of all pools of a plan in plan order."""
        return tuple(pools[self.number - 1 :: self.count])

    @property
    def whole(self) -> bool:
        """Whether there are no other shares."""
        return self.count == 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def part_of(text: str | None) -> Part:
    """The share written as `3/8`, or that of this process of a `torchrun`; everything where there is neither.

    Raises
    ------
    BabelScopeError
        If it is not a number and a count, or if both are given.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    launched = Part(int(rank) + 1, int(world)) if rank and world and rank.isdigit() and world.isdigit() else Part()
    if text is None:
        return launched
    if not launched.whole:
        raise BabelScopeError(
            f"--part {text} and torchrun (RANK {rank} of WORLD_SIZE {world}) contradict each other",
            "leave --part out, or start each part by itself",
        )
    written = _WRITTEN.match(text)
    part = Part(int(written[1]), int(written[2])) if written else Part(0, 0)
    if not 1 <= part.number <= part.count:
        raise BabelScopeError(f"{text!r} is no part of a whole", "write --part 1/8 to --part 8/8")
    return part


def is_silent() -> bool:
    """Whether another process of the same `torchrun` speaks for this one: all share one terminal."""
    return os.environ.get("RANK", "0") != "0" and "WORLD_SIZE" in os.environ
