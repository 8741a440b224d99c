"""Average neuron-wise correlation: whether the same unit rises for the same items in two languages."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.metric import VECTOR_SITES, MetricInfo, SetMeasure, Sweep
from babelscope.analyses.similarities.cosine_zscored import standardized
from babelscope.analyses.statistics import Floats, mean_of_defined

# Units at a time, so that the products of a shuffle stay in the cache.
CHUNK = 256


class Standardized(NamedTuple):
    """Units of mean 0 and variance 1 over items, (item, unit), and which of them vary."""

    values: NDArray[np.float32]
    varies: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class UnitCorrelation:
    """Mean over units of the correlation over items of a unit with itself in another language.

    Parameters
    ----------
    absolute : bool
        Of the sizes of the correlations, as published. These have a floor of about sqrt(2 / (pi (n - 1))) with n items,
        .08 at n = 100, which the null shows. The signed mean has none.

    Units that are constant in one of the two languages are left out; NaN where all are.

    References
    ----------
    Del and Fishel (2022), arXiv:2212.01924: axes are shared within one model, so invariance to rotation hides what
    matters.
    """

    absolute: bool = True
    highest: ClassVar[float] = 1.0

    def prepare(self, x: NDArray[np.generic], /) -> Standardized:
        """(item, unit)."""
        z = standardized(x)
        return Standardized(z.astype(np.float32), np.asarray((z != 0).any(axis=0)))

    def compare(self, a: Standardized, b: Standardized, /) -> tuple[float, Floats]:
        """The mean correlation, and the mean without each item, in closed form."""
        n, kept = len(a.values), a.varies & b.varies
        if not kept.any():
            return float("nan"), np.full(n, np.nan)
        x, y = (z.values[:, kept].astype(np.float64) for z in (a, b))
        products = x * y
        sums = products.sum(axis=0)
        rest = n / (n - 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            without = (sums - rest * products) / np.sqrt((n - rest * x**2) * (n - rest * y**2))
        # A unit that only the left-out item moves is constant without it.
        without = np.where(np.isfinite(without), without, np.nan)
        return float(self._mean(sums / n)), self._mean(without)

    def shuffled(self, a: Standardized, b: Standardized, order: NDArray[np.int32], /) -> Floats:
        """The mean correlation under other pairings."""
        kept = np.flatnonzero(a.varies & b.varies)
        if not len(kept):
            return np.full(len(order), np.nan)
        if not self.absolute:
            # Without sizes, the sum over units is a dot product of two items.
            cells = a.values[:, kept].astype(np.float64) @ b.values[:, kept].astype(np.float64).T
            return np.asarray(np.take_along_axis(cells, order.T, axis=1).mean(axis=0) / len(kept))
        totals = np.zeros(len(order))
        for start in range(0, len(kept), CHUNK):
            x, y = (np.ascontiguousarray(z.values[:, kept[start : start + CHUNK]]) for z in (a, b))
            for p, row in enumerate(order):
                r = np.einsum("ik,ik->k", x, y[row]) / len(x)
                totals[p] += np.abs(r).sum()
        return totals / len(kept)

    def _mean(self, correlations: Floats) -> Floats:
        return mean_of_defined(np.abs(correlations) if self.absolute else correlations)


@dataclass(frozen=True, slots=True)
class NeuronwiseCorrelation:
    """`UnitCorrelation` of every language pair, of sizes and signed."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Average neuron-wise correlation",
        units="correlation",
        low=-1.0,
        high=1.0,
        reads=VECTOR_SITES,
        source="Del and Fishel (2022), arXiv:2212.01924",
        parameters=MappingProxyType[str, float | str]({}),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """`absolute`, as published, and `signed`."""
        return SetMeasure("absolute", UnitCorrelation()), SetMeasure("signed", UnitCorrelation(absolute=False))

    def paper(self, sweep: Mapping[str, object]) -> None:
        """The published number is the row of a pair, variant `absolute`."""
        return None


metric = NeuronwiseCorrelation()
