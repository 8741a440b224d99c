"""Alignment of languages: which of them align, and in which layers."""

from babelscope.reports.similarity_figures import against_first, layer_figures, metric_figures
from babelscope.reports.source import Part, Section

SET_METRICS = ("mexa", "retrieval", "cka", "rsa", "anc", "mutual-knn")


def _part(title: str, metric: str, *sites: str) -> Part:
    draw = metric_figures(metric, parts=(against_first, layer_figures))
    return Part(title, f"analyze STORE --metric {metric}", (metric,), draw, sites)


section = Section(
    "Alignment of languages",
    "Which languages align, and where?",
    (
        _part("MEXA", "mexa", "resid.post"),
        _part("Retrieval", "retrieval", "resid.post"),
        _part("Debiased CKA", "cka", "resid.post", "mlp.act", "mlp.neurons"),
        _part("RSA", "rsa", "resid.post", "mlp.act", "mlp.neurons"),
        _part("Correlation neuron by neuron", "anc", "resid.post", "mlp.act", "mlp.neurons"),
        _part("Mutual nearest neighbors", "mutual-knn", "resid.post", "mlp.act", "mlp.neurons"),
    ),
)
