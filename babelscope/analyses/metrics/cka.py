"""Debiased linear CKA: whether two languages arrange the same items alike, up to a rotation."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.arrangements import sums_of_products
from babelscope.analyses.metric import VECTOR_SITES, MetricInfo, SetMeasure, Sweep
from babelscope.analyses.statistics import Floats


class Gram(NamedTuple):
    """Dot products of the items of a language with a diagonal of zeros, their row sums, and its HSIC with itself."""

    products: Floats
    rows: Floats
    own: float
    own_without: Floats


@dataclass(frozen=True, slots=True)
class DebiasedCka:
    r"""Linear CKA from the unbiased estimator of HSIC, at most 1, and 0 on average where nothing is shared.

    With Gram matrices whose diagonals are zero,

    .. math:: \mathrm{HSIC}_u(K, L) = \Big[\mathrm{tr}(KL) + \frac{1'K1\;1'L1}{(n-1)(n-2)} - \frac{2}{n-2} 1'KL1\Big]
              \Big/ n(n-3)

    and CKA is HSIC_u(K, L) over the root of HSIC_u(K, K) HSIC_u(L, L). The estimator with the diagonal is near 1 for
    random matrices of many more units than items. NaN where a language's HSIC with itself is not positive. Computed
    from (item, item) matrices alone.

    References
    ----------
    Song et al. (2012), JMLR 13, 1393-1434, equation 5; Kornblith et al. (2019), arXiv:1905.00414; Murphy et al. (2024),
    arXiv:2405.01012, for the bias.
    """

    highest: ClassVar[float] = 1.0

    def prepare(self, x: NDArray[np.generic], /) -> Gram:
        """(item, unit), scaled by its largest entry, which cancels."""
        rows = np.asarray(x, dtype=np.float64)
        # HSIC does not see the mean; without it, the products of narrow cones keep their digits.
        rows = rows - rows.mean(axis=0)
        largest = np.abs(rows).max(initial=0.0)
        rows = rows / largest if largest > 0 else rows
        products = rows @ rows.T
        np.fill_diagonal(products, 0.0)
        sums = products.sum(axis=1)
        own, without = _hsic(products, sums, products, sums)
        return Gram(products, sums, own, without)

    def compare(self, a: Gram, b: Gram, /) -> tuple[float, Floats]:
        """CKA, and CKA without each item, in closed form."""
        value, without = _hsic(a.products, a.rows, b.products, b.rows)
        return float(_over_root(value, a.own * b.own, a.own, b.own)), _over_root(
            without, a.own_without * b.own_without, a.own_without, b.own_without
        )

    def shuffled(self, a: Gram, b: Gram, order: NDArray[np.int32], /) -> Floats:
        """CKA under other pairings."""
        n = len(a.rows)
        trace = sums_of_products(a.products, b.products, order)
        values = _estimate(trace, a.rows.sum(), b.rows.sum(), b.rows[order] @ a.rows, n)
        return _over_root(values, a.own * b.own, a.own, b.own)


Values: TypeAlias = Floats | float


def _estimate(trace: Values, sum_a: Values, sum_b: Values, both: Values, n: int) -> Floats:
    if n < 4:
        return np.full(np.shape(trace), np.nan)
    return np.asarray((trace + sum_a * sum_b / ((n - 1) * (n - 2)) - 2 / (n - 2) * both) / (n * (n - 3)))


def _hsic(K: Floats, k: Floats, L: Floats, m: Floats) -> tuple[float, Floats]:
    """HSIC_u, and HSIC_u without each item."""
    n, trace, own = len(k), float((K * L).sum()), (K * L).sum(axis=1)
    value = float(_estimate(trace, k.sum(), m.sum(), k @ m, n))
    # Without item i the row sums of the others lose K[i, j].
    both = k @ m - k * m - K @ m - L @ k + own
    return value, _estimate(trace - 2 * own, k.sum() - 2 * k, m.sum() - 2 * m, both, n - 1)


def _over_root(value: Values, product: Values, a: Values, b: Values) -> Floats:
    positive = (np.asarray(a) > 0) & (np.asarray(b) > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(positive, value / np.sqrt(np.where(positive, product, 1.0)), np.nan))


@dataclass(frozen=True, slots=True)
class Cka:
    """`DebiasedCka` of every language pair."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Debiased linear CKA",
        units="CKA",
        low=-1.0,
        high=1.0,
        reads=VECTOR_SITES,
        source="Song et al. (2012), JMLR 13, equation 5; Kornblith et al. (2019), arXiv:1905.00414",
        parameters=MappingProxyType[str, float | str]({}),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """One variant, `debiased`."""
        return (SetMeasure("debiased", DebiasedCka()),)

    def paper(self, sweep: Mapping[str, object]) -> None:
        """No paper on languages defines it."""
        return None


metric = Cka()
