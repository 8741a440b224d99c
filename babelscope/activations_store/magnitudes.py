"""How large the stored numbers are: what is not finite or clipped, and what towers above the rest.

Hidden states hold a few massive activations, thousands of times the median, at fixed units and often at the first token
(Sun et al. 2024, arXiv:2402.17762). They carry little of the item and most of a raw cosine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store.encoding import BEYOND_FLOAT16
from babelscope.activations_store.hdf5 import read_checked
from babelscope.activations_store.numbers import read_numbers
from babelscope.activations_store.shard import group_name
from babelscope.schema import Position

if TYPE_CHECKING:
    from babelscope.activations_store.reader import ActivationStore

# Massive in the sense of Sun et al. (2024): above 100 and above a thousand times the median of its layer.
MASSIVE, MASSIVE_RATIO = 100.0, 1000.0
# A row is far above the rest where its largest value is more than so many times the median row's.
FAR = 3.0

# Values read at once.
AT_ONCE = 1 << 22

# A magnitude is counted by the first 16 bits of its float32, 7 of them of its mantissa: in steps of at most 0.8 %, so
# that a median, the middle of a step, is exact to 0.4 %.
_DROPPED = 16
_INFINITY = 0x7F80

Progress = Callable[[int, int, str], None]


@dataclass(slots=True)
class _Magnitudes:
    """Counts of magnitudes, and the largest one."""

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_INFINITY, np.int64))
    nonfinite: int = 0
    largest: float = np.nan
    where: Any = None

    def add(self, values: NDArray[np.float32]) -> None:
        bits = (np.ascontiguousarray(values, np.float32).view(np.uint32).ravel() & np.uint32(0x7FFFFFFF)) >> _DROPPED
        found = np.bincount(bits, minlength=_INFINITY)
        self.counts += found[:_INFINITY]
        self.nonfinite += int(found[_INFINITY:].sum())

    def offer(self, value: float, where: Any) -> None:
        if value >= 0 and not value <= self.largest:
            self.largest, self.where = value, where

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def median(self) -> float:
        """The middle of the step that holds the median; NaN without values."""
        if not self.n:
            return float("nan")
        step = int(np.searchsorted(np.cumsum(self.counts), (self.n + 1) // 2))
        return float(_edges(step, step + 1).mean()) if step else 0.0

    def above(self, bound: float) -> int:
        """How many are above a bound, to the nearest step."""
        return int(self.counts[_edges(0, _INFINITY) > bound].sum()) if np.isfinite(bound) else 0


def _edges(start: int, stop: int) -> NDArray[np.float64]:
    """The least magnitude of each step, and of the next one where a single step is asked for."""
    last = stop + 1 if stop - start == 1 else stop
    return (np.arange(start, last, dtype=np.uint32) << np.uint32(_DROPPED)).view(np.float32).astype(np.float64)


def row_extremes(store: "ActivationStore") -> pd.DataFrame:
    """The largest |value| of the rows of every site, position and layer, from what is stored beside the values.

    Returns
    -------
    DataFrame
        site, position, layer; rows; nonfinite, values that were NaN or infinite; clipped_rows, rows with a value beyond
        float16 that was clipped to it; median and largest, of the largest |value| of each row (medians to 0.4 %); ratio
        of the two; far_rows, those above `FAR` times the median; and the item and language of the largest.

    Notes
    -----
    In sites of attention, what does not apply is NaN and counts as not finite.
    """
    found: dict[tuple[str, Position, int], _Magnitudes] = {}
    lost: dict[tuple[str, Position, int], NDArray[np.int64]] = {}
    clips = store.plan.dtype == "float16"
    for language, block in _shards(store):
        with store.shard(language, block) as file:
            for site, position in _groups(store):
                group = file[group_name(site, position)]
                items = _items(store, group, position, language, block)
                absmax, nonfinite = (read_checked(group[name]) for name in ("absmax", "nonfinite"))
                for k, rows in enumerate(absmax):
                    one = found.setdefault((site, position, k), _Magnitudes())
                    one.add(rows)
                    if len(rows):
                        top = int(rows.argmax())
                        one.offer(float(rows[top]), (store.items[items[top]], language))
                    counts = lost.setdefault((site, position, k), np.zeros(2, np.int64))
                    counts += (int(nonfinite[k].sum()), int((rows >= BEYOND_FLOAT16).sum()) if clips else 0)
    table = []
    for (site, position, k), one in found.items():
        n_nonfinite, n_clipped = map(int, lost[site, position, k])
        item, language = one.where or ("", "")
        table.append({
            "site": site, "position": str(position), "layer": store.layers(site)[k], "rows": one.n,
            "nonfinite": n_nonfinite, "clipped_rows": n_clipped, "median": one.median, "largest": one.largest,
            "ratio": _ratio(one), "far_rows": one.above(FAR * one.median), "item": item, "language": language,
        })  # fmt: skip
    return pd.DataFrame(table)


def value_extremes(store: "ActivationStore", progress: Progress | None = None) -> pd.DataFrame:
    """The values of every site, position and layer, all of them read, a few million at a time.

    Returns
    -------
    DataFrame
        site, position, layer; n values that are finite, and nonfinite ones; median and largest of |value|, their ratio
        (medians to 0.4 %); massive, the number of values above 100 and above a thousand times the median; unit of the
        largest; leads, the share of rows in which that unit is the largest; rows; item and language of the largest.
    """
    shards = list(_shards(store))
    found: dict[tuple[str, Position, int], _Magnitudes] = {}
    led: dict[tuple[str, Position, int], dict[tuple[int, ...], int]] = {}
    for done, (language, block) in enumerate(shards, start=1):
        with store.shard(language, block) as file:
            for site, position in _groups(store):
                group = file[group_name(site, position)]
                items = _items(store, group, position, language, block)
                for k in range(group["value"].shape[0]):
                    one = found.setdefault((site, position, k), _Magnitudes())
                    leaders = led.setdefault((site, position, k), {})
                    for start, values in _pieces(group, k):
                        row, unit, largest = _taken(one, leaders, values)
                        one.offer(largest, (unit, store.items[items[start + row]], language))
        if progress:
            progress(done, len(shards), "read values")
    rows = []
    for (site, position, k), one in found.items():
        unit, item, language = one.where or ((), "", "")
        leaders = led[site, position, k]
        n_rows = sum(leaders.values())
        massive = one.above(max(MASSIVE, MASSIVE_RATIO * one.median))
        rows.append({
            "site": site, "position": str(position), "layer": store.layers(site)[k], "n": one.n,
            "nonfinite": one.nonfinite, "median": one.median, "largest": one.largest, "ratio": _ratio(one),
            "massive": massive, "unit": ",".join(map(str, unit)),
            "leads": leaders.get(unit, 0) / n_rows if n_rows else float("nan"), "rows": n_rows, "item": item,
            "language": language,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _taken(
    one: _Magnitudes, leaders: dict[tuple[int, ...], int], values: NDArray[np.float32]
) -> tuple[int, tuple[int, ...], float]:
    """Count rows (row, *unit) and the largest unit of each; row, unit and |value| of the largest of all.

    Rows without a finite value have no largest unit; -1 stands for theirs.
    """
    one.add(values)
    flat = np.abs(values.reshape(len(values), -1))
    flat[~np.isfinite(flat)] = -1
    tops = flat.argmax(axis=1)
    largest = flat[np.arange(len(flat)), tops]
    for top, n in zip(*np.unique(tops[largest >= 0], return_counts=True), strict=True):
        unit = _unit(top, values)
        leaders[unit] = leaders.get(unit, 0) + int(n)
    row = int(largest.argmax())
    return row, _unit(tops[row], values), float(largest[row])


def _unit(place: np.integer[Any], values: NDArray[np.float32]) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(int(place), values.shape[1:])))


def _pieces(group: h5py.Group, layer: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(first row, rows) of one layer, so many at a time as bounded memory takes."""
    shape = group["value"].shape
    step = max(1, AT_ONCE // max(int(np.prod(shape[2:])), 1))
    for start in range(0, shape[1], step):
        yield start, np.asarray(read_numbers(group, layer, start, min(start + step, shape[1])), np.float32)


def _ratio(one: _Magnitudes) -> float:
    return one.largest / one.median if one.median else float("nan")


def _shards(store: "ActivationStore") -> Iterator[tuple[str, int]]:
    return ((language, block) for language in store.languages for block in store.blocks(language))


def _groups(store: "ActivationStore") -> list[tuple[str, Position]]:
    return [(site, position) for site in store.sites for position in store.plan.positions]


def _items(
    store: "ActivationStore", group: h5py.Group, position: Position, language: str, block: int
) -> NDArray[np.int64]:
    """The item of each row, as an index into `items`."""
    items = store.captured(language, block)
    return np.repeat(items, np.diff(read_checked(group["row_splits"]))) if position.ragged else items
