"""The gap of every item and pair of languages, which tables of means leave out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.metric import PairMeasure
from babelscope.analyses.pairs import language_pairs, score_pairs
from babelscope.analyses.plan import Task, chosen_metrics, default_metrics, tasks
from babelscope.analyses.statistics import Floats, mean_of_defined
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError


@dataclass(slots=True)
class ItemGaps:
    """Gaps of one metric, variant and site in one group: (pair, item) by layer, and their mean over layers."""

    metric: str
    variant: str
    site: str
    group: str
    by_layer: dict[int | None, Floats]


def item_gaps(study: Study, names: Sequence[str], title: str) -> Iterator[ItemGaps]:
    """Gaps of every metric and variant, one site and layer in memory at a time; layer None: mean over layers.

    Parameters
    ----------
    names : sequence of str
        Metrics; none for those that the store can feed.
    title : str
        What progress is reported as.

    Raises
    ------
    BabelScopeError
        If a metric gives no gap per item, or there is one language alone.
    """
    if len(study.languages) < 2:
        raise BabelScopeError("one language cannot be compared", "name at least two, as --languages en,de")
    if not names:
        names, _ = default_metrics(study.store, study.sites, study.position, "corrected")
    work = tasks(study.store, chosen_metrics(names, {}), study.sites, study.position, "corrected")
    found: dict[tuple[str, str, str, str], ItemGaps] = {}
    for done, task in enumerate(work, start=1):
        measures = _pair_measures(task)
        block = study.block(task.site)
        rows = block.reshape(*block.shape[:2], -1)
        for group, places in group_places(study).items():
            no_shuffles = np.empty((0, len(rows), len(places)), dtype=np.int32)
            scores = score_pairs(rows[:, places], measures, no_shuffles).scores
            for k, measure in enumerate(measures):
                key = (task.name, _named(measure), task.site.name, group)
                found.setdefault(key, ItemGaps(*key, {})).by_layer[task.site.layer] = scores.gap[k]
        study.progress(done, len(work), f"{title}: {task.name} {task.site}")
    for gaps in found.values():
        if None not in gaps.by_layer:
            layers = np.stack(list(gaps.by_layer.values()))
            gaps.by_layer[None] = mean_of_defined(layers, axis=0)
        yield gaps


def group_places(study: Study) -> dict[str, NDArray[np.int64]]:
    """Places of the items of each group among those of the study."""
    ends = np.cumsum([0, *(len(items) for items in study.groups.values())])
    return {name: np.arange(ends[k], ends[k + 1]) for k, name in enumerate(study.groups)}


def _pair_measures(task: Task) -> tuple[PairMeasure, ...]:
    measures = tuple(m for m in task.metric.measures({}) if isinstance(m, PairMeasure))
    if not measures or task.metric.info.per_head:
        raise BabelScopeError(
            f"metric {task.name} has no gap per item and pair of languages", "name others with --set metrics=cs,nao"
        )
    return measures


def _named(measure: PairMeasure) -> str:
    return measure.variant + ("" if np.isnan(measure.threshold) else f" {measure.threshold:g}")


def by_language(gaps: Floats, n_languages: int, source: int | None) -> Floats:
    """(language, item): gap of the pair with the source, NaN in the source itself; without one, mean over all pairs."""
    pairs = language_pairs(n_languages)
    found = np.full((n_languages, gaps.shape[1]), np.nan)
    for language in range(n_languages):
        own = [k for k, pair in enumerate(pairs) if language in pair and (source is None or source in pair)]
        if source is None or language != source:
            found[language] = mean_of_defined(gaps[own], axis=0)
    return found
