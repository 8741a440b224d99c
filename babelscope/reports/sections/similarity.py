"""Similarity of hidden states: whether what languages share is about the question, or about the prompt."""

from babelscope.reports.claim_figures import claims
from babelscope.reports.sections.alignment import SET_METRICS
from babelscope.reports.sections.heads import HEAD_METRICS
from babelscope.reports.sections.overlap import NEURON_METRICS
from babelscope.reports.similarity_figures import metric_figures
from babelscope.reports.source import Figure, Part, Section, Source

NAMED = ("cs", *SET_METRICS, *NEURON_METRICS, *HEAD_METRICS)


def _others(source: Source) -> list[Figure]:
    """Metrics that no section was made for, those of plugins among them."""
    return metric_figures(but=NAMED)(source)


section = Section(
    "Similarity of hidden states",
    "Is what languages share about the question, or about the prompt?",
    (
        Part("Cosine similarity", "analyze STORE --metric cs", ("cs",), metric_figures("cs"), ("resid.post",)),
        Part("Other metrics", "analyze STORE --metric NAME", (), _others),
        Part("Null ladder", "analyze STORE --recipe null-ladder", ("null_ladder",),
             claims("null_ladder", "What is left of the gap as mismatched items share rule, letter and length"),
             ("resid.post", "mlp.act")),
        Part("Knowledge-free against knowledge", "analyze STORE --recipe knowledge-contrast", ("knowledge_contrast",),
             claims("knowledge_contrast", "The published contrast, with template, rule and letter matched"),
             ("mlp.act", "mlp.neurons", "resid.post")),
        Part("Languages in general", "analyze STORE --recipe languages-in-general", ("languages_in_general",),
             claims("languages_in_general", "Gaps when languages are a sample, too"), ("resid.post", "mlp.act")),
        Part("Typology", "analyze STORE --recipe typology", ("typology",),
             claims("typology", "Similarity against relation, grammar and script of languages"),
             ("resid.post", "mlp.act")),
    ),
)  # fmt: skip
