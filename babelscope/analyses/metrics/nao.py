"""Neuron activation overlap: how many active neurons the same item shares between languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from babelscope.analyses.active import Rule, check_thresholds
from babelscope.analyses.active_sets import CountedSimilarity
from babelscope.analyses.joint import JointOverlap
from babelscope.analyses.metric import MetricInfo, PairMeasure, Sweep
from babelscope.analyses.similarities.overlap import Overlap

# Parameter that `--sweep` names -> the rule whose bound it sets.
SWEPT_RULES: dict[str, Rule] = {
    "threshold": "absolute",
    "quantile": "quantile",
    "language_quantile": "language_quantile",
    "top": "top",
    "z": "z",
    "language_z": "language_z",
}


def swept_measures(
    similarities: Sequence[type[CountedSimilarity]], threshold: float, rule: Rule, sweep: Sweep
) -> tuple[PairMeasure, ...]:
    """Every similarity at every swept value of every rule, or at the one threshold where nothing is swept."""
    grids = {SWEPT_RULES[name]: sweep[name] for name in SWEPT_RULES if name in sweep} or {rule: [threshold]}
    return tuple(
        PairMeasure(stem if under == "absolute" else f"{stem}_{under}", similarity(value, under), value)
        for under, values in grids.items()
        for stem, similarity in ((s.__name__.lower(), s) for s in similarities)
        for value in check_thresholds(values, under)
    )


@dataclass(frozen=True, slots=True)
class NeuronOverlap:
    """Overlap of active sets in language pairs, corrected for chance; all languages at once in `paper` mode.

    Parameters
    ----------
    threshold : float
        Bound under `rule` where no grid is swept.
    rule : str
        As in `active_neurons`.
    similarity : type
        What is made of the sets, as `Overlap` (intersection over mean size) or `Jaccard`.
    """

    threshold: float = 0.4  # the paper's default; swept, never trusted
    rule: Rule = "absolute"
    similarity: type[CountedSimilarity] = Overlap

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Neuron activation overlap",
        units="fraction of active neurons",
        low=0.0,
        high=1.0,
        reads=frozenset({"mlp.act", "mlp.neurons"}),
        source="arXiv:2406.16655, section 5.2.2, and the authors' script",
        parameters=MappingProxyType({"threshold": 0.4, "rule": "absolute"}),
        sweepable=tuple(SWEPT_RULES),
        paper_site="mlp.act",
    )

    def measures(self, sweep: Sweep) -> tuple[PairMeasure, ...]:
        """One measure per swept value, or the one of `threshold` where nothing is swept."""
        return swept_measures([self.similarity], self.threshold, self.rule, sweep)

    def paper(self, sweep: Sweep) -> JointOverlap:
        """Absolute thresholds only, which is what was published."""
        default = self.threshold if self.rule == "absolute" else 0.4
        values = sweep.get("threshold", [default])
        return JointOverlap(tuple(sorted(set(check_thresholds(values, "absolute")))))


metric = NeuronOverlap()
