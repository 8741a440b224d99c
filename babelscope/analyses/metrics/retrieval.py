"""Bitext retrieval: how often an item finds itself among all items of another language."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from babelscope.analyses.metric import MetricInfo, SetMeasure, Sweep
from babelscope.analyses.retrieval import Found, first_of_row_or_column
from babelscope.analyses.similarities.cosine import unit_rows

NEIGHBORS = 10  # of the paper that introduced CSLS


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Accuracy at 1, mean of both directions; by chance 1 / n."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Bitext retrieval",
        units="fraction of items",
        low=0.0,
        high=1.0,
        reads=frozenset({"embed", "resid.pre", "resid.post"}),
        source="Conneau et al. (2018), arXiv:1710.04087, for CSLS",
        parameters=MappingProxyType[str, float | str]({"neighbors": float(NEIGHBORS)}),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """`cosine`, and `csls`, in which items that are near to everything do not win."""
        return (
            SetMeasure("cosine", Found(unit_rows, first_of_row_or_column)),
            SetMeasure("csls", Found(unit_rows, first_of_row_or_column, NEIGHBORS)),
        )

    def paper(self, sweep: Mapping[str, object]) -> None:
        """No paper of this kit defines it."""
        return None


metric = Retrieval()
