"""Per-item scores of a cell turned into the columns of the tidy table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.joint import gap_by_item
from babelscope.analyses.pairs import PairBlock
from babelscope.analyses.statistics import Floats, interval, mean_of_defined, permutation_p, resampled_means

RANK_COLUMNS = ("effect_size", "auc", "retrieval_ab", "retrieval_ba", "mexa")

LEVELS: Mapping[str, float] = {"corrected": 0.95, "paper": 0.99}  # the paper draws 99 % intervals


@dataclass(frozen=True, slots=True)
class Cells:
    """Scores of a grid of (variant, pair) cells.

    Parameters
    ----------
    matched, gap : ndarray
        (variant, pair, item), NaN where undefined.
    whole : ndarray of bool
        (variant, pair, item): whether nothing undefined went into the item's score.
    observed : ndarray
        (variant, pair): the statistic that permutations are compared with.
    permuted : ndarray
        (variant, pair, permutation).
    ranks : mapping
        The columns of `RANK_COLUMNS` that exist, each (variant, pair).
    """

    matched: Floats
    gap: Floats
    whole: NDArray[np.bool_]
    observed: Floats
    permuted: Floats
    ranks: Mapping[str, Floats]

    def variants(self, which: Sequence[int]) -> "Cells":
        """Only some variants."""
        keep = list(which)
        return Cells(
            self.matched[keep], self.gap[keep], self.whole[keep], self.observed[keep], self.permuted[keep],
            {name: values[keep] for name, values in self.ranks.items()},
        )  # fmt: skip


def pair_cells(block: PairBlock) -> Cells:
    """Cells of every language pair at one layer."""
    scores = block.scores
    return Cells(
        scores.matched, scores.gap, ~np.isnan(scores.gap), mean_of_defined(scores.matched), block.permuted,
        {name: getattr(scores, name) for name in RANK_COLUMNS},
    )  # fmt: skip


def joint_cells(values: Floats, draws: NDArray[np.int32], n_null: int) -> Cells:
    """Cells of a joint overlap: the true items, then `n_null` mismatched joins, then free shuffles.

    Parameters
    ----------
    values : ndarray
        (draw, item, threshold).
    draws : ndarray of int32
        (draw, language, item), the true items first.
    """
    mismatched = slice(1, 1 + n_null)
    matched = values[0].T
    gap = gap_by_item(values[0], values[mismatched], draws[mismatched])
    matched = np.where(np.isnan(gap), np.nan, matched)
    spread = np.moveaxis(values[mismatched], -1, 0).reshape(len(matched), -1)
    deviation = np.sqrt(mean_of_defined((spread - mean_of_defined(spread)[:, None]) ** 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = np.where(deviation > 0, mean_of_defined(gap) / deviation, np.nan)
    permuted = mean_of_defined(values[1 + n_null :], axis=1).T
    return Cells(
        matched[:, None], gap[:, None], ~np.isnan(gap)[:, None], mean_of_defined(values[0].T)[:, None],
        permuted[:, None], {"effect_size": effect[:, None]},
    )  # fmt: skip


def mean_over_pairs(cells: Cells) -> Cells:
    """One cell per variant, the mean over language pairs item by item, so that pairs are never counted as data."""
    return Cells(
        mean_of_defined(cells.matched, axis=1)[:, None],
        mean_of_defined(cells.gap, axis=1)[:, None],
        np.asarray(cells.whole.all(axis=1))[:, None],
        mean_of_defined(cells.observed, axis=1)[:, None],
        mean_of_defined(cells.permuted, axis=1)[:, None],
        {name: mean_of_defined(values, axis=1)[:, None] for name, values in cells.ranks.items()},
    )


class LayerMean:
    """Running mean of `Cells` over layers, one layer in memory at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, Floats] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._whole: NDArray[np.bool_] | None = None

    def add(self, cells: Cells) -> None:
        """Take one layer into the mean; what is undefined there does not count."""
        fields = {"matched": cells.matched, "gap": cells.gap, "observed": cells.observed, "permuted": cells.permuted}
        for name, values in {**fields, **cells.ranks}.items():
            defined = ~np.isnan(values)
            filled = np.where(defined, values, 0.0)
            self._sums[name] = filled + self._sums[name] if name in self._sums else filled
            self._counts[name] = defined + self._counts[name] if name in self._counts else defined.astype(np.int64)
        self._whole = cells.whole if self._whole is None else self._whole & cells.whole

    def cells(self) -> Cells:
        """The mean over the layers taken so far."""
        assert self._whole is not None, "no layer was added"
        with np.errstate(invalid="ignore"):
            means = {name: self._sums[name] / self._counts[name] for name in self._sums}
        own = {name: means.pop(name) for name in ("matched", "gap", "observed", "permuted")}
        return Cells(**own, whole=self._whole, ranks=means)


def joined(cells: Sequence[Cells]) -> Cells:
    """Cells side by side along the pair axis."""
    first = cells[0]
    return replace(
        first,
        **{
            name: np.concatenate([getattr(c, name) for c in cells], axis=1)
            for name in ("matched", "gap", "whole", "observed", "permuted")
        },
        ranks={name: np.concatenate([c.ranks[name] for c in cells], axis=1) for name in first.ranks},
    )


def columns(
    cells: Cells, weights: Floats, level: float, highest: float | Floats = 1.0
) -> dict[str, NDArray[np.generic]]:
    """Columns of the tidy table, each (variant, pair).

    `highest` is what identical items reach, one number or (variant, 1); NaN gives no `gap_corrected`.
    `null` is the mean of matched - gap over the items that count, so that gap = matched - null holds in every row.
    """
    matched, gap = mean_of_defined(cells.matched), mean_of_defined(cells.gap)
    null = matched - gap
    matched_low, matched_high = interval(resampled_means(cells.matched, weights), level)
    gap_low, gap_high = interval(resampled_means(cells.gap, weights), level)
    room = highest - null
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding apart, no room means that mismatched items are identical too: the share of nothing.
        corrected = np.where(room > 1e-12, gap / room, np.nan)
    undefined = np.full(matched.shape, np.nan)
    return {
        "n": np.count_nonzero(~np.isnan(cells.gap), axis=-1),
        "n_undefined": np.count_nonzero(~cells.whole, axis=-1),
        "matched": matched,
        "matched_low": matched_low,
        "matched_high": matched_high,
        "null": null,
        "gap": gap,
        "gap_low": gap_low,
        "gap_high": gap_high,
        "gap_corrected": corrected,
        **{name: cells.ranks.get(name, undefined) for name in RANK_COLUMNS},
        "p": permutation_p(cells.observed, cells.permuted),
    }
