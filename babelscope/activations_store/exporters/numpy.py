"""A folder of .npy files with a manifest.json, which `import --from npy` reads back."""

import json
from pathlib import Path

import numpy as np

from babelscope.activations_store.bfloat16 import BFLOAT16
from babelscope.activations_store.exporting import Export, Exporter, bits
from babelscope.activations_store.packing import Progress


def write(path: Path, export: Export, progress: Progress) -> None:
    """Write each array to a file of its own; bfloat16 as uint16 with the same bits, which the manifest says."""
    folder = path / "arrays"
    folder.mkdir(parents=True)
    described = []
    for done, array in enumerate(export.arrays, start=1):
        file = folder / f"{array.name.replace('/', '.')}.npy"
        np.save(file, bits(array.read()), allow_pickle=False)
        kept = {"kept_as": "uint16, the bits of bfloat16"} if array.dtype == BFLOAT16 else {}
        described.append({**array.described(), **kept, "file": f"arrays/{file.name}"})
        progress(done, len(export.arrays), "export")
    record = {**export.about, "arrays": described}
    (path / "manifest.json").write_text(json.dumps(record, indent=1, ensure_ascii=False), "utf-8")


exporter = Exporter(write, parts=frozenset({"manifest.json", "arrays"}))
