"""One .safetensors file. bfloat16 stays bfloat16; the manifest is in the metadata, under `babelscope`."""

import json
from pathlib import Path

from babelscope.activations_store.exporting import Export, Exporter
from babelscope.activations_store.packing import Progress, bytes_of
from babelscope.activations_store.tensors import NAMES


def write(path: Path, export: Export, progress: Progress) -> None:
    """Write array behind array, so that memory holds one of them; the library of that name wants all of them."""
    header: dict[str, object] = {"__metadata__": {"babelscope": json.dumps(export.manifest(), ensure_ascii=False)}}
    at = 0
    for array in export.arrays:
        header[array.name] = {
            "dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [at, at + array.size],
        }  # fmt: skip
        at += array.size
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "backslashreplace")
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for done, array in enumerate(export.arrays, start=1):
            file.write(bytes_of(array.read()))
            progress(done, len(export.arrays), "export")


exporter = Exporter(write)
