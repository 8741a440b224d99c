"""Packing a store into one file. libhdf5 lays it out in memory; the values go from the shards straight to their places.

The disk is asked for all the room before anything is copied, so a full one is a plain error; the shards are read one
layer of one block at a time, and every dataset is checked against its sha256 on the way.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import allocate, dtype_of, read_rows
from babelscope.activations_store.hdf5 import attach, fixed_strings, put, read_checked
from babelscope.activations_store.items import copy_items
from babelscope.activations_store.manifest import SCHEMA, manifest_bytes
from babelscope.activations_store.reader import ActivationStore
from babelscope.activations_store.sparse import SparseFile, write_at
from babelscope.errors import BabelScopeError
from babelscope.schema.captured import NO_OPTION

# Scales that count what differs from block to block; all other axes are the same in every shard.
ROW_AXES = frozenset({"item", "token", "word"})
HASHED = 2**20  # bytes at a time
ORIGIN = ("device", "versions")  # attributes of a shard: what computed it
UNKNOWN = 64 * "0"  # keeps the room for a sha256

Progress: TypeAlias = Callable[[int, int, str], None]
Parts: TypeAlias = dict[str, list[NDArray[np.generic]]]


@dataclass(frozen=True, slots=True)
class Column:
    """How a dataset stands in the shards: which of its axes counts rows, and what belongs to it."""

    row_axis: int | None
    scales: tuple[str, ...]
    is_scale: bool
    attributes: Mapping[str, Any]

    @property
    def streamed(self) -> bool:
        """Whether it is too large to be gathered: (layer, row, ...)."""
        return self.row_axis == 1

    @property
    def by_block(self) -> bool:
        """Whether every block has its own: (block, ...), as the scale of int8."""
        return self.row_axis is None and not self.is_scale


def pack(store: ActivationStore, target: Path, *, partial: bool = False, progress: Progress | None = None) -> None:
    """Write all shards of a store, with everything needed to open them alone, to a new file.

    Parameters
    ----------
    target : Path
        Must not exist. If this raises, what is there is unfinished and has to be removed.
    partial : bool
        Accept a store that lacks blocks.

    Raises
    ------
    BabelScopeError
        If the store is packed already or unfinished, or if a shard is damaged.
    OSError
        If the disk is full, before anything is copied, or cannot be written.
    """
    done, planned = store.progress
    if store.path.is_file():
        raise BabelScopeError(f"{store.path} is packed already", "copy it")
    if done < planned and not partial:
        raise BabelScopeError(
            f"{store.path} is unfinished: {done} of {planned} shards",
            "finish it with `cli.py capture ... --resume`, or add --partial to pack what is there",
        )
    skeleton = SparseFile()
    handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        with h5py.File(skeleton, "w", libver=("v108", "v108")) as file:
            _describe(file, store)
            for language in store.languages:
                _lay_out(file.create_group(f"lang/{language}"), store, language)
            file.flush()
            os.posix_fallocate(handle, 0, skeleton.size)
            packed = 0
            for language in store.languages:
                for _ in _copy(handle, file[f"lang/{language}"], store, language):
                    packed += 1
                    if progress:
                        progress(packed, done, f"pack {language}")
        skeleton.write_to(handle)
        os.fsync(handle)
    finally:
        os.close(handle)


def _describe(file: h5py.File, store: ActivationStore) -> None:
    file.attrs.update({"schema": np.bytes_(SCHEMA), "plan_sha256": np.bytes_(store.fingerprint)})
    put(file, "store", np.frombuffer(manifest_bytes(store.path), np.uint8))
    with store.open_items() as items:
        copy_items(items, file.create_group("items"))
    runs = sorted((store.path / "runs").glob("*.json"))
    records = [path.read_bytes() for path in runs]
    put(file, "runs/name", fixed_strings([path.name for path in runs]))
    put(file, "runs/record", np.frombuffer(b"".join(records), np.uint8))
    put(file, "runs/record_splits", np.cumsum([0, *map(len, records)], dtype=np.int64))


def _lay_out(group: h5py.Group, store: ActivationStore, language: str) -> None:
    """Make the datasets of a language; those with layers, and what lies between them, are left for `_copy` to fill."""
    group.attrs["language"] = np.bytes_(language)
    columns: dict[str, Column] = {}
    parts: Parts = defaultdict(list)
    shapes: dict[str, list[tuple[tuple[int, ...], np.dtype[Any]]]] = defaultdict(list)
    regions, between, origins = [], [], []
    for block in store.blocks(language):
        with store.shard(language, block) as shard:
            found = datasets(shard)
            columns = columns or {path: _column(dataset) for path, dataset in found.items()}
            if found.keys() != columns.keys():
                raise ValueError("its datasets are not those of the other shards")
            for path, dataset in found.items():
                if columns[path].streamed:
                    shapes[path].append((dataset.shape, dtype_of(dataset)))
                else:
                    values, before = read_checked(dataset), parts[path][-1:]
                    # Most axes are the same in all blocks: one copy in memory.
                    parts[path] += before if before and np.array_equal(before[0], values) else [values]
            origins.append({name: bytes(shard.attrs.get(name, b"")).decode("utf-8", "replace") for name in ORIGIN})
            large = [found[path] for path in columns if columns[path].streamed]
            regions.append([(dataset.id.get_offset() or 0, dataset.shape[1]) for dataset in large])
            between.append(Path(shard.file.filename).stat().st_size - sum(d.id.get_storage_size() for d in large))
    _put_blocks(group, store.blocks(language), [p for p in columns if columns[p].streamed], regions, between)
    for name in ORIGIN:
        attach(put(group, f"blocks/{name}", fixed_strings(own[name] for own in origins)), group["blocks/block"])
    for path, column in columns.items():
        _put_column(group, path, column, parts.pop(path, []), shapes[path])
    for path, column in columns.items():
        own = [group["blocks/block"]] if column.by_block else []
        attach(group[path], *own, *(group[scale] for scale in column.scales))


def _put_blocks(group: h5py.Group, blocks: list[int], large: list[str], regions: Any, between: list[int]) -> None:
    """Which blocks there are, and what it takes to give back their files byte by byte."""
    put(group, "blocks/block", np.array(blocks, np.int32)).make_scale("block")
    put(group, "blocks/dataset", fixed_strings(large))
    put(group, "blocks/region", np.array(regions, np.int64).reshape(len(blocks), len(large), 2))
    put(group, "blocks/rest_splits", np.cumsum([0, *between], dtype=np.int64))
    rest = allocate(group["blocks"], "rest", (sum(between),), np.dtype(np.uint8))
    rest.attrs["sha256"] = np.bytes_(UNKNOWN)


def _put_column(group: h5py.Group, path: str, column: Column, parts: Any, shapes: Any) -> None:
    parent, _, name = path.rpartition("/")
    where = group.require_group(parent)
    if column.streamed:
        ((layers, _, *unit), dtype), *_ = shapes
        dataset = allocate(where, name, (layers, sum(shape[1] for shape, _ in shapes), *unit), dtype)
        dataset.attrs["sha256"] = np.bytes_(UNKNOWN)
    else:
        dataset = put(where, name, _joined(name, parts, column))
    dataset.attrs.update(column.attributes)
    if column.is_scale:
        dataset.make_scale(name)


def _copy(handle: int, group: h5py.Group, store: ActivationStore, language: str) -> Iterator[int]:
    """Fill the datasets that have layers, block by block; then say what their bytes are."""
    targets = {path: dataset for path, dataset in datasets(group).items() if _row_axis(dataset) == 1}
    rows = dict.fromkeys(targets, 0)
    rest, written = group["blocks/rest"], 0
    for block in store.blocks(language):
        with store.shard(language, block) as shard:
            for path, target in targets.items():
                source = shard[path]
                layers, total, *unit = target.shape
                if source.shape != (layers, source.shape[1], *unit) or dtype_of(source) != dtype_of(target):
                    raise ValueError(f"{source.name} has not the shape of the other shards")
                size = int(np.prod(unit, dtype=np.int64)) * dtype_of(target).itemsize
                for layer, values in enumerate(checked_layers(source)):
                    at = target.id.get_offset() if values.size else 0
                    write_at(handle, bytes_of(values), at + (layer * total + rows[path]) * size)
                rows[path] += source.shape[1]
            between = _between(Path(shard.file.filename), [shard[path] for path in targets])
        write_at(handle, memoryview(between), rest.id.get_offset() + written)
        written += len(between)
        yield block
    for target in (*targets.values(), rest):
        target.attrs.modify("sha256", np.bytes_(_stored_digest(handle, target)))


def _between(path: Path, large: Sequence[h5py.Dataset]) -> bytes:
    """The bytes of a shard but for those of its large datasets."""
    regions = sorted((d.id.get_offset(), d.id.get_storage_size()) for d in large if d.id.get_storage_size())
    with path.open("rb") as file:
        found = []
        for offset, size in regions:
            found.append(file.read(offset - file.tell()))
            file.seek(size, os.SEEK_CUR)
        return b"".join([*found, file.read()])


def _stored_digest(handle: int, dataset: h5py.Dataset) -> str:
    """Hex sha256 of the bytes of a contiguous dataset, read from an open file beside HDF5."""
    sha256, at = hashlib.sha256(), dataset.id.get_offset()
    left = dataset.id.get_storage_size() if at is not None else 0
    while left:
        data = os.pread(handle, min(left, HASHED), at)
        if not data:
            raise ValueError(f"{dataset.name}: the file ends before it")
        sha256.update(data)
        at, left = at + len(data), left - len(data)
    return sha256.hexdigest()


def checked_layers(dataset: h5py.Dataset) -> Iterator[NDArray[np.generic]]:
    """The layers of a dataset; ValueError behind the last one if they are not what was written."""
    sha256 = hashlib.sha256()
    for layer in range(dataset.shape[0]):
        values = read_rows(dataset, layer)
        sha256.update(bytes_of(values))
        yield values
    if sha256.hexdigest().encode() != bytes(dataset.attrs["sha256"]):
        raise ValueError(f"{dataset.name} does not match its sha256")


def bytes_of(values: NDArray[np.generic]) -> memoryview:
    """The bytes of an array of any dtype, in C order."""
    # bfloat16 arrays have no buffer of their own.
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def datasets(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """Path within the group -> dataset, for all of them."""
    found: dict[str, h5py.Dataset] = {}

    def keep(path: str, thing: Any) -> None:
        if isinstance(thing, h5py.Dataset):
            found[path] = thing

    group.visititems(keep)
    return found


def _column(dataset: h5py.Dataset) -> Column:
    own = {"sha256", "CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST"}
    return Column(
        _row_axis(dataset),
        tuple(dim[0].name.lstrip("/") for dim in dataset.dims if len(dim)),
        bool(dataset.is_scale),
        {name: value for name, value in dataset.attrs.items() if name not in own},
    )


def _row_axis(dataset: h5py.Dataset) -> int | None:
    if dataset.is_scale:
        return 0 if _name(dataset) in ROW_AXES else None
    return next((axis for axis, dim in enumerate(dataset.dims) if len(dim) and _name(dim[0]) in ROW_AXES), None)


def _name(dataset: h5py.Dataset) -> str:
    return str(dataset.name).rpartition("/")[2]


def _joined(name: str, parts: Sequence[NDArray[np.generic]], column: Column) -> NDArray[np.generic]:
    """The parts of all blocks as one array."""
    if name == "row_splits":
        ends = np.cumsum([0, *(int(part[-1]) for part in parts)])
        return np.concatenate([np.zeros(1, np.int64), *(p[1:] + end for p, end in zip(parts, ends[:-1], strict=True))])
    if column.by_block:
        return np.stack(parts)
    if column.row_axis is None:
        longest = max(parts, key=len)  # blocks may know fewer options
        if not all(np.array_equal(part, longest[: len(part)]) for part in parts):
            raise BabelScopeError(f"the axis {name} differs from shard to shard", "capture the store again")
        return longest
    if parts[0].dtype.kind == "S":
        width = max(part.dtype.itemsize for part in parts)
        return np.concatenate([part.astype(f"S{width}") for part in parts]).astype(h5py.string_dtype("utf-8", width))
    if parts[0].ndim > 1:
        options = max(part.shape[1] for part in parts)
        fill = np.nan if parts[0].dtype.kind == "f" else NO_OPTION if name == "label_tokens" else 0
        beyond = [(0, 0)] * (parts[0].ndim - 2)
        parts = [np.pad(p, ((0, 0), (0, options - p.shape[1]), *beyond), constant_values=fill) for p in parts]
    return np.concatenate(parts)
