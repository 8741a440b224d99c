"""Interventions: what a model answers when an activation is changed, and how an answer depends on each of them."""

from babelscope.hooks.interventions.ablation import Answered, answered
from babelscope.hooks.interventions.attribution import NeuronGradients, answer_margin, neuron_gradients
from babelscope.hooks.interventions.batch import PromptBatch, read_prompts
from babelscope.hooks.interventions.editing import Activations, activations, edited
from babelscope.hooks.interventions.edits import Edit, mean, patch, resample, steer, zero
from babelscope.hooks.interventions.effects import Effect, effect, gold_score, next_logits, option_scores
from babelscope.hooks.interventions.gradients import Gradient, gradients

__all__ = [
    "Activations",
    "Answered",
    "Edit",
    "Effect",
    "Gradient",
    "NeuronGradients",
    "PromptBatch",
    "activations",
    "answer_margin",
    "answered",
    "edited",
    "effect",
    "gold_score",
    "gradients",
    "mean",
    "neuron_gradients",
    "next_logits",
    "option_scores",
    "patch",
    "read_prompts",
    "resample",
    "steer",
    "zero",
]
