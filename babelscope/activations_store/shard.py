"""A shard: one immutable HDF5 file with every captured row of one block of items in one language."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store import bfloat16
from babelscope.activations_store.disk import hdf5_image
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, CapturePlan, Position, Rows
from babelscope.schema.site import SITE_KINDS, split_site

SCHEMA = "babelscope/1.0"


def shard_path(store: Path, plan: CapturePlan, language: str, block: int) -> Path:
    """Where the shard of a block lies: `shards/l-sw/000000064-000000128.h5`."""
    items = plan.block(block)
    return store / "shards" / f"l-{language}" / f"{items.start:09d}-{items.stop:09d}.h5"


def group_name(site: str, position: Position) -> str:
    """HDF5 group of a site at a position, such as `mlp.act.last` or `resid.post.segment:question`."""
    return f"{site}.{position}"


def shard_image(plan: CapturePlan, block: Block) -> memoryview:
    """Bytes of the shard of a block.

    Raises
    ------
    BabelScopeError
        If the block does not have exactly the rows that the plan asks for.
    """
    _check(plan, block)

    def build(file: h5py.File) -> None:
        # Fixed-length strings: variable ones live in a heap that no checksum covers.
        attributes = {
            "schema": np.bytes_(SCHEMA), "plan_sha256": np.bytes_(plan.fingerprint),
            "language": np.bytes_(block.language), "block": block.index,
        }  # fmt: skip
        file.attrs.update(attributes)
        for name, error in block.law_errors.items():
            file.attrs[f"law:{name}"] = error
        rows = file.create_group("rows")
        _put(rows, "item", np.asarray(block.items, np.int32))
        _put(rows, "n_tokens", np.asarray(block.n_tokens, np.int32))
        _put(rows, "last_token", _fixed(block.last_token))
        if block.answers is not None:
            for name in ("scores", "choice", "correct"):
                _put(rows, name, getattr(block.answers, name))
        failed = file.create_group("failed")
        _put(failed, "item", np.array(sorted(block.failed), np.int32))
        _put(failed, "reason", _fixed([block.failed[i] for i in sorted(block.failed)]))
        for (site, position), captured in block.rows.items():
            _put_rows(file.create_group(group_name(site, position)), plan, block, site, position, captured)

    return hdf5_image(build)


@contextmanager
def opened(path: Path, plan: CapturePlan) -> Iterator[h5py.File]:
    """An open shard, checked to belong to the plan.

    Raises
    ------
    BabelScopeError
        If the file cannot be read or belongs to another plan.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise BabelScopeError(f"{path}: not a readable shard ({error})", "move it away and capture again with --resume") from None
    with file:
        owner = file.attrs.get("plan_sha256", b"")
        if bytes(owner).decode("ascii", "replace") != plan.fingerprint:
            raise BabelScopeError(f"{path}: belongs to another capture plan", "move it out of this store")
        yield file


def check_digest(dataset: h5py.Dataset, values: NDArray[np.generic]) -> bool:
    """Whether values read from a dataset have the sha256 written beside it."""
    return bytes(dataset.attrs["sha256"]).decode() == _sha256(values)


def _check(plan: CapturePlan, block: Block) -> None:
    wanted = {(site, position) for site in plan.site_layers() for position in plan.positions}
    if set(block.rows) != wanted:
        missing = sorted(map(str, wanted ^ set(block.rows)))
        raise BabelScopeError(f"block {block.index} of {block.language}: rows differ from the plan at {missing}", "")
    if set(block.items) | set(block.failed) != set(plan.block(block.index)):
        raise BabelScopeError(f"block {block.index} of {block.language}: items differ from the plan", "")
    for (site, position), captured in block.rows.items():
        n = len(block.items) if captured.row_splits is None else int(captured.row_splits[-1])
        shape = captured.values.shape
        if shape[:2] != (len(plan.site_layers()[site]), n) or position.ragged != (captured.row_splits is not None):
            raise BabelScopeError(f"block {block.index} of {block.language}: {site} at {position} has shape {shape}", "")


def _put_rows(
    group: h5py.Group, plan: CapturePlan, block: Block, site: str, position: Position, captured: Rows
) -> None:
    layers = plan.site_layers()[site]
    value = _put(group, "value", captured.values)
    value.attrs.update({"site": np.bytes_(site), "position": np.bytes_(str(position)), "dtype": np.bytes_(plan.dtype)})
    layer = _put(group, "layer", np.array([-1 if i is None else i for i in layers], np.int32))
    layer.make_scale("layer")
    value.dims[0].attach_scale(layer)
    if captured.row_splits is None:
        item = _put(group, "item", np.asarray(block.items, np.int32))
        item.make_scale("item")
        value.dims[1].attach_scale(item)
    else:
        _put(group, "row_splits", np.asarray(captured.row_splits, np.int64))
    _, kind, _ = split_site(site)
    for axis, name in enumerate(("layer", "token" if position.ragged else "item", *SITE_KINDS[kind].axes)):
        value.dims[axis].label = name
    wide = np.asarray(captured.values, np.float32)
    unit = tuple(range(2, wide.ndim))
    finite = np.isfinite(wide)
    _put(group, "absmax", np.abs(np.where(finite, wide, 0)).max(axis=unit, initial=0).astype(np.float32))
    _put(group, "nonfinite", (~finite).sum(axis=unit).astype(np.uint32))


def _put(group: h5py.Group, name: str, values: NDArray[np.generic]) -> h5py.Dataset:
    dataset = bfloat16.write(group, name, values)
    dataset.attrs["sha256"] = np.bytes_(_sha256(values))
    return dataset


def _sha256(values: NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).view(np.uint8).data if values.size else b"").hexdigest()


def _fixed(texts: Any) -> NDArray[np.bytes_]:
    encoded = [str(t).encode() for t in texts]
    return np.array(encoded, dtype=f"S{max([len(e) for e in encoded] + [1])}")


def rows_table(file: h5py.File) -> Mapping[str, NDArray[np.generic]]:
    """The per-item columns of a shard."""
    return {name: dataset[()] for name, dataset in file["rows"].items()}
