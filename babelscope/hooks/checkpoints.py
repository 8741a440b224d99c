"""What can be wrong with the files of a model, each told as one problem and one hint."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from babelscope.errors import BabelScopeError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?\Z")
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "vocab.json", "vocab.txt",
    "tekken.json",
)  # fmt: skip
# The list of modules that a weight lies in, and its number there.
_NUMBERED = re.compile(r"(?P<list>.+?)\.(?P<number>\d+)\.")
_ABOUT_ATTENTION = re.compile("attention|attn|kernels", re.IGNORECASE)
_OTHER_CONFIG = "check that config.json belongs to these weights"


def check_source(name: str) -> None:
    """Refuse a folder that lacks a configuration, a tokenizer or weights; hub ids are left to the hub.

    Raises
    ------
    BabelScopeError
        Naming the folder and what it lacks.
    """
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
    if not has_tokenizer(name):
        raise BabelScopeError(
            f"model folder {name} has no tokenizer files",
            f"save the tokenizer there: tokenizer.save_pretrained({name!r})",
        )
    if not any(folder.glob("*.safetensors")):
        raise BabelScopeError(
            f"model folder {name} has no .safetensors file",
            "load and save the model with transformers (save_pretrained writes safetensors)",
        )


def has_tokenizer(source: str, revision: str | None = None) -> bool:
    """Whether a folder or a hub id holds a tokenizer."""
    if Path(source).is_dir():
        return any((Path(source) / file).is_file() for file in _TOKENIZER_FILES)
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "connection_errors", "gated_repo")}
    return any(cached_file(source, file, revision=revision, **quiet) for file in _TOKENIZER_FILES)


def check_weights(name: str, model: PreTrainedModel, report: Mapping[str, Any]) -> None:
    """Refuse a model that is not what its files say, by the report of `from_pretrained`.

    Raises
    ------
    BabelScopeError
        If weights are missing or have another shape, and would be random, or if blocks of the model would be left out.
    """
    # A pooler reads the last block and feeds nothing we capture; checkpoints often lack it.
    missing = sorted(k for k in report["missing_keys"] if "pooler" not in k)
    if missing:
        raise BabelScopeError(
            f"{name} lacks {len(missing)} weights of its architecture, {missing[0]} among them; they would be random",
            _OTHER_CONFIG,
        )
    misshapen = sorted(report["mismatched_keys"])
    if misshapen:
        key, found, expected = misshapen[0]
        raise BabelScopeError(
            f"{name} has {len(misshapen)} weights of another shape than its configuration says, {key} among them: "
            f"{tuple(found)}, not {tuple(expected)}",
            _OTHER_CONFIG,
        )
    unread = _unread_in_blocks(model, report["unexpected_keys"])
    if unread:
        raise BabelScopeError(
            f"{name} has {len(unread)} weights of blocks that its configuration does not know, {unread[0]} among them; "
            "without them it would be another model",
            _OTHER_CONFIG,
        )


def _unread_in_blocks(model: PreTrainedModel, unexpected: set[str]) -> list[str]:
    """Weights that belong in the model's own lists of modules and have no place there; heads are no such list."""
    prefix, config = f"{model.base_model_prefix}.", model.config.get_text_config()
    known = {key.removeprefix(prefix) for key in model.state_dict()}
    paths = {key.removeprefix(prefix): key for key in sorted(unexpected)}
    lists = {found["list"] for path in known if (found := _NUMBERED.match(path))}
    # Blocks behind the last one that predict further tokens are announced, and most classes leave them out.
    depth = getattr(config, "num_hidden_layers", 0)
    announced = range(depth, depth + (getattr(config, "num_nextn_predict_layers", 0) or 0))

    def unread(path: str) -> bool:
        found = _NUMBERED.match(path)
        # A bias without a weight is the causal mask of older checkpoints (GPT-Neo).
        weight = path.removesuffix("bias") + "weight" if path.endswith(".bias") else path
        is_weight = weight.endswith(".weight") and (weight in known or weight in paths)
        return bool(found and is_weight and found["list"] in lists and int(found["number"]) not in announced)

    return [key for path, key in paths.items() if unread(path)]


@contextmanager
def reported(name: str, *, own_code: bool = False, attention: bool = False) -> Iterator[None]:
    """Turn what transformers, or the code that comes with a model, raises into one problem and one hint.

    Parameters
    ----------
    own_code, attention : bool
        Whether code of the model may run, and whether the user chose how attention is computed: both may be to blame.
    """
    try:
        yield
    except BabelScopeError:
        raise
    except Exception as error:  # code that comes with a model raises whatever it likes
        raise _problem(name, error, own_code=own_code, attention=attention) from error


def _problem(name: str, error: Exception, *, own_code: bool, attention: bool) -> BabelScopeError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    expected = isinstance(error, OSError | ValueError | KeyError | ImportError | SafetensorError)
    why = first if first and expected else f"{type(error).__name__}: {first}".rstrip(": ")
    local = Path(name).exists()
    if isinstance(error, OSError) and not local:
        offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")
        return BabelScopeError(
            f"{name} is neither a folder here nor a model that the hub delivers: {why}",
            f"HF_HUB_OFFLINE is set: unset it, or run `hf download {name}` where there is a network"
            if offline
            else "check the spelling, the network, and your access to the model",
        )
    hint = "check its files and its own code" if own_code else "check its files"
    if "trust_remote_code" in str(error):
        hint = "add --trust-remote-code if you trust it"
    elif attention and _ABOUT_ATTENTION.search(first):
        hint = "leave --attention out, or name another one"
    elif isinstance(error, torch.OutOfMemoryError):
        hint = "give --device-map auto, or --device cpu"
    return BabelScopeError(f"{'model folder ' if local else ''}{name} cannot be loaded: {why}", hint)
