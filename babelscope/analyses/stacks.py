"""Similarities of a language to others by many measures, with what the measures share computed once per block."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import Rule
from babelscope.analyses.active_sets import ActiveSets, CountedSimilarity, in_order
from babelscope.analyses.metric import BlockSimilarity, Similarity
from babelscope.analyses.statistics import Floats

# (language, languages beside it) -> (variant, pair, item, item)
Stack = Callable[[int, slice], Floats]


def similarity_stack(x: NDArray[np.generic], similarities: Sequence[Similarity]) -> Stack:
    """Function that gives the similarities of one language of a block to others, stacked.

    Similarities that count active neurons under one rule share its bounds and, where they have the threshold in
    common, the matrix product that counts intersections. Those with a step for the whole block take it here.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    similarities : sequence of Similarity
        One variant each.
    """
    parts: list[tuple[list[int], Stack]] = []
    by_rule: dict[Rule, list[int]] = {}
    for place, similarity in enumerate(similarities):
        if isinstance(similarity, CountedSimilarity):
            by_rule.setdefault(similarity.rule, []).append(place)
        else:
            parts.append(([place], _single(x, similarity)))
    for places in by_rule.values():
        parts.append((places, _counted(x, [similarities[k] for k in places])))  # type: ignore[misc]

    def stack(a: int, others: slice) -> Floats:
        n_items = x.shape[1]
        S = np.empty((len(similarities), len(range(len(x))[others]), n_items, n_items))
        for places, part in parts:
            S[places] = part(a, others)
        return S

    return stack


def _single(x: NDArray[np.generic], similarity: Similarity) -> Stack:
    if isinstance(similarity, BlockSimilarity):
        prepared = similarity.prepare(x)
        return lambda a, others: prepared(a, others)[None]
    return lambda a, others: similarity(x[a], x[others])[None]


def _counted(x: NDArray[np.generic], similarities: Sequence[CountedSimilarity]) -> Stack:
    grid = in_order(similarities)
    sets = ActiveSets.of(x, grid, similarities[0].rule)

    def stack(a: int, others: slice) -> Floats:
        found: list[Floats] = [np.empty(0)] * len(similarities)
        for k, threshold in enumerate(grid):
            counts = sets.counts(a, others, k)
            for place, similarity in enumerate(similarities):
                if similarity.threshold == threshold:
                    found[place] = similarity.of(counts)
        return np.stack(found)

    return stack
