"""What a generator of parallel prompts declares and how items stay the same whatever else is generated."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from babelscope.schema import PromptSet

Split = Literal["train", "test"]

# One problem in ten is a test problem unless a rule says otherwise, whatever the seed: the split is a property of the
# problem.
TEST_SHARE = 10


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """How a generated dataset presents itself in listings and docs."""

    title: str
    demand: str  # "knowledge-free" or "knowledge"
    languages: tuple[str, ...]
    source: str


class Dataset(Protocol):
    """A frozen recipe: equal recipes generate equal prompts, and a smaller one generates a prefix."""

    info: ClassVar[DatasetInfo]

    def generate(self, languages: Sequence[str] | None = None) -> PromptSet:
        """The prompts of the recipe in some languages (default: all of `info.languages`)."""
        ...


def split_of(problem: str, share: int = TEST_SHARE) -> Split:
    """Split that a problem belongs to, from a hash of what it shows, so train and test never share one.

    One problem in `share` is a test problem.
    """
    return "test" if hashlib.sha256(problem.encode()).digest()[0] % share == 0 else "train"


def item_rng(dataset: str, seed: int, index: int) -> np.random.Generator:
    """The generator of random numbers of one item, independent of how many items are asked for."""
    digest = hashlib.sha256(f"{dataset}/{seed}/{index}".encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def item_ids(dataset: str, split: Split, seed: int, n: int) -> Iterator[tuple[int, str]]:
    """Index and identifier of each item: `kfrd-arithmetic/test/0/00012`."""
    return ((i, f"{dataset}/{split}/{seed}/{i:05d}") for i in range(n))
