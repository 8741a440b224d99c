"""Unpacking: the files of a packed store again, byte by byte."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from babelscope.activations_store.bfloat16 import read_rows
from babelscope.activations_store.disk import hdf5_image, publish
from babelscope.activations_store.hdf5 import read_checked, strings
from babelscope.activations_store.items import copy_items
from babelscope.activations_store.manifest import SCHEMA, manifest_bytes
from babelscope.activations_store.merging import check_image
from babelscope.activations_store.packing import Progress, bytes_of
from babelscope.activations_store.reader import ActivationStore
from babelscope.activations_store.shard import shard_path
from babelscope.activations_store.writer import build_folder
from babelscope.errors import BabelScopeError


def unpack(store: ActivationStore, target: Path, *, progress: Progress | None = None) -> None:
    """Write the shards of a packed store to a new folder. A partial one gives an unfinished store.

    Parameters
    ----------
    target : Path
        Must not exist. If this raises, what is there is unfinished and has to be removed.

    Raises
    ------
    BabelScopeError
        If the store is not packed, or is damaged, or if the disk is full.
    """
    if not store.path.is_file():
        raise BabelScopeError(f"{store.path} is a folder already", "name a packed file")
    build_folder(target, store.plan, {"items.h5": _items_image(store), "store.json": manifest_bytes(store.path)})
    _write_runs(store, target)
    done, total = 0, store.progress[0]
    for language in store.languages:
        if not store.committed(language):
            continue
        with store.shard(language, 0) as group:
            for block, image in _shards(group):
                check_image(image, store.plan, language, block)
                publish(shard_path(target, store.plan, language, block), image)
                done += 1
                if progress:
                    progress(done, total, f"unpack {language}")


def _items_image(store: ActivationStore) -> memoryview:
    def build(file: h5py.File) -> None:
        file.attrs.update({"schema": np.bytes_(SCHEMA), "plan_sha256": np.bytes_(store.fingerprint)})
        with store.open_items() as items:
            copy_items(items, file)

    return hdf5_image(build)


def _write_runs(store: ActivationStore, target: Path) -> None:
    with store.open_items() as items:
        runs = items.parent["runs"]
        names, splits = strings(runs["name"]), read_checked(runs["record_splits"]).tolist()
        data = read_checked(runs["record"]).tobytes()
    for name, start, stop in zip(names, splits[:-1], splits[1:], strict=True):
        if Path(name).name != name or not name.endswith(".json") or name.startswith("."):
            raise BabelScopeError(f"{store.path}: {name!r} is no name of a run", "do not trust this file")
        publish(target / "runs" / name, data[start:stop])


def _shards(group: h5py.Group) -> Iterator[tuple[int, memoryview]]:
    """Each block of a language with the bytes of its file."""
    blocks, splits = read_checked(group["blocks/block"]).tolist(), read_checked(group["blocks/rest_splits"]).tolist()
    large, regions = strings(group["blocks/dataset"]), read_checked(group["blocks/region"]).tolist()
    first, sha256 = dict.fromkeys(large, 0), hashlib.sha256()
    for block, start, stop, own in zip(blocks, splits[:-1], splits[1:], regions, strict=True):
        pieces = []
        for path, (offset, rows) in zip(large, own, strict=True):
            pieces.append((offset, _rows_of(group[path], first[path], first[path] + rows)))
            first[path] += rows
        rest = group["blocks/rest"][start:stop].tobytes()
        sha256.update(rest)
        yield block, _together(rest, pieces)
    if sha256.hexdigest().encode() != bytes(group["blocks/rest"].attrs["sha256"]):
        raise ValueError(f"{group.name}/blocks/rest does not match its sha256")


def _rows_of(dataset: h5py.Dataset, start: int, stop: int) -> bytes:
    if not 0 <= start <= stop <= dataset.shape[1]:
        raise ValueError(f"{dataset.name} has not the rows that its blocks name")
    return b"".join(bytes_of(read_rows(dataset, layer, start, stop)) for layer in range(dataset.shape[0]))


def _together(rest: bytes, pieces: list[tuple[int, Any]]) -> memoryview:
    """A file: the large datasets at their offsets, and the rest around them."""
    image, used = BytesIO(), 0
    for offset, data in sorted(pieces, key=lambda piece: piece[0]):
        if not data:
            continue
        gap = offset - image.tell()
        if gap < 0 or used + gap > len(rest):
            raise ValueError("its blocks overlap")
        image.write(rest[used : used + gap])
        image.write(data)
        used += gap
    image.write(rest[used:])
    return image.getbuffer()
