"""Cosine similarity of hidden states of the same item in two languages."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from babelscope.analyses.metric import MetricInfo, PairMeasure, PaperMean, Sweep
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.similarities.cosine_centered import CenteredCosine
from babelscope.analyses.similarities.cosine_zscored import ZscoredCosine


@dataclass(frozen=True, slots=True)
class CosineSimilarity:
    """Raw and language-centered cosine, each against mismatched items.

    The published CS is the mean of the raw cosine over ordered language pairs, layers and items; the mean over
    unordered pairs is the same number. `paper` reports it on the last token of `resid.post`, with the null that
    the paper lacks.
    """

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Cosine similarity of hidden states",
        units="cosine",
        low=-1.0,
        high=1.0,
        reads=frozenset({"embed", "resid.pre", "resid.post", "attn.out", "mlp.out", "attn.heads"}),
        source="arXiv:2406.16655, section 5.2.1",
        parameters=MappingProxyType({}),
        paper_site="resid.post",
    )

    def measures(self, sweep: Sweep) -> tuple[PairMeasure, ...]:
        """`raw`, `centered` and `zscored`; nothing to sweep."""
        return (
            PairMeasure("raw", Cosine()),
            PairMeasure("centered", CenteredCosine()),
            PairMeasure("zscored", ZscoredCosine()),
        )

    def paper(self, sweep: Sweep) -> PaperMean:
        """The mean of `raw` over pairs."""
        return PaperMean("mean_over_pairs", of="raw")


metric = CosineSimilarity()
