"""Cross-lingual queries in a folder of their own, and models that have them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file

from babelscope.errors import BabelScopeError
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.injection import config_of, cross_parameters, inject, set_config

WEIGHTS, RECORD = "qcross.safetensors", "qcross.json"


class QcrossRecord(BaseModel):
    """qcross.json: what the weights beside it are.

    Parameters
    ----------
    base : str
        Model that they were trained on, as it was named.
    base_sha256 : str
        Hash of its `body_state` (`hooks.fingerprints.weights_sha256`).
    languages : tuple of str
        Pairs that they were trained on, as en-fr.
    config : QcrossConfig
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: str = "babelscope-qcross/1.0"
    base: str
    base_sha256: str = ""
    languages: tuple[str, ...] = ()
    config: QcrossConfig


def is_qcross(folder: str | Path) -> bool:
    """Whether a folder holds cross-lingual queries by themselves."""
    return (Path(folder) / RECORD).is_file()


def save_cross(model: PreTrainedModel, folder: Path, record: QcrossRecord) -> None:
    """Write the cross-lingual queries of a model, and nothing else of it, to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().cpu().contiguous() for name, p in _relative(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / RECORD).write_text(record.model_dump_json(indent=1) + "\n", "utf-8")


def read_record(folder: str | Path) -> QcrossRecord:
    """The qcross.json of a folder.

    Raises
    ------
    BabelScopeError
        If it is missing, or damaged.
    """
    file = Path(folder) / RECORD
    try:
        return QcrossRecord.model_validate_json(file.read_text("utf-8"))
    except OSError:
        raise BabelScopeError(f"{folder} holds no {RECORD}", "name the folder that `train qcross` wrote") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise BabelScopeError(f"{file}: {field}: {first['msg']}", "get the folder again") from None


def load_cross(model: PreTrainedModel, folder: str | Path, *, base_sha256: str = "") -> QcrossRecord:
    """Inject a model and give it the cross-lingual queries of a folder; every one has to find its place.

    Parameters
    ----------
    base_sha256 : str, optional
        Hash of the model's `body_state`, where it is known: cross-lingual queries of another base are refused.

    Raises
    ------
    BabelScopeError
        If they were trained on other weights, do not fit the model, or cannot be read.
    """
    record = read_record(folder)
    if base_sha256 and record.base_sha256 and base_sha256 != record.base_sha256:
        raise BabelScopeError(
            f"{folder} was trained on {record.base}, whose weights are others than those of this model",
            f"name {record.base}",
        )
    try:
        tensors = load_file(Path(folder) / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise BabelScopeError(f"{Path(folder) / WEIGHTS} cannot be read: {error}", "get the folder again") from None
    if config_of(model) is None:
        inject(model, record.config)
    else:
        set_config(model, record.config)
    fill(model, tensors, str(folder))
    return record


def fill(model: PreTrainedModel, tensors: dict[str, Tensor], source: str) -> None:
    """Copy cross-lingual queries by name, as they are called inside of the model's body.

    Raises
    ------
    BabelScopeError
        If one is missing, too many, or of another shape.
    """
    places = _relative(model)
    shapes = {name: tuple(p.shape) for name, p in places.items()}
    given = {name: tuple(x.shape) for name, x in tensors.items()}
    odd = sorted(n for n in shapes.keys() | given.keys() if shapes.get(n) != given.get(n))
    if odd:
        what = f"{odd[0]} has shape {given.get(odd[0], 'none')}, not {shapes.get(odd[0], 'none')}"
        raise BabelScopeError(f"{source} does not fit {type(model).__name__}: {what}", "name the base it was made for")
    with torch.no_grad():
        for name, parameter in places.items():
            parameter.copy_(tensors[name])


def restore(model: PreTrainedModel, source: str, revision: str | None = None) -> None:
    """Give a model whose configuration names cross-lingual queries those that stand among its own weights.

    Raises
    ------
    BabelScopeError
        If they are not there.
    """
    config = config_of(model)
    assert config is not None
    del model.config.qcross
    inject(model, config)
    prefix = f"{model.base_model_prefix}."
    found = tensors_of(source, lambda name: ".cross." in name, revision)
    fill(model, {name.removeprefix(prefix): x for name, x in found.items()}, source)


def tensors_of(source: str, wanted: Callable[[str], bool], revision: str | None = None) -> dict[str, Tensor]:
    """Some of the weights of a folder or hub id with safetensors, by name."""
    quiet = {"revision": revision, "_raise_exceptions_for_missing_entries": False}
    index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, **quiet)
    files = [SAFE_WEIGHTS_NAME]
    if index is not None:
        files = sorted(set(json.loads(Path(index).read_text("utf-8"))["weight_map"].values()))
    found: dict[str, Tensor] = {}
    for file in files:
        path = cached_file(source, file, **quiet)
        if path is None:  # weights in an older format
            continue
        with safe_open(path, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys() if wanted(name)}  # noqa: SIM118
    return found


def body_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights that cross-lingual queries are made for: without a head, a pooler, and the queries themselves."""
    state = model.base_model.state_dict()
    return {name: x for name, x in state.items() if ".cross." not in name and "pooler" not in name}


def _relative(model: PreTrainedModel) -> dict[str, Any]:
    """Cross-lingual queries by their names in the body: a classifier and a language model share them."""
    return cross_parameters(model.base_model)
