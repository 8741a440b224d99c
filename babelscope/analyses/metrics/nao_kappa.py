"""Neuron activation overlap corrected for chance within every pair of items, and what else the same counts say."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from babelscope.analyses.active import Rule
from babelscope.analyses.metric import MetricInfo, PairMeasure, Sweep
from babelscope.analyses.metrics.nao import SWEPT_RULES, swept_measures
from babelscope.analyses.similarities.kappa import Kappa
from babelscope.analyses.similarities.lift import Lift
from babelscope.analyses.similarities.phi import Phi


@dataclass(frozen=True, slots=True)
class ChanceCorrectedOverlap:
    """`kappa`, `phi` and `lift` of active sets in language pairs.

    Parameters
    ----------
    threshold : float
        Bound under `rule` where no grid is swept.
    rule : str
        As in `active_neurons`. By default each prompt activates its strongest neurons, in the same number everywhere.
    """

    threshold: float = 0.05
    rule: Rule = "top"

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Neuron activation overlap, chance-corrected",
        units="share of what is possible beyond chance (lift: doublings)",
        low=float("-inf"),
        high=float("inf"),
        reads=frozenset({"mlp.act", "mlp.neurons"}),
        source="Cohen (1960) for the form, Yule (1912) for phi",
        parameters=MappingProxyType({"threshold": 0.05, "rule": "top"}),
        sweepable=tuple(SWEPT_RULES),
    )

    def measures(self, sweep: Sweep) -> tuple[PairMeasure, ...]:
        """Three measures per swept value, or those of `threshold` where nothing is swept."""
        return swept_measures([Kappa, Phi, Lift], self.threshold, self.rule, sweep)

    def paper(self, sweep: Sweep) -> None:
        """Nothing like it was published."""


metric = ChanceCorrectedOverlap()
