"""Loading a model and its tokenizer from a folder or the hub."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from babelscope.errors import BabelScopeError
from babelscope.hooks.adapters import attach, base_of, is_adapter
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.anatomy_file import read_anatomy
from babelscope.hooks.fingerprints import config_sha256, tokenizer_sha256, weights_sha256
from babelscope.hooks.locate import locate
from babelscope.hooks.model_classes import auto_class, predicts_tokens
from babelscope.hooks.placement import DTYPES as DTYPES
from babelscope.hooks.placement import (
    check_options,
    check_reachable,
    default_device,
    input_device,
    loading_options,
    weights,
)
from babelscope.schema import ModelRef

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
    switch : PeftModel or None
        What can disable the adapter (see `adapters.disabled`); None without one, and once it is merged.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ref: ModelRef
    device: torch.device
    anatomy: Anatomy
    switch: Any = None

    @property
    def answers_questions(self) -> bool:
        """Whether the model predicts the next token."""
        return predicts_tokens(self.ref.architecture, self.model.config) and self.anatomy.unembedding is not None


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | Path | None = None,
    quantize: str | None = None,
    adapter: str | Path | None = None,
    merge_adapter: bool = False,
    attn_implementation: str | None = None,
    anatomy: str | Path | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a causal language model, a masked one, an encoder-decoder or a bare body, and find its parts.

    Parameters
    ----------
    source : str or Path
        Folder with config.json, safetensors and tokenizer, or a hub id. One that holds an adapter is loaded with
        the base that it names.
    revision : str, optional
        Branch, tag or commit of a hub id.
    dtype : str
        "auto" keeps that of the checkpoint; else "float32", "float16" or "bfloat16".
    device : str
        "auto" takes the GPU if there is one.
    device_map : str or Path, optional
        "auto", or a JSON file of module -> device, "cpu" or "disk": accelerate spreads the weights.
    quantize : str, optional
        "nf4" or "int8", by bitsandbytes, on a GPU.
    adapter : str or Path, optional
        Folder or hub id of a PEFT adapter.
    merge_adapter : bool
        Add the adapter to the weights instead of running it beside them.
    attn_implementation : str, optional
        As transformers names them, or a registered one; its own choice by default.
    anatomy : str or Path, optional
        File that names parts which the locator does not find.
    trust_remote_code : bool
        Run Python files that come with the model.

    Raises
    ------
    BabelScopeError
        If the folder, its configuration, weights or tokenizer are missing, if a hub id cannot be reached, if
        weights or adapter do not fit the architecture, or if the options cannot be met here.
    """
    if merge_adapter and quantize:
        raise BabelScopeError("an adapter is not merged into quantized weights", "leave --merge-adapter out")
    named = None if anatomy is None else read_anatomy(anatomy)
    check_options(dtype, device, device_map, quantize)
    name, tuned = _base_and_adapter(str(source), None if adapter is None else str(adapter))
    if merge_adapter and tuned is None:
        raise BabelScopeError("there is no adapter to merge", "name one with --adapter, or leave --merge-adapter out")
    _check_source(name)
    hub = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _reported(name), _quiet():
        config = AutoConfig.from_pretrained(name, **hub)
    with _reported(name), _quiet():
        # An adapter that was trained with more tokens, or as a chat, brings its tokenizer.
        own = tuned == str(source) and _has_tokenizer(Path(tuned))
        tokenizer = AutoTokenizer.from_pretrained(tuned if own else name, **hub)
        options = {"attn_implementation": attn_implementation} if attn_implementation else {}
        model, report = auto_class(config).from_pretrained(
            name,
            use_safetensors=True,  # the older format is a pickle, which can run code
            output_loading_info=True,
            **hub,
            **loading_options(dtype, device, device_map, quantize),
            **options,
        )
    _check_weights(name, report)
    check_reachable(model)
    model = model.eval().requires_grad_(False)
    sha256 = weights_sha256(weights(model))
    if device_map is None and quantize is None:
        model = _moved(model, name, default_device() if device == "auto" else torch.device(device))
    adapted = attach(model, tuned, merge=merge_adapter) if tuned else None
    model = adapted.model if adapted else model
    located = locate(model, named)
    ref = ModelRef(
        source=str(source),
        architecture=type(model).__name__,
        n_layers=len(located.output_stack.layers),
        dtype=str(model.dtype).removeprefix("torch."),
        weights_sha256=sha256,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        revision=revision or "",
        attn_implementation=str(model.config._attn_implementation or ""),
        config_sha256=config_sha256(config),
        n_encoder_layers=len(located.stacks["enc"].layers) if "enc" in located.stacks else 0,
        anatomy_sha256=named.sha256 if named else "",
        adapter=tuned or "",
        adapter_sha256=adapted.sha256 if adapted else "",
        adapter_merged=merge_adapter,
        quantization=quantize or "",
    )
    return LoadedModel(model, tokenizer, ref, input_device(model), located, adapted.switch if adapted else None)


def _base_and_adapter(source: str, adapter: str | None) -> tuple[str, str | None]:
    if not is_adapter(source):
        return source, adapter
    if adapter is not None:
        raise BabelScopeError(
            f"{source} is itself an adapter, so --adapter {adapter} cannot be added", "name the base model instead"
        )
    return base_of(source), source


def _moved(model: PreTrainedModel, name: str, device: torch.device) -> PreTrainedModel:
    try:
        moved: PreTrainedModel = model.to(device)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise BabelScopeError(
            f"{name} does not fit on {device}: {str(error).splitlines()[0]}", "give --device-map auto, or --device cpu"
        ) from None
    return moved


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
    if not _has_tokenizer(folder):
        raise BabelScopeError(
            f"model folder {name} has no tokenizer files",
            f"save the tokenizer there: tokenizer.save_pretrained({name!r})",
        )
    if not any(folder.glob("*.safetensors")):
        raise BabelScopeError(
            f"model folder {name} has no .safetensors file",
            "load and save the model with transformers (save_pretrained writes safetensors)",
        )


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / file).is_file() for file in _TOKENIZER_FILES)


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
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(name).exists():
            hint = "add --trust-remote-code if you trust it" if "trust_remote_code" in str(error) else "check its files"
            raise BabelScopeError(f"model folder {name} cannot be loaded: {first}", hint) from error
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
