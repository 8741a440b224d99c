"""Universes: the ways in which one store could have been analyzed, and what each of them says of a claim."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.bands import FIRST, LAST, MIDDLE, layer_thirds
from babelscope.analyses.estimates import LEVELS
from babelscope.analyses.joint import JointOverlap
from babelscope.analyses.metric import Metric, PaperMean, Sweep
from babelscope.analyses.plan import Task
from babelscope.analyses.runner import Estimated
from babelscope.analyses.statistics import (
    Floats,
    contrast,
    interval,
    mean_of_defined,
    permutation_p,
    resampled_means,
    share,
    stream,
)
from babelscope.analyses.tables import Estimates

ALL_ITEMS, ALL_LAYERS = "all items", "all layers"
GAP, ABOVE, PEAK = "gap above zero", "gap of {} above that of {}", "highest in the middle layers"


@dataclass(frozen=True, slots=True)
class Universe:
    """One choice of everything that could have been chosen; `threshold` is NaN for measures without one."""

    position: str
    null_level: str
    metric: str
    mode: str
    variant: str
    threshold: float
    site: str
    band: str

    @property
    def key(self) -> tuple[str, ...]:
        """What it shares with the same curve over layers: everything but position, null and band."""
        return self.metric, self.mode, self.variant, f"{self.threshold}", self.site


CHOICES = tuple(Universe.__dataclass_fields__)


def universes(
    work: Sequence[Task], sweep: Sweep, *, position: str, nulls: Sequence[str], n_layers: int
) -> Iterator[Universe]:
    """Every universe that some tasks allow at one position."""
    layers: dict[tuple[str, str], list[int]] = {}
    for task in work:
        if task.site.layer is not None:
            layers.setdefault((task.name, task.site.name), []).append(task.site.layer)
    papers = {(task.name, task.site.name) for task in work if task.paper}
    metrics = {task.name: task.metric for task in work}
    for (name, site), stored in layers.items():
        bands = [ALL_LAYERS, *(band for band, chosen in layer_thirds(stored, n_layers).items() if chosen)]
        for null in nulls:
            for mode, variant, threshold in _variants(metrics[name], sweep, paper=(name, site) in papers):
                # What was published has no restricted null.
                if mode == "corrected" or null == ALL_ITEMS:
                    for band in bands:
                        yield Universe(position, null, name, mode, variant, threshold, site, band)


def _variants(metric: Metric, sweep: Sweep, *, paper: bool) -> Iterator[tuple[str, str, float]]:
    measures = metric.measures(sweep)
    for measure in measures:
        yield "corrected", measure.variant, measure.threshold
    published = metric.paper(sweep) if paper else None
    if isinstance(published, PaperMean):
        for measure in measures:
            if measure.variant == published.of:
                yield "paper", published.variant, measure.threshold
    if isinstance(published, JointOverlap):
        for threshold in published.thresholds:
            yield "paper", "macro_layer", threshold


@dataclass(frozen=True, slots=True)
class Curve:
    """One measure of one group over the layers.

    Parameters
    ----------
    gaps : mapping
        Layer -> (item,) gaps of the mean over pairs.
    drawn : mapping
        Layer -> (1 + permutation,): the mean over pairs, observed and shuffled.
    level : float
        Of the intervals of its mode.
    """

    gaps: Mapping[int, Floats]
    drawn: Mapping[int, Floats]
    level: float

    def over(self, layers: Sequence[int]) -> Floats:
        """(item,): mean over some layers."""
        return mean_of_defined(np.stack([self.gaps[layer] for layer in layers]), axis=0)

    def layers(self, band: str, n_layers: int) -> list[int]:
        """Those of a band."""
        return list(self.gaps) if band == ALL_LAYERS else layer_thirds(list(self.gaps), n_layers)[band]


def curves(found: Estimated) -> dict[tuple[str, ...], dict[str, Curve]]:
    """Key of a universe -> group -> curve over the layers."""
    rows: dict[tuple[tuple[str, ...], str], list[tuple[Estimates, int]]] = {}
    for estimates in found.estimates.values():
        for e in estimates:
            if e.layer is not None and e.head is None:
                for k, (variant, threshold) in enumerate(e.variants):
                    key: tuple[str, ...] = (e.metric, e.mode, variant, f"{threshold}", e.site)
                    rows.setdefault((key, e.group), []).append((e, k))
    result: dict[tuple[str, ...], dict[str, Curve]] = {}
    for (key, group), cells in rows.items():
        gaps = {e.layer: e.gap_items[k] for e, k in cells if e.layer is not None}
        drawn = {e.layer: e.drawn[k].astype(np.float64) for e, k in cells if e.layer is not None}
        result.setdefault(key, {})[group] = Curve(gaps, drawn, LEVELS[cells[0][0].mode])
    return result


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a universe says of a claim.

    Parameters
    ----------
    row : mapping
        Columns of the table of universes.
    signs : ndarray of int8
        (resample,): 1 where the estimate is above zero, 0 where it is not, -1 where it is undefined.
    z : ndarray
        (1 + permutation,): the statistic of the claim, observed and shuffled, in standard deviations of the shuffles;
        empty where the claim has none.
    """

    row: Mapping[str, Any]
    signs: NDArray[np.int8]
    z: Floats


