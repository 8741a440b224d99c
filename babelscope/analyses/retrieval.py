"""Similarities that ask whether an item finds itself in another language."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.statistics import Floats

# Similarities (item, item) -> for every cell, how far that item of b is found by that item of a.
Hits = Callable[[Floats], Floats]


def first_of_row_and_column(S: Floats) -> Floats:
    """1 where a cell is strictly the highest of its row and of its column (MEXA)."""
    return _first(S, 1) * _first(S, 0)


def first_of_row_or_column(S: Floats) -> Floats:
    """Half for the highest of its row and half for the highest of its column: retrieval in both directions."""
    return (_first(S, 1) + _first(S, 0)) / 2


def _first(S: Floats, axis: int) -> Floats:
    """1 where a cell is strictly the highest along an axis; 0 elsewhere, and for cells beside an undefined one."""
    two = np.sort(S, axis=axis).take([-2, -1], axis=axis)
    second, best = np.split(two, 2, axis=axis)
    return np.asarray((best == S) & (best > second), dtype=np.float64)


def scaled_locally(S: Floats, k: int) -> Floats:
    """CSLS: twice the similarity, less the mean of the k highest of the row and of the column.

    Items that are near to everything (hubs) stop winning by that. Conneau et al. (2018), arXiv:1710.04087, equation 3.
    """
    k = min(k, len(S))
    rows, columns = (
        np.sort(S, axis=axis).take(range(-k, 0), axis=axis).mean(axis=axis, keepdims=True) for axis in (1, 0)
    )
    return np.asarray(2 * S - rows - columns)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Share of items that are found in the other language.

    Parameters
    ----------
    rows : callable
        (item, unit) -> rows whose products are similarities.
    hits : callable
        Similarities to hits.
    neighbors : int
        Of CSLS; 0 for the similarities as they are.
    """

    rows: Callable[[NDArray[np.generic]], Floats]
    hits: Hits
    neighbors: int = 0
    highest: ClassVar[float] = 1.0

    def prepare(self, x: NDArray[np.generic], /) -> Floats:
        """(item, unit)."""
        return self.rows(x)

    def _cells(self, a: Floats, b: Floats) -> Floats:
        S = a @ b.T
        return self.hits(scaled_locally(S, self.neighbors) if self.neighbors else S)

    def compare(self, a: Floats, b: Floats, /) -> tuple[float, Floats]:
        """The share of items found, and the share among the others; NaN for items of undefined similarity."""
        defined = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1))
        if defined.sum() < 2:
            return float("nan"), np.full(len(a), np.nan)
        found = np.full(len(a), np.nan)
        found[defined] = np.diagonal(self._cells(a[defined], b[defined]))
        total, n = np.nansum(found), int(defined.sum())
        return float(total / n), (total - found) / (n - 1)

    def shuffled(self, a: Floats, b: Floats, order: NDArray[np.int32], /) -> Floats:
        """The share under other pairings."""
        defined_a, defined_b = ~np.isnan(a).any(axis=1), ~np.isnan(b).any(axis=1)
        cells = np.full((len(a), len(b)), np.nan)
        if defined_a.sum() > 1 and defined_b.sum() > 1:
            cells[np.ix_(defined_a, defined_b)] = self._cells(a[defined_a], b[defined_b])
        picked = np.take_along_axis(cells, order.T, axis=1)
        counted = ~np.isnan(picked)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.nansum(picked, axis=0) / counted.sum(axis=0))
