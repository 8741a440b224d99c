"""Where the weights of a model lie: on one device, over several, on the disk, or quantized on a GPU."""

import json
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from babelscope.errors import BabelScopeError, unknown_name

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
QUANTIZATIONS = ("nf4", "int8")


def check_options(
    dtype: str, device: str, device_map: str | Path | None, quantize: str | None, attn_implementation: str | None
) -> None:
    """Refuse what no model can be loaded with, before one is.

    Raises
    ------
    BabelScopeError
        For unknown names, a device that is not there, and options that contradict each other.
    """
    if dtype not in ("auto", *DTYPES):
        raise BabelScopeError(f"there is no dtype {dtype!r}", f"choose auto, {', '.join(DTYPES)}")
    if device != "auto":
        _check_device(device)
    if device_map is not None and device != "auto":
        raise BabelScopeError("--device and --device-map contradict each other", "give one of them")
    if quantize is not None:
        _check_quantization(quantize)
    if attn_implementation is not None:
        _check_attention(attn_implementation)


def _check_attention(name: str) -> None:
    # Paged kinds belong to the server of transformers; a name with a slash is a kernel on the hub.
    known = {"eager", *(x for x in ALL_ATTENTION_FUNCTIONS.valid_keys() if not x.startswith("paged|"))}
    if name not in known and "/" not in name:
        raise unknown_name("attention implementation", name, known)


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise BabelScopeError(f"there is no device {device!r}", "choose auto, cpu or cuda") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise BabelScopeError("no CUDA device is available to this Python", "give --device cpu")


def _check_quantization(quantize: str) -> None:
    if quantize not in QUANTIZATIONS:
        raise BabelScopeError(f"there is no quantization {quantize!r}", f"choose {' or '.join(QUANTIZATIONS)}")
    if find_spec("bitsandbytes") is None:
        raise BabelScopeError(
            "--quantize needs bitsandbytes, which is not installed", "pip install bitsandbytes, or leave --quantize out"
        )
    if not torch.cuda.is_available():
        raise BabelScopeError("--quantize needs a CUDA device, and none is available", "leave --quantize out")


def default_device() -> torch.device:
    """The GPU if there is one; under torchrun each process of a machine takes its own."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def device_name(device: torch.device) -> str:
    """What a device is, without its number: equal devices give equal bits, as far as any do."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device.type


def loading_options(
    dtype: str, device: str, device_map: str | Path | None, quantize: str | None, attn_implementation: str | None
) -> dict[str, Any]:
    """Arguments of `from_pretrained` that decide where weights go, in which form, and how attention is computed."""
    options: dict[str, Any] = {"dtype": "auto" if dtype == "auto" else DTYPES[dtype]}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if device_map is not None:
        options["device_map"] = _read_map(device_map)
    if quantize is not None:
        options["quantization_config"] = _quantization(quantize, options["dtype"])
        # Weights are quantized on their way to the GPU, so they cannot be loaded elsewhere first.
        options.setdefault("device_map", {"": default_device() if device == "auto" else torch.device(device)})
    return options


def _quantization(quantize: str, dtype: Any) -> Any:
    compute = torch.bfloat16 if dtype == "auto" else dtype
    four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": compute}
    options = {"load_in_8bit": True} if quantize == "int8" else four_bits
    return BitsAndBytesConfig(**options)  # type: ignore[no-untyped-call]


def _read_map(device_map: str | Path) -> str | dict[str, str | int]:
    if str(device_map) == "auto":
        return "auto"
    try:
        found = json.loads(Path(device_map).read_text("utf-8"))
    except OSError as error:
        raise BabelScopeError(
            f"device map {device_map}: {error.strerror}", "give auto, or a JSON file of module -> device"
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found or not all(isinstance(v, str | int) for v in found.values()):
        raise BabelScopeError(
            f"device map {device_map} is not a JSON object of module -> device",
            'write {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": "cpu", "lm_head": "disk"}',
        )
    return found


def is_dispatched(model: nn.Module) -> bool:
    """Whether accelerate has spread the weights, and moves inputs and weights to where they meet."""
    return getattr(model, "hf_device_map", None) is not None


def input_device(model: nn.Module) -> torch.device:
    """Where inputs go: where the first weights are, or will be once they are needed."""
    for module in model.modules():
        # Parameters that are offloaded are meta tensors, which say nothing.
        execution = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
        if execution is not None:
            return torch.device(execution)
    return next(p.device for p in model.parameters())


def check_reachable(model: nn.Module) -> None:
    """Refuse a map that separates weights which are one: only one of the two is then found on the disk.

    Raises
    ------
    BabelScopeError
        Naming the weight that is nowhere.
    """
    keys: dict[int, set[str]] = {}
    for name, kept in _offloaded(model).items():
        known = keys.setdefault(id(kept.dataset), set(kept.dataset))
        if name not in known:
            raise BabelScopeError(
                f"the device map puts {name} on the disk, and the weight that it is tied to elsewhere",
                "give both the same place (the head and the embedding, as a rule)",
            )


def weights(model: nn.Module) -> Mapping[str, Tensor]:
    """The state of a model by name; a tensor that is offloaded is read when it is asked for."""
    state: dict[str, Tensor] = model.state_dict()
    return _State(state, _offloaded(model)) if any(tensor.is_meta for tensor in state.values()) else state


def _offloaded(model: nn.Module) -> dict[str, Any]:
    """Name of each weight that accelerate moves in and out -> where it is kept."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        hook: Any = getattr(module, "_hf_hook", None)
        if getattr(hook, "offload", False):
            found |= {
                f"{path}.{name}".lstrip("."): hook.weights_map for name, _ in module.named_parameters(recurse=False)
            }
    return found


class _State(Mapping[str, Tensor]):
    """A state whose meta tensors are read from where accelerate keeps them, one at a time."""

    def __init__(self, state: Mapping[str, Tensor], offloaded: Mapping[str, Any]) -> None:
        self._state, self._offloaded = state, offloaded

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._state[name]
        if tensor.is_meta:
            tensor = self._offloaded[name].dataset[name]
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)
