"""The verbs: what the command line and notebooks call, and nothing else."""

from babelscope.workflows.analysis import Analysis, accuracy, analyze, check_folder, load_analysis, open_store
from babelscope.workflows.capture import Estimate, Progress, capture
from babelscope.workflows.demo import DEMO_ITEMS, demo
from babelscope.workflows.models import model_path, models, train_organism
from babelscope.workflows.prompts import audit_prompts, generate, prompts_of, write_prompts

__all__ = [
    "DEMO_ITEMS",
    "Analysis",
    "Estimate",
    "Progress",
    "accuracy",
    "analyze",
    "audit_prompts",
    "capture",
    "check_folder",
    "demo",
    "generate",
    "load_analysis",
    "model_path",
    "models",
    "open_store",
    "prompts_of",
    "train_organism",
    "write_prompts",
]
