"""Representational similarity analysis: whether two languages rank the distances between the same items alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.arrangements import sums_of_products
from babelscope.analyses.metric import VECTOR_SITES, MetricInfo, SetMeasure, Sweep
from babelscope.analyses.similarities.cosine import unit_rows
from babelscope.analyses.statistics import Floats, share


class Ranks(NamedTuple):
    """Ranks of the dissimilarities of all pairs of items, centered, (item, item) with a diagonal of zeros."""

    matrix: Floats
    pairs: int


@dataclass(frozen=True, slots=True)
class RankedDistances:
    """Spearman correlation of the upper triangles of two matrices of dissimilarities, in [-1, 1].

    The dissimilarity of two items is 1 minus the Pearson correlation of their vectors. Without an item, the ranks of
    the other pairs are kept as they are among all. NaN where an item is constant, or all pairs are equally far apart.

    References
    ----------
    Kriegeskorte et al. (2008), Frontiers in Systems Neuroscience 2:4.
    """

    highest: ClassVar[float] = 1.0

    def prepare(self, x: NDArray[np.generic], /) -> Ranks:
        """(item, unit)."""
        rows = np.asarray(x, dtype=np.float64)
        unit = unit_rows(rows - rows.mean(axis=1, keepdims=True))
        n = len(rows)
        upper = np.triu_indices(n, 1)
        # Equal distances may differ in the last bits, and must tie.
        distances = np.round(1 - (unit @ unit.T)[upper], 12)
        ranks = stats.rankdata(distances) if np.isfinite(distances).all() else np.full(len(distances), np.nan)
        matrix = np.zeros((n, n))
        matrix[upper] = ranks - ranks.mean()
        return Ranks(matrix + matrix.T, len(distances))

    def compare(self, a: Ranks, b: Ranks, /) -> tuple[float, Floats]:
        """The correlation, and the correlation without the pairs of each item."""
        both, of_a, of_b = a.matrix * b.matrix, a.matrix**2, b.matrix**2
        value = share(both.sum(), np.sqrt(of_a.sum() * of_b.sum()))
        pairs = a.pairs - (len(a.matrix) - 1)
        # Each pair stands twice in a matrix, and item i in its row and its column.
        left = [x.sum() / 2 - x.sum(axis=1) for x in (both, of_a, of_b)]
        mean_a, mean_b = (x.matrix.sum() / 2 - x.matrix.sum(axis=1) for x in (a, b))
        covariance = left[0] - mean_a * mean_b / pairs
        variances = (left[1] - mean_a**2 / pairs) * (left[2] - mean_b**2 / pairs)
        return float(value), share(covariance, np.sqrt(np.maximum(variances, 0.0)))

    def shuffled(self, a: Ranks, b: Ranks, order: NDArray[np.int32], /) -> Floats:
        """The correlation under other pairings, as in a Mantel test."""
        length = np.sqrt((a.matrix**2).sum() * (b.matrix**2).sum())
        return share(sums_of_products(a.matrix, b.matrix, order), length)


@dataclass(frozen=True, slots=True)
class Rsa:
    """`RankedDistances` of every language pair."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Representational similarity analysis",
        units="Spearman correlation of dissimilarities",
        low=-1.0,
        high=1.0,
        reads=VECTOR_SITES,
        source="Kriegeskorte et al. (2008), Frontiers in Systems Neuroscience 2:4",
        parameters=MappingProxyType[str, float | str]({}),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """One variant, `spearman`."""
        return (SetMeasure("spearman", RankedDistances()),)

    def paper(self, sweep: Mapping[str, object]) -> None:
        """No paper on languages defines it."""
        return None


metric = Rsa()