def judged(
    universe: Universe, by_group: Mapping[str, Curve], weights: Mapping[str, Floats], *, n_layers: int, n_perm: int,
    seed: int,
) -> Iterator[Verdict]:  # fmt: skip
    """Every claim in one universe: the gap of each group, contrasts of groups, and where the curve is highest."""
    items: dict[str, Floats] = {}
    for group, curve in by_group.items():
        layers = curve.layers(universe.band, n_layers)
        items[group] = curve.over(layers)
        drawn = mean_of_defined(np.stack([curve.drawn[layer] for layer in layers]), axis=0)
        p = float(permutation_p(drawn[0], drawn[1:]))
        resampled = resampled_means(items[group], weights[group])
        estimate = float(mean_of_defined(items[group]))
        centered = drawn - mean_of_defined(drawn[1:])
        z = share(centered, np.sqrt(mean_of_defined(centered[1:] ** 2)))
        n = _n(items[group])
        yield Verdict(_row(universe, GAP, group, n, estimate, resampled, curve.level, p), _signs(resampled), z)
        thirds = layer_thirds(list(curve.gaps), n_layers)
        # Where it is highest is a claim on all layers, whatever band others look at.
        if universe.band == ALL_LAYERS and all(thirds.values()):
            yield _peak(universe, group, curve, thirds, weights[group])
    groups = list(by_group)
    for i, a in enumerate(groups):
        for b in groups[i + 1 :]:
            rng = stream(seed, "contrast", a, b)
            level = by_group[a].level
            found = contrast(items[a], items[b], weights[a], weights[b], n_perm=n_perm, level=level, rng=rng)
            resampled = resampled_means(items[a], weights[a]) - resampled_means(items[b], weights[b])
            n = min(_n(items[a]), _n(items[b]))
            row = _row(
                universe, ABOVE.format(a, b), f"{a} - {b}", n, float(found.estimate), resampled, level, float(found.p)
            )
            yield Verdict(row, _signs(resampled), np.empty(0))


def _signs(resampled: Floats) -> NDArray[np.int8]:
    return np.where(np.isnan(resampled), -1, resampled > 0).astype(np.int8)


def _n(items: Floats) -> int:
    return int(np.count_nonzero(~np.isnan(items)))


def _peak(
    universe: Universe, group: str, curve: Curve, thirds: Mapping[str, list[int]], weights: Floats
) -> Verdict:  # fmt: skip
    """The mean of the middle third minus that of the higher of the two others."""
    above = np.stack([curve.over(thirds[MIDDLE]) - curve.over(thirds[other]) for other in (FIRST, LAST)])
    estimate = float(mean_of_defined(above).min())
    resampled = resampled_means(above, weights).min(axis=0)
    n = _n(above.sum(axis=0))
    return Verdict(
        _row(universe, PEAK, group, n, estimate, resampled, curve.level, np.nan), _signs(resampled), np.empty(0)
    )


def _row(
    universe: Universe, claim: str, group: str, n: int, estimate: float, resampled: Floats, level: float, p: float
) -> dict[str, Any]:
    low, high = (float(x) for x in interval(resampled, level))
    error = np.sqrt(mean_of_defined((resampled - mean_of_defined(resampled)) ** 2))
    return {
        "of_claim": claim, "group": group, **asdict(universe), "n": n, "estimate": estimate, "low": low, "high": high,
        "null": 0.0, "p": p, "standardized": float(share(np.array(estimate), error)),
        "same_sign": estimate > 0, "agrees": low > 0, "testable": not np.isnan([estimate, low]).any(),
    }  # fmt: skip


def by_choice(table: pd.DataFrame) -> pd.DataFrame:
    """Share of universes that agree with each claim, choice by choice: where it falls, that choice decides."""
    rows = [
        {"of_claim": claim, "group": group, "choice": choice, "value": str(value), "n_universes": len(part),
         "same_sign": part["same_sign"].mean(), "agrees": part["agrees"].mean(), "null": 0.025}
        for choice in CHOICES
        for (claim, group, value), part in table[table["testable"]].groupby(["of_claim", "group", choice], dropna=False)
    ]  # fmt: skip
    names = ["of_claim", "group", "choice", "value", "n_universes", "same_sign", "agrees", "null"]
    return pd.DataFrame(rows, columns=names)
