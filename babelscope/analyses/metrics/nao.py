"""Neuron activation overlap: how many active neurons the same item shares between languages."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from babelscope.analyses.active import Rule, check_thresholds
from babelscope.analyses.joint import JointOverlap
from babelscope.analyses.metric import MetricInfo, PairMeasure, Sweep
from babelscope.analyses.similarities.jaccard import Jaccard
from babelscope.analyses.similarities.overlap import Overlap

# Parameter that `--sweep` names -> the rule whose bound it sets.
SWEPT_RULES: dict[str, Rule] = {"threshold": "absolute", "quantile": "quantile", "top": "top"}


@dataclass(frozen=True, slots=True)
class NeuronOverlap:
    """Overlap of active sets in language pairs, corrected for chance; all languages at once in `paper` mode.

    Parameters
    ----------
    threshold : float
        Bound under `rule` where no grid is swept.
    rule : {"absolute", "quantile", "top"}
        As in `active_neurons`.
    similarity : type
        `Overlap` (intersection over mean size) or `Jaccard`.
    """

    threshold: float = 0.4  # the paper's default; swept, never trusted
    rule: Rule = "absolute"
    similarity: type[Overlap] | type[Jaccard] = Overlap

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
        grids = {SWEPT_RULES[name]: sweep[name] for name in SWEPT_RULES if name in sweep} or {
            self.rule: [self.threshold]
        }
        stem = self.similarity.__name__.lower()
        return tuple(
            PairMeasure(stem if rule == "absolute" else f"{stem}_{rule}", self.similarity(value, rule), value)
            for rule, values in grids.items()
            for value in check_thresholds(values, rule)
        )

    def paper(self, sweep: Sweep) -> JointOverlap:
        """Absolute thresholds only, which is what was published."""
        default = self.threshold if self.rule == "absolute" else 0.4
        values = sweep.get("threshold", [default])
        return JointOverlap(tuple(sorted(set(check_thresholds(values, "absolute")))))


metric = NeuronOverlap()
