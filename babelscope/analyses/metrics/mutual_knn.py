"""Mutual nearest neighbors: whether an item has the same neighbors in two languages."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.arrangements import sums_of_products
from babelscope.analyses.metric import VECTOR_SITES, MetricInfo, SetMeasure, Sweep
from babelscope.analyses.similarities.cosine import unit_rows
from babelscope.analyses.statistics import Floats
from babelscope.errors import BabelScopeError


class Neighbors(NamedTuple):
    """Which items are the nearest of which, and the next one behind them.

    `member` is (item, item): 1 where the second is a neighbor of the first, less where it shares a place. `following`
    is (item,): the item that takes the place of a neighbor that is left out.
    """

    member: Floats
    following: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SharedNeighbors:
    """Share of an item's k nearest neighbors, by cosine within a language, that it has in the other one too.

    By chance k / (n - 1) of n items. NaN where an item is zero, or there are no more than k others. Items that are
    equally near share the last places, so that a language in which nothing differs finds neighbors by chance.

    References
    ----------
    Huh et al. (2024), arXiv:2405.07987, appendix A.
    """

    k: int = 10
    highest: ClassVar[float] = 1.0

    def prepare(self, x: NDArray[np.generic], /) -> Neighbors:
        """(item, unit)."""
        unit = unit_rows(x)
        n = len(unit)
        if n <= self.k or np.isnan(unit).any():
            return Neighbors(np.full((n, n), np.nan), np.zeros(n, dtype=np.int64))
        similarity = np.round(unit @ unit.T, 12)
        np.fill_diagonal(similarity, -np.inf)
        last = np.partition(similarity, n - self.k, axis=1)[:, n - self.k, None]
        nearer, tied = similarity > last, similarity == last
        places = (self.k - nearer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
        nearest = np.argsort(-similarity, axis=1, kind="stable")
        return Neighbors(np.where(nearer, 1.0, np.where(tied, places, 0.0)), nearest[:, min(self.k, n - 2)])

    def compare(self, a: Neighbors, b: Neighbors, /) -> tuple[float, Floats]:
        """The mean share, and the mean without each item, whose place in a list goes to the next one."""
        of_a, of_b = a.member, b.member
        n, rows = len(of_a), np.arange(len(of_a))
        both = of_a * of_b
        shares = both.sum(axis=1)
        changed = (
            both * ((a.following == b.following)[:, None] - 1.0)
            + of_a * of_b[rows, a.following][:, None]
            + of_b * of_a[rows, b.following][:, None]
        )
        without = shares.sum() - shares + changed.sum(axis=0)
        return float(shares.mean() / self.k), without / ((n - 1) * self.k)

    def shuffled(self, a: Neighbors, b: Neighbors, order: NDArray[np.int32], /) -> Floats:
        """The mean share under other pairings, in which an item and its neighbors are renamed together."""
        return sums_of_products(a.member, b.member, order) / (len(a.member) * self.k)


@dataclass(frozen=True, slots=True)
class MutualKnn:
    """`SharedNeighbors` of every language pair.

    Parameters
    ----------
    k : int
        Neighbors, where none are swept.
    """

    k: int = 10

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Mutual nearest neighbors",
        units="fraction of neighbors",
        low=0.0,
        high=1.0,
        reads=VECTOR_SITES,
        source="Huh et al. (2024), arXiv:2405.07987, appendix A",
        parameters=MappingProxyType[str, float | str]({"k": 10.0}),
        sweepable=("k",),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """One measure per k."""
        values = sweep.get("k", [self.k])
        wrong = [v for v in values if v != int(v) or v < 1]
        if wrong:
            raise BabelScopeError(f"k={wrong[0]:g} is no number of neighbors", "write k=5,10,20")
        return tuple(SetMeasure("cosine", SharedNeighbors(int(v)), float(v)) for v in values)

    def paper(self, sweep: Mapping[str, object]) -> None:
        """No paper on languages defines it."""
        return None


metric = MutualKnn()
