"""Loading a model and its tokenizer from a folder or the hub."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from babelscope.errors import BabelScopeError
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.anatomy_file import read_anatomy
from babelscope.hooks.fingerprints import config_sha256, tokenizer_sha256, weights_sha256
from babelscope.hooks.locate import locate
from babelscope.schema import ModelRef

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?\Z")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "vocab.json", "vocab.txt",
    "tekken.json",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready to be captured.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on `device`.
    tokenizer : PreTrainedTokenizerBase
    ref : ModelRef
        What was loaded, with hashes.
    device : torch.device
        Where inputs go.
    anatomy : Anatomy
        Where the model keeps its parts.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ref: ModelRef
    device: torch.device
    anatomy: Anatomy

    @property
    def answers_questions(self) -> bool:
        """Whether the model predicts the next token."""
        mappings = (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
        predicts = any(self.ref.architecture in _names(mapping) for mapping in mappings)
        return predicts and self.anatomy.unembedding is not None


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attn_implementation: str | None = None,
    anatomy: str | Path | None = None,
) -> LoadedModel:
    """Load a causal language model, a masked one, an encoder-decoder or a bare body, and find its parts.

    Parameters
    ----------
    source : str or Path
        Folder with config.json, safetensors and tokenizer, or a hub id.
    revision : str, optional
        Branch, tag or commit of a hub id.
    dtype : str
        "auto" keeps that of the checkpoint; else "float32", "float16" or "bfloat16".
    device : str
        "auto" takes the GPU if there is one.
    attn_implementation : str, optional
        As transformers names them; its own choice by default.
    anatomy : str or Path, optional
        File that names parts which the locator does not find.

    Raises
    ------
    BabelScopeError
        If the folder, its configuration, weights or tokenizer are missing, if a hub id cannot be reached, or if
        weights do not fit the architecture.
    """
    name = str(source)
    named = None if anatomy is None else read_anatomy(anatomy)
    _check_options(dtype, device)
    _check_source(name)
    with _reported(name), _quiet():
        config = AutoConfig.from_pretrained(name, revision=revision)
    with _reported(name), _quiet():
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        options = {"attn_implementation": attn_implementation} if attn_implementation else {}
        model, report = _auto_class(config).from_pretrained(
            name,
            revision=revision,
            dtype="auto" if dtype == "auto" else DTYPES[dtype],
            use_safetensors=True,  # the older format is a pickle, which can run code
            output_loading_info=True,
            **options,
        )
    _check_weights(name, report)
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    model = model.eval().requires_grad_(False)
    weights = weights_sha256(model.state_dict())
    try:
        model = model.to(target)
    except RuntimeError as error:
        raise BabelScopeError(
            f"{name} does not fit on {target}: {str(error).splitlines()[0]}", "give --device cpu"
        ) from None
    located = locate(model, named)
    ref = ModelRef(
        source=name,
        architecture=type(model).__name__,
        n_layers=len(located.output_stack.layers),
        dtype=str(model.dtype).removeprefix("torch."),
        weights_sha256=weights,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        revision=revision or "",
        attn_implementation=str(model.config._attn_implementation or ""),
        config_sha256=config_sha256(config),
        n_encoder_layers=len(located.stacks["enc"].layers) if "enc" in located.stacks else 0,
        anatomy_sha256=named.sha256 if named else "",
    )
    return LoadedModel(model, tokenizer, ref, target, located)


def _check_options(dtype: str, device: str) -> None:
    if dtype not in ("auto", *DTYPES):
        raise BabelScopeError(f"there is no dtype {dtype!r}", f"choose auto, {', '.join(DTYPES)}")
    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise BabelScopeError(f"there is no device {device!r}", "choose auto, cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise BabelScopeError("no CUDA device is available to this Python", "give --device cpu")


def _check_source(name: str) -> None:
    folder = Path(name).expanduser()
    if not folder.exists():
        if not _HUB_ID.match(name) or name.startswith("."):
            raise BabelScopeError(
                f"model folder {name} does not exist", "check the path, or give a hub id such as org/name"
            )
        return
    if not (folder / "config.json").is_file():
        raise BabelScopeError(
            f"{name} has no config.json, so it is no model folder", "name the folder that `save_pretrained` wrote"
        )
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise BabelScopeError(
            f"model folder {name} has no tokenizer files",
            f"save the tokenizer there: tokenizer.save_pretrained({name!r})",
        )
    if not any(folder.glob("*.safetensors")):
        raise BabelScopeError(
            f"model folder {name} has no .safetensors file",
            "load and save the model with transformers (save_pretrained writes safetensors)",
        )


def _names(mapping: Any) -> set[str]:
    """Class names of an auto mapping, whose values are names or tuples of names."""
    names: set[str] = set()
    for value in mapping.values():
        names.update([value] if isinstance(value, str) else value)
    return names


def _auto_class(config: PretrainedConfig) -> Any:
    architecture = (config.architectures or [""])[0]
    if architecture in _names(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return AutoModelForCausalLM
    if architecture in _names(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES):
        return AutoModelForSeq2SeqLM
    if architecture in _names(MODEL_FOR_MASKED_LM_MAPPING_NAMES):
        return AutoModelForMaskedLM
    return AutoModel


def _check_weights(name: str, report: dict[str, Any]) -> None:
    # A pooler reads the last block and feeds nothing we capture; checkpoints often lack it.
    missing = sorted(k for k in report["missing_keys"] if "pooler" not in k)
    if missing:
        raise BabelScopeError(
            f"{name} lacks {len(missing)} weights of its architecture, {missing[0]} among them; they would be random",
            "check that config.json belongs to these weights",
        )


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn what transformers raises into one problem and one hint."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).exists():
            raise BabelScopeError(f"model folder {name} cannot be loaded: {first}", "check its files") from error
        offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")
        hint = (
            f"HF_HUB_OFFLINE is set: unset it, or run `hf download {name}` where there is a network"
            if offline
            else "check the spelling, the network, and your access to the model"
        )
        raise BabelScopeError(
            f"{name} is neither a folder here nor a model that the hub delivers: {first}", hint
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers; ours says what is going on."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
