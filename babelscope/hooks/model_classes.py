"""Which class of transformers a configuration stands for."""

from typing import Any

import transformers
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)


def auto_class(config: PretrainedConfig) -> Any:
    """The auto class that loads a checkpoint as what it was saved as, a bare body where it is nothing else."""
    architecture = (config.architectures or [""])[0]
    if architecture in _names(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return AutoModelForCausalLM
    if architecture in _names(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        return AutoModelForSeq2SeqLM
    if architecture in _names(MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        return AutoModelForMaskedLM
    return getattr(transformers, _own_code(config) or "AutoModel")


def predicts_tokens(architecture: str, config: PretrainedConfig) -> bool:
    """Whether a class of models is made to predict the next token."""
    mappings = (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    known = any(architecture in _names(mapping) for mapping in mappings)
    return known or _own_code(config) in ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")


def _names(mapping: Any) -> set[str]:
    """Class names of an auto mapping, whose values are names or tuples of names."""
    names: set[str] = set()
    for value in mapping.values():
        names.update([value] if isinstance(value, str) else value)
    return names


def _own_code(config: PretrainedConfig) -> str:
    """Auto class that a model with code of its own registers, the most able one; "" without any."""
    known = getattr(config, "auto_map", None) or {}
    able = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM", "AutoModel")
    return next((name for name in able if name in known), "")
