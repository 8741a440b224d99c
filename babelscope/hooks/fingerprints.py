"""What was loaded, as two hashes: of the weights and of the tokenizer."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """Hex sha256 over names, dtypes, shapes and bytes of all tensors, independent of their order.

    Each tensor is hashed on its own, eight at a time (hashlib releases the interpreter while it works), and
    the digests are hashed together. Only one tensor per thread is ever copied to the host.
    """
    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(_line, sorted(state.items())))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _line(entry: tuple[str, Tensor]) -> str:
    name, tensor = entry
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    shape = ",".join(map(str, tensor.shape))
    return f"{name} {str(tensor.dtype).removeprefix('torch.')} {shape} {hashlib.sha256(content).hexdigest()}"


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hex sha256 of the serialized tokenizer, without padding and truncation, which every call may change."""
    if tokenizer.is_fast:
        record = json.loads(tokenizer.backend_tokenizer.to_str())
        record.pop("padding", None)
        record.pop("truncation", None)
    else:
        record = {"vocabulary": tokenizer.get_vocab(), "special": {k: str(v) for k, v in tokenizer.special_tokens_map.items()}}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    # Vocabularies of byte-fallback tokenizers may hold lone surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
