"""Which weights of a model a method trains."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from babelscope.errors import BabelScopeError
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.injection import config_of, cross_parameters, inject, set_config
from babelscope.qcross.saving import load_cross, restore, tensors_of
from babelscope.training.config import Lora, Qcross, TrainConfig

# Encoders whose classes can also be used as decoders are listed by transformers among both.
_ENCODERS = ("MaskedLM", "PreTraining", "SequenceClassification")


def is_decoder(architecture: str) -> bool:
    """Whether a class of models writes text; else a classifier is put on its first token."""
    return architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and not architecture.endswith(_ENCODERS)


def load(
    source: str, n_classes: int | None, *, masked: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer; with `n_classes` where a classifier is wanted, `masked` for one that fills masks.

    Raises
    ------
    BabelScopeError
        If they cannot be loaded.
    """
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source)
            if n_classes is not None:
                model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=n_classes)
                _dense_of_language_model(model, source)
            else:
                model = (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BabelScopeError(f"{source} cannot be loaded: {first}", "name a model folder, or a hub id") from error
    if config_of(model) is not None:
        restore(model, source)
    if tokenizer.pad_token_id is None:  # only masked positions hold it
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def context_of(model: PreTrainedModel) -> int | None:
    """Tokens that a model can read, or None where nothing limits them.

    RoBERTa counts positions from behind the padding's id, so it reads that many fewer than it has embeddings.
    """
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    padding = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
    return positions if positions is None or padding is None else positions - padding - 1


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers, and no report that a classifier is new: it is meant to be."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)


def architecture_of(source: str) -> str:
    """Name of the class that a checkpoint was saved from.

    Raises
    ------
    BabelScopeError
        If there is no configuration.
    """
    try:
        return str((AutoConfig.from_pretrained(source).architectures or [""])[0])
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BabelScopeError(f"{source} cannot be loaded: {first}", "name a model folder, or a hub id") from error


def with_qcross(model: PreTrainedModel, wanted: Qcross | None, base_sha256: str) -> None:
    """Give a model the cross-lingual queries that a configuration names, in place.

    Raises
    ------
    BabelScopeError
        If it cannot have them, or those of `source` were made for another model.
    """
    if wanted is None:
        return
    if config_of(model) is not None:
        raise BabelScopeError(
            "the model has cross-lingual queries already, which its own configuration describes",
            "leave qcross out of the file, or name the base model",
        )
    config = QcrossConfig(**wanted.model_dump(exclude={"source"}))
    if wanted.source is None:
        inject(model, config)
        return
    load_cross(model, wanted.source, base_sha256=base_sha256)
    set_config(model, config)


def prepared(model: PreTrainedModel, config: TrainConfig) -> Any:
    """The model with only those weights trainable that the method trains.

    Raises
    ------
    BabelScopeError
        If the model lacks what the method trains, or peft is not installed.
    """
    if config.method == "lora" and config_of(model) is not None:
        raise BabelScopeError(
            f"{config.model} has cross-lingual queries, which an adapter would leave out", "train bitfit, or full"
        )
    if config.method == "lora":
        return _with_lora(model, config.lora)
    if config.method == "bitfit":
        _only_biases(model, paper=config.mode == "paper")
    if config.method == "qcross":
        crossed = {id(p) for p in cross_parameters(model).values()}
        for parameter in model.parameters():
            parameter.requires_grad = id(parameter) in crossed
    return model


def trainable(model: nn.Module) -> tuple[int, int]:
    """Numbers of trainable parameters, and of all."""
    numbers = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in numbers if trained), sum(n for n, _ in numbers)


def _with_lora(model: PreTrainedModel, lora: Lora) -> Any:
    if find_spec("peft") is None:
        raise BabelScopeError("LoRA needs peft, which is not installed", "pip install 'babelscope[peft]'")
    from peft import LoraConfig, TaskType, get_peft_model

    kind = TaskType.SEQ_CLS if "SequenceClassification" in type(model).__name__ else TaskType.CAUSAL_LM
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets or "all-linear",
        task_type=kind,
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            # peft asks for a name that transformers is about to drop.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return get_peft_model(model, config)
    except ValueError as error:
        linear = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        raise BabelScopeError(
            f"no adapter can be put on {', '.join(lora.targets)}: {error}", f"its linear layers: {', '.join(linear)}"
        ) from error


def _only_biases(model: PreTrainedModel, *, paper: bool) -> None:
    """BitFit (Ben Zaken et al. 2022, arXiv:2106.10199): every bias; and what stands on the body of a classifier.

    That head is new and random, so freezing it is no baseline; the authors' code for 2310.15258 does so by mistake
    (its baseline tests the model type against another spelling), which `mode: paper` repeats.
    """
    body = model.base_model
    biases = [n for n, p in body.named_parameters() if n.endswith("bias")]
    if not biases:
        raise BabelScopeError(
            f"{type(model).__name__} has no biases, which are what BitFit trains", "train lora, or full, instead"
        )
    for parameter in model.parameters():
        parameter.requires_grad = False
    for name, parameter in body.named_parameters():
        parameter.requires_grad = name.endswith("bias") or (not paper and name.startswith("pooler."))
    inside = {id(p) for p in body.parameters()}
    is_classifier = "SequenceClassification" in type(model).__name__
    for name, parameter in model.named_parameters():
        if id(parameter) not in inside:
            parameter.requires_grad = name.endswith("bias") or (is_classifier and not paper)


def _dense_of_language_model(model: PreTrainedModel, source: str) -> None:
    """The first layer of an XLM-R classifier begins as the dense layer of the masked language model, not at random.

    As the authors of arXiv:2310.15258 do, for their method and their baseline alike; BERT has a pooler instead.
    """
    dense = getattr(getattr(model, "classifier", None), "dense", None)
    if dense is None:
        return
    found = tensors_of(source, lambda name: name.startswith("lm_head.dense."))
    own = {name.rpartition(".")[2]: x for name, x in found.items()}
    if {name: x.shape for name, x in own.items()} == {name: x.shape for name, x in dense.state_dict().items()}:
        dense.load_state_dict(own)
