"""Interventions: what a model answers when an activation is changed, and how an answer depends on each of them."""

from babelscope.hooks.interventions.ablation import Answered, answered
from babelscope.hooks.interventions.attribution import NeuronGradients, answer_margin, neuron_gradients
from babelscope.hooks.interventions.batch import PromptBatch, read_prompts
from babelscope.hooks.interventions.editing import Activations, activations, edited
from babelscope.hooks.interventions.edits import Edit, mean, patch, resample, steer, zero
from babelscope.hooks.interventions.effects import Effect, effect, gold_score, next_logits, option_scores
from babelscope.hooks.interventions.gradients import Gradient, gradients
from babelscope.hooks.interventions.head_importance import head_importance
from babelscope.hooks.interventions.neuron_methods import (
    Integrated,
    direct_contributions,
    integrated_gradients,
    patching_attribution,
)

__all__ = [
    "Activations",
    "Answered",
    "Edit",
    "Effect",
    "Gradient",
    "Integrated",
    "NeuronGradients",
    "PromptBatch",
    "activations",
    "answer_margin",
    "answered",
    "direct_contributions",
    "edited",
    "effect",
    "gold_score",
    "gradients",
    "head_importance",
    "integrated_gradients",
    "mean",
    "neuron_gradients",
    "next_logits",
    "option_scores",
    "patch",
    "patching_attribution",
    "read_prompts",
    "resample",
    "steer",
    "zero",
]
