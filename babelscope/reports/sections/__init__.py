"""Sections of the report, in the order in which they are read; a file each."""

from babelscope.reports.sections.alignment import section as alignment
from babelscope.reports.sections.behavior import section as behavior
from babelscope.reports.sections.heads import section as heads
from babelscope.reports.sections.latent import section as latent
from babelscope.reports.sections.mixing import section as mixing
from babelscope.reports.sections.multiverse import section as multiverse
from babelscope.reports.sections.neurons import section as neurons
from babelscope.reports.sections.overlap import section as overlap
from babelscope.reports.sections.prediction import section as prediction
from babelscope.reports.sections.probes import section as probes
from babelscope.reports.sections.reasoning import section as reasoning
from babelscope.reports.sections.sanity import section as sanity
from babelscope.reports.sections.similarity import section as similarity
from babelscope.reports.sections.training import section as training
from babelscope.reports.sections.variance import section as variance

SECTIONS = (
    behavior, variance, similarity, alignment, overlap, neurons, heads, latent, probes, reasoning, mixing, prediction,
    multiverse, training, sanity,
)  # fmt: skip
