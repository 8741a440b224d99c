"""Overlap of active neurons: whether the same ones are used, whatever the threshold."""

from babelscope.reports.similarity_figures import against_first, layer_figures, metric_figures
from babelscope.reports.source import Part, Section

NEURON_METRICS = ("nao", "nao-kappa", "neuron-states", "neuronxa")
SITES = ("mlp.act", "mlp.neurons")

section = Section(
    "Overlap of active neurons",
    "Are the same neurons used, whatever the threshold?",
    (
        Part("Overlap", "analyze STORE --metric nao --sweep threshold=0.1:0.9:0.05", ("nao",), metric_figures("nao"),
             SITES),
        Part("Overlap, corrected for chance", "analyze STORE --metric nao-kappa --sweep top=0.005,0.01,0.05,0.2",
             ("nao-kappa",), metric_figures("nao-kappa"), SITES),
        Part("States without a threshold", "analyze STORE --metric neuron-states", ("neuron-states",),
             metric_figures("neuron-states"), SITES),
        Part("NeuronXA", "analyze STORE --metric neuronxa", ("neuronxa",),
             metric_figures("neuronxa", parts=(against_first, layer_figures)), SITES),
    ),
)  # fmt: skip
