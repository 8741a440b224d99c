"""What was loaded, as hashes: of the weights, the configuration and the tokenizer."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes of all tensors, independent of their order.

    Each tensor is hashed on its own, eight at a time (hashlib releases the interpreter while it works), and
    the digests are hashed together. Only one tensor per thread is ever copied to the host, or read from the disk.
    """
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(lambda name: _line(name, state[name]), sorted(state)))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(name: str, tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    shape = ",".join(map(str, tensor.shape))
    return f"{name} {str(tensor.dtype).removeprefix('torch.')} {shape} {hashlib.sha256(content).hexdigest()}"


def config_sha256(config: PretrainedConfig) -> str:
    """Hex sha256 of the configuration, which decides what weights mean: rotary base, soft caps, window.

    Only what differs from the defaults of its class counts, without the names of folders, versions and dtypes.
    """
    volatile = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"}
    return record_sha256({k: v for k, v in config.to_diff_dict().items() if k not in volatile})


def record_sha256(record: Mapping[str, Any]) -> str:
    """Hex sha256 of nested values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex sha256 of the serialized tokenizer, without padding and truncation, which every call may change."""
    if tokenizer.is_fast:
        record = json.loads(tokenizer.backend_tokenizer.to_str())
        record.pop("padding", None)
        record.pop("truncation", None)
    else:
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        record = {"vocabulary": tokenizer.get_vocab(), "special": special}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    # Vocabularies of byte-fallback tokenizers may hold lone surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
