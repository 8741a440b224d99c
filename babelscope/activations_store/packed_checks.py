"""What can be wrong inside a packed file, told one problem at a time."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import h5py
import numpy as np

from babelscope.activations_store.checks import (
    TEXT,
    Layout,
    checksum_problems,
    content_problems,
    divides,
    items_problems,
    layout_problems,
    shard_layout,
)
from babelscope.activations_store.hdf5 import read_checked, strings
from babelscope.schema import CapturePlan

RUNS_LAYOUT: Layout = {
    "name": (TEXT, ("runs",)),
    "record": (np.dtype(np.uint8), ("bytes",)),
    "record_splits": (np.dtype(np.int64), ("splits",)),
}

BLOCKS_LAYOUT: Layout = {
    "blocks/block": (np.dtype(np.int32), ("blocks",)),
    "blocks/dataset": (TEXT, ("large",)),
    "blocks/region": (np.dtype(np.int64), ("blocks", "large", 2)),
    "blocks/rest_splits": (np.dtype(np.int64), ("splits",)),
    "blocks/rest": (np.dtype(np.uint8), ("bytes",)),
    "blocks/device": (TEXT, ("blocks",)),
    "blocks/versions": (TEXT, ("blocks",)),
}


def packed_problems(file: h5py.Group, plan: CapturePlan, *, full: bool) -> Iterator[str]:
    """Everything that is wrong with an open packed file, but for the meaning of the records.

    Raises
    ------
    OSError, KeyError, ValueError and what else h5py raises
        Where it is too damaged to be looked at.
    """
    if "schema" not in file.attrs:
        yield "attribute schema is missing"
    checks: dict[str, Callable[[h5py.Group], Iterator[str]]]
    checks = {"items": partial(items_problems, plan=plan, full=full), "runs": _runs_problems}
    checks |= {f"lang/{g}": partial(_language_problems, plan=plan, language=g) for g in plan.languages}
    for name, check in checks.items():
        group = file.get(name)
        if not isinstance(group, h5py.Group):
            yield f"{name} is missing"
            continue
        found = list(check(group))
        if full and not found and name != "items":  # which has looked at them itself
            found += checksum_problems(group)
        yield from (problem if problem[0] == "/" else f"{name}/{problem}" for problem in found)


def _runs_problems(group: h5py.Group) -> Iterator[str]:
    found = list(layout_problems(group, RUNS_LAYOUT))
    yield from found
    if not found and not divides(group["record_splits"], len(group["name"]), len(group["record"])):
        yield "record_splits does not divide the records"


def _language_problems(group: h5py.Group, plan: CapturePlan, language: str) -> Iterator[str]:
    if bytes(group.attrs.get("language", b"")) != language.encode():
        yield "attribute language is that of another language"
    found = list(layout_problems(group, BLOCKS_LAYOUT))
    yield from found
    if found:
        return
    blocks = read_checked(group["blocks/block"]).tolist()
    if blocks != sorted(set(blocks)) or not set(blocks) <= set(range(plan.n_blocks)):
        yield "blocks/block names blocks that the plan does not have"
        return
    if not divides(group["blocks/rest_splits"], len(blocks), len(group["blocks/rest"])):
        yield "blocks/rest_splits does not divide the rest of the shards"
    if not blocks:
        return
    layout = {
        # Every block has a scale of its own.
        name: (dtype, (len(blocks), *axes)) if name.endswith("/scale") else (dtype, axes)
        for name, (dtype, axes) in shard_layout(plan).items()
    }
    found = list(layout_problems(group, layout))
    yield from found
    if not found:
        planned = [item for block in blocks for item in plan.block(block)]
        found = list(content_problems(group, plan, planned, "its blocks"))
        yield from found or _region_problems(group, plan, blocks)


def _region_problems(group: h5py.Group, plan: CapturePlan, blocks: Sequence[int]) -> Iterator[str]:
    """Datasets whose rows are said to come from other blocks than their items: their scales would be others'."""
    large = {name for name in shard_layout(plan) if name.endswith(("/value", "/absmax", "/nonfinite"))}
    names = strings(group["blocks/dataset"])
    if sorted(names) != sorted(large):
        yield "blocks/dataset does not name the datasets that have layers, each once"
        return
    region = read_checked(group["blocks/region"])
    items = read_checked(group["rows/item"])
    ends = np.searchsorted(items, [0, *(plan.block(block).stop for block in blocks)])
    for name, rows in zip(names, region[:, :, 1].T, strict=True):
        parent = group[name].parent
        splits = read_checked(parent["row_splits"]) if "row_splits" in parent else np.arange(len(items) + 1)
        if not np.array_equal(rows, np.diff(splits[ends])):
            yield f"blocks/region has not the rows of {name} in each block"
