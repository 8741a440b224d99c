"""Adapters of PEFT: put on a model and proven to be there, merged into it, or switched off for a moment."""

import copy
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from babelscope.errors import BabelScopeError
from babelscope.hooks.fingerprints import record_sha256, weights_sha256

if TYPE_CHECKING:
    from babelscope.hooks.models import LoadedModel

# Names and versions, which differ between two copies of one adapter.
_VOLATILE = frozenset({"base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"})


class Adapted(NamedTuple):
    """A model with an adapter.

    Parameters
    ----------
    model : PreTrainedModel
        The model itself, with the layers of the adapter in it, or with the adapter merged into its weights.
    switch : PeftModel or None
        What can disable the adapter; None once it is merged.
    sha256 : str
        Hex, over the configuration and the weights of the adapter.
    """

    model: PreTrainedModel
    switch: Any
    sha256: str


class Sources(NamedTuple):
    """Where a model comes from: folders or hub ids of the base and of its adapter, each with its own revision.

    `adapter_is_model` where the adapter was named as the model, and the base by the adapter.
    """

    base: str
    base_revision: str | None
    adapter: str | None = None
    adapter_revision: str | None = None
    adapter_is_model: bool = False


def is_adapter(source: str, revision: str | None = None) -> bool:
    """Whether a folder or a hub id holds an adapter, which says itself what its base is."""
    if Path(source).exists():
        return (Path(source) / "adapter_config.json").is_file()
    try:
        return find_adapter_config_file(source, revision=revision) is not None
    except OSError:  # neither a hub id nor anything else; loading says so
        return False


def sources_of(source: str, revision: str | None, adapter: str | None) -> Sources:
    """Base and adapter behind what the user named: a model, a model and an adapter, or an adapter alone.

    Parameters
    ----------
    revision : str, optional
        Of `source`, whichever it is. The base of an adapter has the revision that the adapter was made for, if it
        says so.

    Raises
    ------
    BabelScopeError
        If `source` is an adapter that does not say what its base is, or one beside another adapter.
    """
    if not is_adapter(source, revision):
        return Sources(source, revision, adapter)
    if adapter is not None:
        raise BabelScopeError(
            f"{source} is itself an adapter, so --adapter {adapter} cannot be added", "name the base model instead"
        )
    config = _config(source, revision)
    if not config.base_model_name_or_path:
        raise BabelScopeError(
            f"adapter {source} does not say which model it was made for", "name the model, with --adapter beside it"
        )
    return Sources(config.base_model_name_or_path, config.revision, source, revision, adapter_is_model=True)


def other_base(sources: Sources) -> tuple[str, ...]:
    """A note where an adapter names another base than the one it is put on: of the same shape, all of it fits."""
    if sources.adapter is None:
        return ()
    named = _config(sources.adapter, sources.adapter_revision).base_model_name_or_path
    base, folder = Path(sources.base), Path(sources.base).resolve()
    same = (
        not named
        or named == sources.base
        or (base.exists() and Path(named).exists() and base.samefile(named))
        or f"models--{named.replace('/', '--')}" in folder.parts  # where the hub's own cache keeps that id
    )
    if same:
        return ()
    return (f"adapter {sources.adapter} was made for {named}; that {sources.base} is this model cannot be checked",)


def attach(model: PreTrainedModel, adapter: str, revision: str | None = None, *, merge: bool) -> Adapted:
    """Put an adapter on a model, which is changed in place, and make sure that all its weights have landed.

    Raises
    ------
    BabelScopeError
        If there is no such adapter, if it was made for a model of another shape, if it lies outside of the model
        (prompt tuning), or if merging it changes nothing.
    """
    config = _config(adapter, revision)
    if config.is_prompt_learning:
        raise BabelScopeError(
            f"adapter {adapter} is of type {config.peft_type.value}: it writes tokens of its own before every prompt",
            "name an adapter that changes the layers of the model, such as LoRA",
        )
    peft = _peft()
    with _fitting(adapter, config), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of keys that are missing: checked below
        saved = peft.load_peft_weights(adapter, device="cpu", revision=revision)
        wrapped = peft.PeftModel.from_pretrained(model, adapter, revision=revision)
        _check_landed(adapter, config, set(saved), set(peft.get_peft_model_state_dict(wrapped)))
    record = {k: sorted(v) if isinstance(v, set) else v for k, v in config.to_dict().items() if k not in _VOLATILE}
    sha256 = record_sha256({"config": record, "weights": weights_sha256(saved)})
    wrapped.eval().requires_grad_(False)
    if merge:
        return Adapted(_merged(wrapped, adapter), None, sha256)
    return Adapted(wrapped.get_base_model(), wrapped, sha256)


@contextmanager
def disabled(switch: Any) -> Iterator[None]:
    """Inside, the model computes as if it had no adapter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained biases stay, as PEFT says
        with switch.disable_adapter():
            yield


def merged_copy(loaded: "LoadedModel") -> PreTrainedModel:
    """A copy of a model that shares nothing with it, its adapter merged into the weights.

    Libraries that cut weights into pieces of their own (fused projections, as TransformerLens does) would lose an
    adapter that is not merged without a word.
    """
    if loaded.switch is None:
        return copy.deepcopy(loaded.model)
    return _merged(copy.deepcopy(loaded.switch), loaded.ref.adapter)


def _merged(wrapped: Any, adapter: str) -> PreTrainedModel:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = wrapped.get_base_model()
    kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    tuned = {path: _original(m) for path, m in base.named_modules() if isinstance(m, kinds)}
    before = {path: weights_sha256(module.state_dict()) for path, module in tuned.items()}
    model: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    if all(weights_sha256(model.get_submodule(path).state_dict()) == was for path, was in before.items()):
        raise BabelScopeError(f"adapter {adapter} changes nothing in {type(model).__name__}", "train it first")
    model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    return model


def _original(layer: Any) -> nn.Module:
    module: nn.Module = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module
    return module


def _check_landed(adapter: str, config: Any, saved: set[str], have: set[str]) -> None:
    astray, absent = sorted(saved - have), sorted(have - saved)
    if not astray and not absent:
        return
    what = f"has {len(astray)} weights without a place" if astray else f"lacks {len(absent)} weights"
    raise BabelScopeError(
        f"adapter {adapter} does not fit the model: it {what}, {(astray or absent)[0]} among them", _made_for(config)
    )


@contextmanager
def _fitting(adapter: str, config: Any) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise BabelScopeError(f"the weights of adapter {adapter} cannot be read: {error}", "get them again") from error
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # torch names the first offending weight in its second line.
        why = ": ".join(line.rstrip(":. ") for line in lines[:2]) or type(error).__name__
        raise BabelScopeError(f"adapter {adapter} does not fit the model: {why}", _made_for(config)) from error


def _made_for(config: Any) -> str:
    base = config.base_model_name_or_path
    return f"it was made for {base}" if base else "name the model that it was trained on"


def _config(adapter: str, revision: str | None) -> Any:
    try:
        return _peft().PeftConfig.from_pretrained(adapter, revision=revision)
    except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise BabelScopeError(
            f"{adapter} is no adapter: {str(error).strip().splitlines()[0]}",
            "name the folder or hub id that holds adapter_config.json and adapter_model.safetensors",
        ) from error


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise BabelScopeError("adapters need peft, which is not installed", "pip install 'peft>=0.21'") from None
    return peft
