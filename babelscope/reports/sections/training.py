"""Training: what it changes, step by step."""

from babelscope.reports.similarity_figures import step_figures
from babelscope.reports.source import Part, Section

STEPS = ("cs_by_step", "nao_by_step", "nao-kappa_by_step", "attention-stability_by_step")

section = Section(
    "Training",
    "What does training change?",
    (
        Part(
            "Steps",
            "analyze TUNED.steps",
            STEPS,
            step_figures,
            prompts="stores captured while training (docs/training.md)",
        ),
    ),
)
