"""Agreement of neurons between languages without a threshold: signs, soft overlap, soft states."""

from dataclasses import dataclass
from typing import ClassVar

from babelscope.analyses.metric import MetricInfo, PairMeasure, Sweep
from babelscope.analyses.similarities.agreement import Agreement
from babelscope.analyses.similarities.phi import Phi
from babelscope.analyses.similarities.ruzicka import Ruzicka
from babelscope.analyses.similarities.soft_state import SoftState


@dataclass(frozen=True, slots=True)
class NeuronStates:
    """Four ways to compare all neurons of two prompts that leave nothing to choose."""

    info: ClassVar[MetricInfo] = MetricInfo(
        title="Agreement of neuron states, without a threshold",
        units="share of neurons, or of activation",
        low=-1.0,
        high=1.0,
        reads=frozenset({"mlp.act", "mlp.neurons"}),
        source="Sokal and Michener (1958), Yule (1912), Ružička (1958)",
    )

    def measures(self, sweep: Sweep) -> tuple[PairMeasure, ...]:
        """`sign`, `sign_phi`, `ruzicka`, `soft_state`; nothing to sweep."""
        return (
            PairMeasure("sign", Agreement(0.0, "signed")),
            PairMeasure("sign_phi", Phi(0.0, "signed")),
            PairMeasure("ruzicka", Ruzicka()),
            PairMeasure("soft_state", SoftState()),
        )

    def paper(self, sweep: Sweep) -> None:
        """Nothing like it was published for neurons."""


metric = NeuronStates()
