"""Loading a model and its tokenizer from a folder or the hub."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from babelscope.errors import BabelScopeError
from babelscope.hooks.adapters import Sources, attach, other_base, sources_of
from babelscope.hooks.anatomy import Anatomy
from babelscope.hooks.anatomy_file import read_anatomy
from babelscope.hooks.checkpoints import check_source, check_weights, has_tokenizer, reported
from babelscope.hooks.fingerprints import config_sha256, record_sha256, tokenizer_sha256, weights_sha256
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
from babelscope.qcross.injection import config_of, cross_parameters, has_adapted_query
from babelscope.qcross.saving import body_state, is_qcross, load_cross, read_record, restore
from babelscope.schema import ModelRef


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
    notes : tuple of str
        What the user should know and nothing here can decide.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    ref: ModelRef
    device: torch.device
    anatomy: Anatomy
    switch: Any = None
    notes: tuple[str, ...] = ()

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
        Branch, tag or commit of the hub id `source`, be it a model or an adapter. The base of an adapter that is
        given as `source` has the revision that the adapter names.
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
        weights or adapter do not fit the architecture, if code that comes with the model fails, or if the options
        cannot be met here.
    """
    if merge_adapter and quantize:
        raise BabelScopeError("an adapter is not merged into quantized weights", "leave --merge-adapter out")
    named = None if anatomy is None else read_anatomy(anatomy)
    check_options(dtype, device, device_map, quantize, attn_implementation)
    base, adapter, crossed = cross_sources(str(source), None if adapter is None else str(adapter))
    if crossed and (device_map or quantize or merge_adapter):
        raise BabelScopeError(
            "cross-lingual queries are added to whole weights on one device",
            "leave --device-map, --quantize and --merge-adapter out",
        )
    sources = sources_of(base, revision, adapter)
    name, tuned = sources.base, sources.adapter
    if merge_adapter and tuned is None:
        raise BabelScopeError("there is no adapter to merge", "name one with --adapter, or leave --merge-adapter out")
    check_source(name)
    with reported(name, own_code=trust_remote_code, attention=attn_implementation is not None), _quiet():
        hub = {"revision": sources.base_revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(name, **hub)
        tokenizer = _tokenizer(sources, config, trust_remote_code=trust_remote_code)
        model, report = auto_class(config).from_pretrained(
            name,
            use_safetensors=True,  # the older format is a pickle, which can run code
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # and refused below
            **hub,
            **loading_options(dtype, device, device_map, quantize, attn_implementation),
        )
    own_cross = config_of(model) is not None
    if own_cross:
        report["unexpected_keys"] = {key for key in report["unexpected_keys"] if ".cross." not in key}
    check_weights(name, model, report)
    check_reachable(model)
    if own_cross:
        restore(model, name, sources.base_revision)
    model = model.eval().requires_grad_(False)
    sha256 = weights_sha256(weights(model))
    notes = other_base(sources)
    if crossed:
        as_saved = dtype == "auto" or model.dtype == config.dtype  # hashes are of weights as they are saved
        load_cross(model, crossed, base_sha256=weights_sha256(body_state(model)) if as_saved else "")
        model = model.eval().requires_grad_(False)
        if not as_saved:
            made_for = read_record(crossed).base
            notes += (f"cross-lingual queries {crossed} were made for {made_for}; in {dtype} that {name} is this model "
                      "cannot be checked",)  # fmt: skip
    if device_map is None and quantize is None:
        model = _moved(model, name, default_device() if device == "auto" else torch.device(device))
    adapted = attach(model, tuned, sources.adapter_revision, merge=merge_adapter) if tuned else None
    model = adapted.model if adapted else model
    if has_adapted_query(model):
        raise BabelScopeError(
            f"adapter {tuned} changes the query of {name}, beside which a cross-lingual one stands",
            "give --merge-adapter where the cross-lingual queries are part of the model, or name another adapter",
        )
    with reported(name, own_code=True) if trust_remote_code else nullcontext():
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
        adapter=tuned or crossed or "",
        adapter_sha256=adapted.sha256 if adapted else cross_sha256(model) if crossed else "",
        adapter_merged=merge_adapter,
        quantization=quantize or "",
    )
    switch = adapted.switch if adapted else None
    return LoadedModel(model, tokenizer, ref, input_device(model), located, switch, notes)


def cross_sources(source: str, adapter: str | None) -> tuple[str, str | None, str | None]:
    """Base, PEFT adapter, and folder of cross-lingual queries behind what the user named."""
    if adapter is not None and is_qcross(adapter):
        return source, None, adapter
    if is_qcross(source):
        return read_record(source).base, adapter, source
    return source, adapter, None


def cross_sha256(model: PreTrainedModel) -> str:
    """Hash of the cross-lingual queries of a model and of their configuration."""
    config = config_of(model)
    assert config is not None
    weights_of = weights_sha256(cross_parameters(model))
    return record_sha256({"config": config.model_dump(), "weights": weights_of})


def as_loaded(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, source: str = "in memory", base_sha256: str = ""
) -> LoadedModel:
    """A model that is in memory already, such as one that is being trained, ready to be captured as it is now.

    The model is not changed; it has to be in evaluation mode whenever it is captured.

    Parameters
    ----------
    source : str
        What stores call it.
    base_sha256 : str, optional
        Hash of the weights that no training moves, where it is known: then only those that a training moves are
        hashed, as `adapter_sha256`. They are the ones that require a gradient.

    Raises
    ------
    BabelScopeError
        If its parts cannot be found.
    """
    located = locate(model, None)
    ref = ModelRef(
        source=source,
        architecture=type(model).__name__,
        n_layers=len(located.output_stack.layers),
        dtype=str(model.dtype).removeprefix("torch."),
        weights_sha256="",
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        attn_implementation=str(model.config._attn_implementation or ""),
        config_sha256=config_sha256(model.config),
        n_encoder_layers=len(located.stacks["enc"].layers) if "enc" in located.stacks else 0,
    )
    return hashed_now(LoadedModel(model, tokenizer, ref, input_device(model), located), base_sha256)


def hashed_now(loaded: LoadedModel, base_sha256: str = "") -> LoadedModel:
    """The same model with the hashes that its weights have now, and where they are; `base_sha256` as in `as_loaded`."""
    loaded = replace(loaded, device=input_device(loaded.model))
    if not base_sha256:
        sha256 = weights_sha256(weights(loaded.model))
        return replace(loaded, ref=replace(loaded.ref, weights_sha256=sha256))
    moving = {name: p for name, p in loaded.model.named_parameters() if p.requires_grad}
    ref = replace(loaded.ref, weights_sha256=base_sha256, adapter="in memory", adapter_sha256=weights_sha256(moving))
    return replace(loaded, ref=ref)


def _tokenizer(sources: Sources, config: PretrainedConfig, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """That of the adapter where it was named as the model and has one: it may know more tokens, or a chat template."""
    name, revision = sources.base, sources.base_revision
    if sources.adapter and sources.adapter_is_model and has_tokenizer(sources.adapter, sources.adapter_revision):
        name, revision = sources.adapter, sources.adapter_revision
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        name, config=config, revision=revision, trust_remote_code=trust_remote_code
    )
    return tokenizer


def _moved(model: PreTrainedModel, name: str, device: torch.device) -> PreTrainedModel:
    try:
        moved: PreTrainedModel = model.to(device)  # type: ignore[arg-type]
    except RuntimeError as error:
        raise BabelScopeError(
            f"{name} does not fit on {device}: {str(error).splitlines()[0]}", "give --device-map auto, or --device cpu"
        ) from None
    return moved


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
