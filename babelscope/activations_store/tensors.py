"""The safetensors format: a JSON header, then the bytes of all tensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16
from babelscope.errors import BabelScopeError

# NumPy name -> the name that the format has for it.
NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {name: BFLOAT16 if numpy == "bfloat16" else np.dtype(numpy) for numpy, name in NAMES.items()}
_LONGEST_HEADER = 10**8  # as the library of that name has it


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies in a file, read when it is asked for. The library cannot give bfloat16 to NumPy."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    def read(self) -> NDArray[np.generic]:
        """Map the tensor; pages are read as they are used."""
        if not all(self.shape):
            return np.empty(self.shape, self.dtype)
        raw = np.memmap(self.path, np.uint8, "r", self.offset, (self._size,))
        values: NDArray[np.generic] = raw.view(self.dtype).reshape(self.shape)
        return values

    @property
    def _size(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises
    ------
    BabelScopeError
        If it is none, or if a tensor has a dtype that is not known or lies outside of the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError(f"its header would be {length} bytes long")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: _tensor(path, name, record, 8 + length, size) for name, record in header.items()}
    except OSError as error:
        raise BabelScopeError(f"{path}: {error.strerror or error}", "name a .safetensors file") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BabelScopeError(
            f"{path} is no whole safetensors file: {error}", "write it again with safetensors.torch.save_file"
        ) from None


def _tensor(path: Path, name: str, record: Any, base: int, size: int) -> Tensor:
    if record["dtype"] not in _DTYPES:
        raise ValueError(f"tensor {name!r} has dtype {record['dtype']!r}, known are {', '.join(_DTYPES)}")
    shape, (start, stop) = tuple(map(int, record["shape"])), record["data_offsets"]
    tensor = Tensor(path, base + start, shape, _DTYPES[record["dtype"]])
    if min((*shape, start), default=0) < 0 or stop - start != tensor._size or base + stop > size:
        raise ValueError(f"tensor {name!r} lies outside of the file, or has not the size of its shape")
    return tensor
