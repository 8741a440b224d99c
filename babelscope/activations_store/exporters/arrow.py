"""One Arrow IPC file: a row per item (or token, or word), site, layer and language. bfloat16 becomes float32."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from babelscope.activations_store.exporting import Array, Export, Exporter
from babelscope.activations_store.packing import Progress
from babelscope.errors import BabelScopeError


def write(path: Path, export: Export, progress: Progress) -> None:
    """Write a record batch per array; rows are flat lists of fixed size, their shape is in the metadata.

    Raises
    ------
    BabelScopeError
        If the sites have rows of different sizes, which one column cannot hold.
    """
    values = [array for array in export.arrays if "coordinate" not in array.about]
    beside = {array.name: array for array in export.arrays if "coordinate" in array.about}
    widths = {int(np.prod(array.shape[1:])): array.about["site"] for array in values}
    if len(widths) > 1:
        told = ", ".join(f"{site} {width}" for width, site in sorted(widths.items()))
        raise BabelScopeError(f"one Arrow column holds rows of one size, these sites have {told}", "name one --site")
    metadata = {"babelscope": json.dumps(export.manifest(), ensure_ascii=False)}
    first = _batch(export, values[0], beside, metadata)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, first.schema) as file:
        for done, array in enumerate(values, start=1):
            file.write_batch(first if done == 1 else _batch(export, array, beside, metadata))
            progress(done, len(values), "export")


def _batch(export: Export, array: Array, beside: dict[str, Array], metadata: dict[str, str]) -> Any:
    about, n = array.about, array.shape[0]
    columns: dict[str, Any] = {
        "language": pa.array([about["language"]] * n, pa.string()),
        "site": pa.array([about["site"]] * n, pa.string()),
        "layer": pa.array([about["layer"]] * n, pa.int32()),
        "item": pa.array(_items(export, array, beside), pa.string()),
    }
    for name, values in _coordinates(array, beside):
        columns[name] = pa.array(values)
    width = int(np.prod(array.shape[1:]))
    columns["values"] = pa.FixedSizeListArray.from_arrays(pa.array(array.read().reshape(-1)), width)
    return pa.record_batch(columns, metadata=metadata)


def _items(export: Export, array: Array, beside: dict[str, Array]) -> list[str]:
    """The item of each row."""
    splits = beside.get(f"{array.about['language']}/{array.about['site']}/row_splits")
    items = export.about["items"]
    return list(items) if splits is None else np.repeat(np.array(items, object), np.diff(splits.read())).tolist()


def _coordinates(array: Array, beside: dict[str, Array]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    start = f"{array.about['language']}/{array.about['site']}/"
    for name, coordinate in beside.items():
        if name.startswith(start) and not name.endswith("/row_splits"):
            yield name.removeprefix(start), coordinate.read()


exporter = Exporter(write, widens=True)
