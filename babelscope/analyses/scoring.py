"""One metric at one site: scored layer by layer in workers, joined over layers in the parent."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.estimates import (
    LEVELS,
    Cells,
    LayerMean,
    columns,
    joined,
    joint_cells,
    mean_over_pairs,
    pair_cells,
)
from babelscope.analyses.joint import JointOverlap, JointParts
from babelscope.analyses.metric import PairMeasure, PaperMean, SetMeasure, Sweep
from babelscope.analyses.pairs import language_pairs, score_pairs
from babelscope.analyses.plan import Task
from babelscope.analyses.sets import set_cells
from babelscope.analyses.statistics import Floats, Resamples
from babelscope.analyses.tables import Estimates

MEAN_PAIR = (("*", "*"),)

# A joint overlap has to be counted anew in every draw, unlike a pair, whose draws are look-ups.
JOINT_PERMUTATIONS = 199
JOINT_NULL_DRAWS = 100

# Kept of every layer and head until the last one, for the p of the highest of them.
MAX_T_PERMUTATIONS = 999


@dataclass(frozen=True, slots=True)
class Group:
    """Items of one group with their resamples.

    Parameters
    ----------
    name : str
    rows : ndarray of int64
        Places of the items in the block that is read.
    resamples : Resamples
    draws : ndarray of int32
        (draw, language, item) joins for joint overlaps: the true items, mismatched ones, free shuffles.
    strata : tuple of ndarray of int64, optional
        Items, by their place in the group, that stand in each other's null; without, all of them do.
    """

    name: str
    rows: NDArray[np.int64]
    resamples: Resamples
    draws: NDArray[np.int32]
    strata: tuple[NDArray[np.int64], ...] | None = None


@dataclass(frozen=True, slots=True)
class LayerScores:
    """Scores of one group at one layer, and the estimates that need no other layer."""

    group: str
    pairs: Cells
    joint: JointParts | None
    estimates: tuple[Estimates, ...]


def measures_of(task: Task, sweep: Sweep) -> tuple[PairMeasure | SetMeasure, ...]:
    """Measures that the modes of a task need."""
    measures = task.metric.measures(sweep)
    if task.corrected:
        return measures
    paper = task.metric.paper(sweep)
    return tuple(m for m in measures if isinstance(paper, PaperMean) and m.variant == paper.of)


def score_layer(
    task: Task, x: NDArray[np.generic], languages: tuple[str, ...], groups: tuple[Group, ...], sweep: Sweep
) -> list[LayerScores]:
    """Score every group of items of one block, (language, item, unit), or (language, item, head, unit) head by head."""
    score = _score_heads if task.metric.info.per_head else _score_group
    return [score(task, x[:, g.rows], languages, g, sweep) for g in groups]


def _score_group(
    task: Task, x: NDArray[np.generic], languages: tuple[str, ...], group: Group, sweep: Sweep
) -> LayerScores:
    paper = task.metric.paper(sweep)
    cells = _cells(x, measures_of(task, sweep), group)
    joint = paper.parts(x, group.draws) if task.paper and isinstance(paper, JointOverlap) else None
    estimates: tuple[Estimates, ...] = ()
    # Sites without layers have their only row over all layers.
    if task.site.layer is not None:
        values = paper.per_layer(joint) if joint is not None and isinstance(paper, JointOverlap) else None
        estimates = estimates_of(task, cells, {"macro_layer": values}, languages, group, sweep, task.site.layer)
    return LayerScores(group.name, cells, joint, estimates)


def _score_heads(
    task: Task, x: NDArray[np.generic], languages: tuple[str, ...], group: Group, sweep: Sweep
) -> LayerScores:
    measures, mean = measures_of(task, sweep), LayerMean()
    estimates: list[Estimates] = []
    for head in range(x.shape[2]):
        cells = _cells(x[:, :, head], measures, group)
        estimates += estimates_of(task, cells, {}, languages, group, sweep, task.site.layer, head)
        mean.add(cells)
    estimates += estimates_of(task, mean.cells(), {}, languages, group, sweep, task.site.layer)
    return LayerScores(group.name, mean.cells(), None, tuple(estimates))


def _cells(x: NDArray[np.generic], measures: Sequence[PairMeasure | SetMeasure], group: Group) -> Cells:
    permutations = group.resamples.permutations
    pairs = [m for m in measures if isinstance(m, PairMeasure)]
    sets = [m.similarity for m in measures if isinstance(m, SetMeasure)]
    assert not (pairs and sets), "measures of a metric are of one kind"
    if pairs:
        return pair_cells(score_pairs(x, pairs, permutations, group.strata))
    if sets:
        return set_cells(x, sets, permutations, group.strata)
    empty = np.zeros((0, 0, x.shape[1]))
    return Cells(empty, empty, empty.astype(bool), empty[..., 0], empty, {})


def estimates_of(
    task: Task, cells: Cells, joint: dict[str, Floats | None], languages: tuple[str, ...], group: Group, sweep: Sweep,
    layer: int | None, head: int | None = None,
) -> tuple[Estimates, ...]:  # fmt: skip
    """Estimates in every mode of a task, from its pair cells and its joint values (draw, item, threshold)."""
    weights, measures, paper = group.resamples.weights, measures_of(task, sweep), task.metric.paper(sweep)
    found = []

    def estimate(
        mode: str,
        variants: list[tuple[str, float]],
        pairs: tuple[tuple[str, str], ...],
        all_cells: Cells,
        highest: float | Floats,
    ) -> Estimates:
        return Estimates(
            task.name, mode, task.site.name, layer, group.name, tuple(variants), pairs,
            columns(all_cells, weights, LEVELS[mode], highest), all_cells.gap[:, -1], _drawn(all_cells), head,
        )  # fmt: skip

    if task.corrected:
        named = tuple((languages[a], languages[b]) for a, b in language_pairs(len(languages)))
        both = joined([cells, mean_over_pairs(cells)])
        variants = [(m.variant, m.threshold) for m in measures]
        found.append(estimate("corrected", variants, named + MEAN_PAIR, both, _highest(measures)))
    if task.paper and isinstance(paper, PaperMean):
        which = [k for k, m in enumerate(measures) if m.variant == paper.of]
        mean = mean_over_pairs(cells.variants(which))
        variants = [(paper.variant, measures[k].threshold) for k in which]
        found.append(estimate("paper", variants, MEAN_PAIR, mean, _highest([measures[k] for k in which])))
    if task.paper and isinstance(paper, JointOverlap):
        for variant, values in joint.items():
            if values is not None:
                mean = joint_cells(values, group.draws, JOINT_NULL_DRAWS)
                found.append(estimate("paper", [(variant, t) for t in paper.thresholds], MEAN_PAIR, mean, 1.0))
    return tuple(found)


def _highest(measures: Sequence[PairMeasure | SetMeasure]) -> Floats:
    """(variant, 1): the value that what is identical reaches."""
    return np.array([[m.similarity.highest] for m in measures])


def _drawn(cells: Cells) -> NDArray[np.float32]:
    """The observed mean over pairs and its shuffles, (variant, 1 + permutation)."""
    drawn = np.concatenate([cells.observed[:, -1:], cells.permuted[:, -1, :MAX_T_PERMUTATIONS]], axis=1)
    return np.asarray(drawn, dtype=np.float32)


@dataclass(slots=True)
class SiteScores:
    """Running means over the layers of one metric at one site in one group."""

    task: Task
    n_layers: int = 0
    pairs: LayerMean = field(default_factory=LayerMean)
    per_layer: Floats | None = None
    shared: Floats | None = None
    size: Floats | None = None

    def add(self, scores: LayerScores, sweep: Sweep) -> None:
        """Take one layer into the means."""
        self.n_layers += 1
        self.pairs.add(scores.pairs)
        if scores.joint is not None:
            paper = self.task.metric.paper(sweep)
            assert isinstance(paper, JointOverlap), "only joint overlaps have joint parts"
            ratio = paper.per_layer(scores.joint)
            self.per_layer = ratio if self.per_layer is None else self.per_layer + ratio
            self.shared = scores.joint.shared if self.shared is None else self.shared + scores.joint.shared
            self.size = scores.joint.size if self.size is None else self.size + scores.joint.size

    def overall(self, languages: tuple[str, ...], group: Group, sweep: Sweep) -> tuple[Estimates, ...]:
        """Estimates over all layers taken."""
        joint: dict[str, Floats | None] = {}
        if self.per_layer is not None and self.shared is not None and self.size is not None:
            joint["macro_layer"] = self.per_layer / self.n_layers
            joint["pooled"] = JointOverlap.pooled(self.shared, self.size)
        return estimates_of(self.task, self.pairs.cells(), joint, languages, group, sweep, None)
