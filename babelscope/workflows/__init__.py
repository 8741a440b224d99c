"""The verbs: what the command line and notebooks call, and nothing else."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from babelscope.analyses.behavior.accuracy import accuracy
    from babelscope.workflows.ablation import Ablation, ablate
    from babelscope.workflows.analysis import ANALYSIS_PARTS, Analysis, analyze, load_analysis, open_store
    from babelscope.workflows.captures import capture
    from babelscope.workflows.chain import train_chain
    from babelscope.workflows.classification import answers_text, by_language, classify, matrix_of
    from babelscope.workflows.comparison import Comparison, compare
    from babelscope.workflows.demonstration import DEMO_ITEMS, demo
    from babelscope.workflows.estimates import Estimate
    from babelscope.workflows.evaluation import Evaluation, evaluate
    from babelscope.workflows.examination import Examination, doctor
    from babelscope.workflows.exchange import export, import_store, merge, pack, unpack
    from babelscope.workflows.joining import item_gaps
    from babelscope.workflows.mixed_choices import mixed_questions, mixing
    from babelscope.workflows.model_folders import model_path, models, train_organism
    from babelscope.workflows.outputs import check_output, new_folder
    from babelscope.workflows.parts import Part, is_silent, part_of
    from babelscope.workflows.probing import Probing, load_probes, probe
    from babelscope.workflows.prompts import (
        audit_prompts,
        generate,
        inference_pairs,
        mixed_corpus,
        perturbed_prompts,
        prompts_of,
        translations,
        write_prompts,
        write_published,
    )
    from babelscope.workflows.reporting import check_report, report
    from babelscope.workflows.signals import Note, Progress
    from babelscope.workflows.steps import StepAnalysis, Steps, analyze_steps, is_steps, open_steps
    from babelscope.workflows.training import TrainingPlan, presets, read_config, train
    from babelscope.workflows.verification import repair, verify

# Resolved on first use: `--help` and `ls` load neither pandas nor scipy.
_PUBLIC = {
    "ANALYSIS_PARTS": "analysis",
    "DEMO_ITEMS": "demonstration",
    "Ablation": "ablation",
    "Analysis": "analysis",
    "Comparison": "comparison",
    "Estimate": "estimates",
    "Evaluation": "evaluation",
    "Examination": "examination",
    "Note": "signals",
    "Part": "parts",
    "Probing": "probing",
    "Progress": "signals",
    "StepAnalysis": "steps",
    "Steps": "steps",
    "TrainingPlan": "training",
    "ablate": "ablation",
    "accuracy": "analysis",
    "analyze": "analysis",
    "analyze_steps": "steps",
    "audit_prompts": "prompts",
    "answers_text": "classification",
    "by_language": "classification",
    "capture": "captures",
    "check_output": "outputs",
    "check_report": "reporting",
    "report": "reporting",
    "classify": "classification",
    "matrix_of": "classification",
    "compare": "comparison",
    "demo": "demonstration",
    "doctor": "examination",
    "evaluate": "evaluation",
    "export": "exchange",
    "import_store": "exchange",
    "merge": "exchange",
    "pack": "exchange",
    "unpack": "exchange",
    "generate": "prompts",
    "is_silent": "parts",
    "is_steps": "steps",
    "item_gaps": "joining",
    "load_analysis": "analysis",
    "load_probes": "probing",
    "model_path": "model_folders",
    "models": "model_folders",
    "new_folder": "outputs",
    "open_steps": "steps",
    "open_store": "analysis",
    "part_of": "parts",
    "probe": "probing",
    "presets": "training",
    "prompts_of": "prompts",
    "read_config": "training",
    "repair": "verification",
    "train": "training",
    "train_chain": "chain",
    "train_organism": "model_folders",
    "verify": "verification",
    "mixed_corpus": "prompts",
    "mixed_questions": "mixed_choices",
    "mixing": "mixed_choices",
    "inference_pairs": "prompts",
    "perturbed_prompts": "prompts",
    "translations": "prompts",
    "write_prompts": "prompts",
    "write_published": "prompts",
}

__all__ = [
    "ANALYSIS_PARTS",
    "DEMO_ITEMS",
    "Ablation",
    "Analysis",
    "Comparison",
    "Estimate",
    "Evaluation",
    "Examination",
    "Note",
    "Part",
    "Probing",
    "Progress",
    "StepAnalysis",
    "Steps",
    "TrainingPlan",
    "ablate",
    "accuracy",
    "analyze",
    "analyze_steps",
    "answers_text",
    "audit_prompts",
    "by_language",
    "capture",
    "check_output",
    "check_report",
    "classify",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "generate",
    "import_store",
    "inference_pairs",
    "is_silent",
    "is_steps",
    "item_gaps",
    "load_analysis",
    "load_probes",
    "matrix_of",
    "merge",
    "mixed_corpus",
    "mixed_questions",
    "mixing",
    "model_path",
    "models",
    "new_folder",
    "open_steps",
    "open_store",
    "pack",
    "part_of",
    "perturbed_prompts",
    "presets",
    "probe",
    "prompts_of",
    "read_config",
    "repair",
    "report",
    "train",
    "train_chain",
    "train_organism",
    "translations",
    "unpack",
    "verify",
    "write_prompts",
    "write_published",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'babelscope.workflows' has no attribute {name!r}")
    return getattr(importlib.import_module(f"babelscope.workflows.{_PUBLIC[name]}"), name)
