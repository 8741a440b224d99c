"""Stability of attention patterns: whether a head divides its attention alike over the same item in two languages."""

from dataclasses import dataclass
from typing import ClassVar

from babelscope.analyses.metric import MetricInfo, PairMeasure, Sweep
from babelscope.analyses.similarities.attended_segments import AttendedSegments


@dataclass(frozen=True, slots=True)
class AttentionStability:
    """Agreement of the mass on segments, head by head, against mismatched items.

    The raw level says that a head follows the template, which all items share; only the gap over mismatched items says
    that it follows what stands in the prompt. The definition is ours: arXiv:2310.15258 speaks of the stability of
    patterns and defines no similarity.
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Attention-pattern stability (our definition: the paper publishes none)",
        units="1 - Jensen-Shannon divergence (base 2)",
        low=0.0,
        high=1.0,
        reads=frozenset({"attn.mass", "cross.mass"}),
        source="our definition; arXiv:2310.15258 names pattern stability and publishes no formula",
        per_head=True,
    )

    def measures(self, sweep: Sweep) -> tuple[PairMeasure, ...]:
        """`enriched`, over the even share of each segment, and `mass` as it is; nothing to sweep."""
        return PairMeasure("enriched", AttendedSegments()), PairMeasure("mass", AttendedSegments(over_even=False))

    def paper(self, sweep: Sweep) -> None:
        """Nothing was published."""


metric = AttentionStability()
