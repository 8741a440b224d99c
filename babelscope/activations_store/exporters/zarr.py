"""A Zarr 3 group. bfloat16, which Zarr lacks, is uint16 with the same bits, and an attribute says so."""

from pathlib import Path

from babelscope.activations_store.bfloat16 import BFLOAT16
from babelscope.activations_store.exporting import Array, Export, Exporter, bits
from babelscope.activations_store.packing import Progress
from babelscope.activations_store.selection import optional

CHUNK = 2**25  # bytes


def write(path: Path, export: Export, progress: Progress) -> None:
    """Write each array below `arrays/`, with named dimensions; the manifest is the attributes of the root."""
    zarr = optional("zarr", "babelscope[export]")
    root = zarr.open_group(path, mode="w-", zarr_format=3, attributes=export.manifest())
    for done, array in enumerate(export.arrays, start=1):
        kept = {"kept_as": "uint16, the bits of bfloat16"} if array.dtype == BFLOAT16 else {}
        made = root.create_array(
            f"arrays/{array.name}",
            shape=array.shape,
            chunks=_chunks(array),
            dtype="uint16" if kept else array.dtype,
            dimension_names=array.about["axes"],
            attributes={**array.described(), **kept},
        )
        if array.size:
            made[...] = bits(array.read())
        progress(done, len(export.arrays), "export")


def _chunks(array: Array) -> tuple[int, ...]:
    """As many whole rows as a chunk holds."""
    rows, *unit = array.shape
    return (max(1, min(rows, CHUNK // max(1, array.size // max(1, rows)))), *(max(1, n) for n in unit))


exporter = Exporter(write, parts=frozenset({"zarr.json", "arrays"}))
