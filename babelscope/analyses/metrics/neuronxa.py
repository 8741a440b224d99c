"""NeuronXA: MEXA on which neurons are on, instead of on hidden states."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.metric import MetricInfo, SetMeasure, Sweep
from babelscope.analyses.retrieval import Found, first_of_row_and_column
from babelscope.analyses.similarities.cosine import unit_rows
from babelscope.analyses.statistics import Floats


def states(x: NDArray[np.generic]) -> Floats:
    """Which neurons are on (> 0), (item, neuron), scaled to length 1; NaN for an item that turns none on."""
    rows = np.asarray(x, dtype=np.float64)
    return unit_rows(np.where(np.isfinite(rows), (rows > 0).astype(np.float64), np.nan))


@dataclass(frozen=True, slots=True)
class NeuronXa:
    """`mexa` of binary neuron states, compared by their cosine."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="NeuronXA alignment (our reading of its abstract)",
        units="fraction of items",
        low=0.0,
        high=1.0,
        reads=frozenset({"mlp.act", "mlp.neurons"}),
        source="arXiv:2507.14900, abstract; the formula is ours",
        parameters=MappingProxyType[str, float | str]({}),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """One variant, `states`."""
        return (SetMeasure("states", Found(states, first_of_row_and_column)),)

    def paper(self, sweep: Mapping[str, object]) -> None:
        """The published formula was not at hand."""
        return None


metric = NeuronXa()
