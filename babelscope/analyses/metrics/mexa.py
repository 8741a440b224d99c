"""MEXA: how often an item is nearer to itself in another language than any two different items are."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from babelscope.analyses.metric import MetricInfo, SetMeasure, Sweep
from babelscope.analyses.retrieval import Found, first_of_row_and_column
from babelscope.analyses.similarities.cosine import unit_rows


@dataclass(frozen=True, slots=True)
class Mexa:
    """Share of items whose similarity with themselves is strictly the highest of row and column.

    By chance 1 / (2n - 1) of n items.
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="MEXA alignment",
        units="fraction of items",
        low=0.0,
        high=1.0,
        reads=frozenset({"embed", "resid.pre", "resid.post"}),
        source="Kargaran et al. (2024), arXiv:2410.05873",
        parameters=MappingProxyType[str, float | str]({}),
    )

    def measures(self, sweep: Sweep) -> tuple[SetMeasure, ...]:
        """One variant, `cosine`."""
        return (SetMeasure("cosine", Found(unit_rows, first_of_row_and_column)),)

    def paper(self, sweep: Mapping[str, object]) -> None:
        """The published number is the row of English and a language: docs/metrics/mexa.md."""
        return None


metric = Mexa()
