"""A reader of stores that knows docs/store-format.md, h5py, JSON and nothing else of this project."""

import hashlib
import json
import re
from pathlib import Path

import h5py
import numpy as np


def read_store(path):
    """Check everything that the document promises; give the plan and {(language, group): numbers}.

    Numbers of a group are float32 (layer, row, *unit), the rows of all shards of a language one behind the other.
    """
    path = Path(path)
    record = json.loads((path / "store.json").read_text("utf-8"))
    major, _ = re.fullmatch(r"babelscope/(\d+)\.(\d+)", record["schema"]).groups()
    assert int(major) == 1, "a newer format"
    plan = record["plan"]
    assert plan_hash(plan) == record["plan_sha256"], "an edited plan"
    size, total = plan["block_items"], len(plan["items"])
    found = {}
    for language in plan["languages"]:
        parts = {}
        for block in range(-(-total // size)):
            first, end = block * size, min((block + 1) * size, total)
            file = path / "shards" / f"l-{language}" / f"{first:09d}-{end:09d}.h5"
            if not file.exists():
                continue  # not captured yet
            with h5py.File(file, "r") as shard:
                assert shard.attrs["plan_sha256"] == record["plan_sha256"].encode()
                assert (shard.attrs["language"], shard.attrs["block"]) == (language.encode(), block)
                assert (shard.attrs["item_from"], shard.attrs["item_to"]) == (first, end)
                json.loads(shard.attrs["versions"])
                shard.visititems(check)
                items = sorted([*shard["rows/item"], *shard["failed/item"]])
                assert items == list(range(first, end)), "each item of a block is a row or failed"
                assert len(shard["rows/status"]) == len(shard["rows/item"])
                for name in shard:
                    if "value" in shard[name]:
                        parts.setdefault(name, []).append(numbers(shard[name], plan))
        found |= {(language, name): np.concatenate(blocks, axis=1) for name, blocks in parts.items()}
    return plan, found


def read_packed(path):
    """As `read_store`, of one packed file."""
    with h5py.File(path, "r") as file:
        record = json.loads(file["store"][()].tobytes())
        plan = record["plan"]
        assert plan_hash(plan) == record["plan_sha256"] == file.attrs["plan_sha256"].decode(), "an edited plan"
        file.visititems(check)
        size, total, found = plan["block_items"], len(plan["items"]), {}
        for language in plan["languages"]:
            group = file["lang"][language]
            assert group.attrs["language"] == language.encode()
            blocks = list(group["blocks/block"])
            planned = [i for b in blocks for i in range(b * size, min((b + 1) * size, total))]
            assert sorted([*group["rows/item"], *group["failed/item"]]) == planned
            assert len(group["blocks/device"]) == len(group["blocks/versions"]) == len(blocks)
            for name in group:
                if "value" in group[name]:
                    found[language, name] = numbers(group[name], plan, rows_of_blocks(group, name))
        return plan, found


def rows_of_blocks(group, name):
    """Rows that each block gave to a dataset of a packed file, for the scales of int8."""
    number = list(group["blocks/dataset"]).index(f"{name}/value".encode())
    return group["blocks/region"][:, number, 1]


def plan_hash(plan):
    model = {name: value for name, value in plan["model"].items() if name not in ("source", "adapter")}
    text = json.dumps({**plan, "model": model}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check(_, thing):
    """Every dataset is contiguous, has no more attributes than the header covers, and the bytes that it says."""
    assert len(thing.attrs) <= 8
    if not isinstance(thing, h5py.Dataset):
        return
    assert thing.chunks is None
    kind = thing.id.get_type()
    raw = np.empty((thing.size, kind.get_size()), np.uint8)
    if thing.size:
        thing.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=kind)  # no conversion
    assert thing.attrs["sha256"].decode() == hashlib.sha256(raw.tobytes()).hexdigest()


def numbers(group, plan, rows=None):
    value = group["value"]
    assert value.attrs["dtype"] == plan["dtype"].encode()
    axes = [axis[0].name.rpartition("/")[2] for axis in value.dims]
    assert axes[0] == "layer", "axes are named by scales"
    assert axes[1] in ("item", "token", "word"), "axes are named by scales"
    assert (axes[1] == "item") == ("row_splits" not in group)
    stored = value[()]  # HDF5 converts bfloat16 to float32
    if plan["dtype"] == "int8":
        scale = group["scale"][()]
        # In a packed file every block has its own, (block, layer, *unit).
        scale = scale[:, None] if rows is None else np.repeat(scale, rows, axis=0).swapaxes(0, 1)
        found = stored.astype(np.float32) * scale
        found[stored == -128] = np.nan
    else:
        found = stored.astype(np.float32)
    if not value.attrs["lossy"] and found.size:
        finite = np.isfinite(found)
        unit = tuple(range(2, found.ndim))
        np.testing.assert_array_equal(np.abs(found).max(axis=unit, where=finite, initial=0), group["absmax"])
        np.testing.assert_array_equal((~finite).sum(axis=unit), group["nonfinite"])
    return found


def digest(values):
    """sha256 of float32, little-endian, in C order; every NaN alike."""
    values = np.where(np.isnan(values), np.float32(np.nan), values)
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()
