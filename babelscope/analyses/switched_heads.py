"""Everything that is measured of one pair of languages in a store of prompts in each of them and in both at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.estimates import Cells, LayerMean, columns, mean_over_pairs, pair_cells
from babelscope.analyses.metrics.attention_stability import metric
from babelscope.analyses.pairs import score_pairs
from babelscope.analyses.scoring import MAX_T_PERMUTATIONS
from babelscope.analyses.statistics import Floats, Resamples, resample
from babelscope.analyses.study import Study
from babelscope.analyses.switched import Switched, changes, dose, even_crossed, other_segments
from babelscope.schema import Site

LEVEL = 0.95


@dataclass(slots=True)
class Measured:
    """One pair of languages in one group at all layers and heads, (cell, item) each; cells are (layer, head).

    `gaps` are rows of the gap per cell, `drawn` its (cell, 1 + permutation) means.
    """

    switched: Switched
    group: str
    site: str
    cells: list[tuple[int, int]] = field(default_factory=list)
    values: dict[str, list[tuple[Floats, Floats]]] = field(default_factory=dict)
    doses: list[Floats] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    drawn: list[Floats] = field(default_factory=list)
    over_heads: LayerMean = field(default_factory=LayerMean)

    def levels(self, quantity: str) -> Floats:
        """(cell, item)."""
        return np.concatenate([level for level, _ in self.values[quantity]], axis=-1).T

    def differences(self, quantity: str) -> Floats:
        """(cell, item)."""
        return np.concatenate([found for _, found in self.values[quantity]], axis=-1).T


def measured(study: Study, sites: Sequence[Site], switched: Switched, group: str) -> Measured:
    """Read one site, layer by layer, in the items of a group.

    Raises
    ------
    BabelScopeError
        If the position of the study mixes query tokens of both languages.
    """
    places = [study.languages.index(language) for language in switched.languages]
    items = study.groups[group]
    by_item = {p.item: p for p in study.prompts.of(switched.code)}
    segments = study.store.plan.segments
    other = other_segments([by_item[i] for i in items], segments, study.position)
    resamples = resamples_of(study, switched.languages, group)
    found = Measured(switched, group, sites[0].name)
    for number, site in enumerate(sites):
        study.progress(number, len(sites), f"{switched.code} {site}")
        x = np.asarray(study.block(site, items=items))[places]
        assert site.layer is not None
        found.cells += [(site.layer, head) for head in range(x.shape[2])]
        for quantity, pair in changes(x, other).items():
            found.values.setdefault(quantity, []).append(pair)
        found.doses.append(dose(x[2], other))
        crossed = Site("attn.crossed", site.layer, site.stack)
        if crossed in study.store.plan.sites:
            own = np.asarray(study.block(crossed, items=items), dtype=np.float64)[places[2]]
            found.values.setdefault("crossed_share", []).append((even_crossed(x[2], other), own))
        for head in range(x.shape[2]):
            _follow(found, x[:, :, head], resamples)
    return found


def resamples_of(study: Study, languages: Sequence[str], group: str) -> Resamples:
    """Resampled items of a group; languages keep their shuffles whatever they stand beside."""
    return resample(
        len(study.groups[group]), languages, seed=study.seed, group=group, n_boot=study.n_boot, n_perm=study.n_perm
    )


def _follow(found: Measured, x: NDArray[np.generic], resamples: Resamples) -> None:
    """The gap of one head between each of the two languages and their mixture."""
    every = pair_cells(score_pairs(x, metric.measures({})[:1], resamples.permutations))
    mixed = [1, 2]  # of the pairs of (context, question, both)
    cells = mean_over_pairs(
        Cells(
            every.matched[:, mixed], every.gap[:, mixed], every.whole[:, mixed], every.observed[:, mixed],
            every.permuted[:, mixed], {},
        )
    )  # fmt: skip
    found.over_heads.add(cells)
    found.gaps.append(gap_row(cells, resamples.weights))
    found.drawn.append(np.concatenate([cells.observed[0], cells.permuted[0, 0, :MAX_T_PERMUTATIONS]]))


def gap_row(cells: Cells, weights: Floats) -> dict[str, Any]:
    """The columns of a claim about a gap, from cells of one variant and one pair."""
    own = {name: np.asarray(values).item() for name, values in columns(cells, weights, LEVEL).items()}
    return {
        "n": int(own["n"]), "level": own["matched"], "estimate": own["gap"], "low": own["gap_low"],
        "high": own["gap_high"], "null": 0.0, "p": own["p"],
    }  # fmt: skip
