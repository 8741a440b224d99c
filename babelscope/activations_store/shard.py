"""A shard: one immutable HDF5 file with every captured row of one block of items in one language."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16, fill, is_bfloat16
from babelscope.activations_store.disk import hdf5_image, reported
from babelscope.activations_store.encoding import DTYPES, STATUS, Encoded, encode
from babelscope.activations_store.hdf5 import announce, attach, fixed_strings, put, put_scale, read_checked
from babelscope.activations_store.manifest import SCHEMA
from babelscope.errors import BabelScopeError
from babelscope.schema import SPELLINGS, Answers, Block, CapturePlan, Position, Rows
from babelscope.schema.site import SITE_KINDS, split_site

# What a plan may ask for among the answers beside the scores of labels.
MAY_BE_ASKED = ("text_scores", "text_tokens", "label_scores", "label_tokens", "continuation")

# What computed a shard, where nobody said so.
UNKNOWN = MappingProxyType({"device": "", "versions": "{}"})


def shard_path(store: Path, plan: CapturePlan, language: str, block: int) -> Path:
    """Where the shard of a block lies: `shards/l-sw/000000064-000000128.h5`."""
    items = plan.block(block)
    return store / "shards" / f"l-{language}" / f"{items.start:09d}-{items.stop:09d}.h5"


def committed(path: Path, plan: CapturePlan) -> set[tuple[str, int]]:
    """(language, block) of every shard whose name exists; copies may lack folders that were empty."""
    folders = {g: path / "shards" / f"l-{g}" for g in plan.languages}
    with reported(path):
        names = {g: set(os.listdir(folder)) if folder.is_dir() else set() for g, folder in folders.items()}
    return {(g, b) for g, b in plan.blocks if shard_path(path, plan, g, b).name in names[g]}


def group_name(site: str, position: Position) -> str:
    """HDF5 group of a site at a position, such as `mlp.act.last` or `resid.post.segment-question`.

    A segment is named by the user; bytes that HDF5 or a guard would trip over become `+` and two hex digits.
    """
    segment = re.sub(rb"[^A-Za-z0-9._-]", lambda m: b"+%02X" % m[0][0], position.segment.encode())
    return f"{site}.{position.kind}" + (f"-{segment.decode()}" if segment else "")


def shard_image(plan: CapturePlan, block: Block, origin: Mapping[str, str] = UNKNOWN) -> memoryview:
    """Bytes of the shard of a block: a function of the arguments alone, so that a repeated block is identical.

    Errors of the laws are not in it: they are observed once per run, and so belong to the run.

    Parameters
    ----------
    origin : mapping
        `device` and `versions` (JSON): what the bits may depend on beside the plan.

    Raises
    ------
    BabelScopeError
        If the block does not have exactly the rows that the plan asks for.
    """
    check_block(plan, block)
    encoded = {key: encode(rows.values, plan.dtype) for key, rows in block.rows.items()}

    def build(file: h5py.File) -> None:
        # Fixed-length strings (variable ones live in a heap that no checksum covers), and at most eight
        # attributes to an object (more of them move to such a heap).
        items = plan.block(block.index)
        file.attrs.update(
            {"schema": np.bytes_(SCHEMA), "plan_sha256": np.bytes_(plan.fingerprint),
             "language": np.bytes_(block.language), "block": block.index,
             "item_from": items.start, "item_to": items.stop,
             **{name: np.bytes_(text.encode("utf-8", "backslashreplace")) for name, text in origin.items()}}
        )  # fmt: skip
        rows = file.create_group("rows")
        item = put_scale(rows, "item", np.asarray(block.items, np.int32))
        attach(put(rows, "n_tokens", np.asarray(block.n_tokens, np.int32)), item)
        attach(put(rows, "last_token", fixed_strings(block.last_token)), item)
        status = attach(put(rows, "status", item_status(block, encoded)), item)
        status.attrs["flag_meanings"] = np.bytes_(" ".join(STATUS))
        if block.answers is not None:
            _put_answers(file.create_group("answers"), block, block.answers)
        failed = file.create_group("failed")
        item = put_scale(failed, "item", np.array(sorted(block.failed), np.int32))
        attach(put(failed, "reason", fixed_strings(block.failed[i] for i in sorted(block.failed))), item)
        values = []
        for (site, position), captured in block.rows.items():
            group = file.create_group(group_name(site, position))
            values.append(_put_rows(group, plan, block, site, position, captured, encoded[site, position]))
        # Behind everything else: who reads one layer then finds its place in the first few kB of the file.
        for dataset, rows in zip(values, encoded.values(), strict=True):
            fill(dataset, rows.values)

    return hdf5_image(build)


def item_status(block: Block, encoded: Mapping[tuple[str, Position], Encoded]) -> NDArray[np.uint8]:
    """Number of the worst `STATUS` among the rows of each item, over all sites, layers and positions.

    Sites with an axis of keys or summaries do not count: what does not apply is NaN in them.
    """
    found = np.zeros(len(block.items), np.uint8)
    for (site, position), rows in encoded.items():
        if {"key", "summary"} & set(SITE_KINDS[split_site(site)[1]].axes):
            continue
        status = np.where(rows.nonfinite.any(axis=0), STATUS.index("non-finite"), rows.clipped).astype(np.uint8)
        splits = block.rows[site, position].row_splits
        item = np.arange(len(found)) if splits is None else np.repeat(np.arange(len(found)), np.diff(splits))
        np.maximum.at(found, item, status)
    return found


def check_shard(file: h5py.File, plan: CapturePlan, block: int) -> None:
    """Raise ValueError or KeyError if an open shard has not the datasets that the plan asks for."""
    items = set(read_checked(file["rows/item"]).tolist()) | set(read_checked(file["failed/item"]).tolist())
    if items != set(plan.block(block)):
        raise ValueError("its items are not those of the plan")
    for site, layers in plan.site_layers().items():
        for position in plan.positions:
            group = file[group_name(site, position)]
            n = int(read_checked(group["row_splits"])[-1]) if position.ragged else len(file["rows/item"])
            value = group["value"]
            dtype = BFLOAT16 if is_bfloat16(value) else value.dtype
            if value.shape[:2] != (len(layers), n) or dtype != DTYPES[plan.dtype]:
                raise ValueError(f"{value.name} is {dtype} of shape {value.shape}")
            if plan.dtype == "int8" and group["scale"].shape != (len(layers), *value.shape[2:]):
                raise ValueError(f"{value.name} has no scale for each layer and unit")


def check_block(plan: CapturePlan, block: Block) -> None:
    """Refuse a block that is not exactly what the plan asks for, before anything is written.

    Raises
    ------
    BabelScopeError
        Naming what differs.
    """
    if block.language not in plan.languages or block.index not in range(plan.n_blocks):
        raise _bad(block, "the plan has no such block")
    items, n = list(block.items), len(block.items)
    if sorted([*items, *block.failed]) != list(plan.block(block.index)) or items != sorted(items):
        raise _bad(block, "its items and failed items are not those of the plan, each once and in order")
    lengths = {"n_tokens": len(block.n_tokens), "last_token": len(block.last_token)}
    if block.answers is not None:
        asked = _asked(plan)
        found = {name for name in MAY_BE_ASKED if _of(block.answers, name) is not None}
        if found != set(asked):
            raise _bad(block, f"the plan asks for {sorted(asked)} among the answers, there are {sorted(found)}")
        lengths |= {name: len(_of(block.answers, name)) for name in ("scores", "choice", "correct", *asked)}
    if plan.answered != (block.answers is not None) or set(lengths.values()) != {n}:
        raise _bad(block, f"{n} items, but {lengths}")
    wanted = {(site, position) for site in plan.site_layers() for position in plan.positions}
    if set(block.rows) != wanted:
        raise _bad(block, f"rows differ from the plan at {sorted(map(str, wanted ^ set(block.rows)))}")
    for (site, position), captured in block.rows.items():
        _check_rows(plan, block, site, position, captured)


def _asked(plan: CapturePlan) -> tuple[str, ...]:
    """What a plan asks for among the answers beside the scores of labels."""
    texts = ("text_scores", "text_tokens") if plan.answers == "texts" else ()
    labels = ("label_scores", "label_tokens") if plan.spellings else ()
    return (*texts, *labels, *(("continuation",) if plan.continuation else ()))


def _of(answers: Answers, name: str) -> Any:
    return getattr(answers, name)


def _check_rows(plan: CapturePlan, block: Block, site: str, position: Position, captured: Rows) -> None:
    values, splits, n = captured.values, captured.row_splits, len(block.items)
    if position.ragged != (splits is not None):
        raise _bad(block, f"{site} at {position}: row splits are for ragged positions, and needed there")
    if splits is not None:
        if len(splits) != n + 1 or splits[0] != 0 or (np.diff(splits) < 0).any():
            raise _bad(block, f"{site} at {position}: row splits {splits!r}")
        n = int(splits[-1])
    beside = {name: len(found) for name, found in captured.coordinates.items()}
    if beside != dict.fromkeys(position.coordinates, n):
        raise _bad(block, f"{site} at {position}: {n} rows, but coordinates {beside}")
    kind = SITE_KINDS[split_site(site)[1]]
    expected = plan.extents(kind)
    wrong = values.ndim != 2 + len(kind.axes) or values.shape[values.ndim - len(expected) :] != expected
    if values.shape[:2] != (len(plan.site_layers()[site]), n) or wrong:
        raise _bad(block, f"{site} at {position} has shape {values.shape}")
    if values.dtype != DTYPES[plan.row_dtype]:
        raise _bad(block, f"{site} at {position} is {values.dtype}, the plan says {plan.row_dtype}")


def _bad(block: Block, what: str) -> BabelScopeError:
    return BabelScopeError(
        f"block {block.index} of {block.language!r}: {what}", "nothing was written; report this bug of the backend"
    )


def _put_answers(group: h5py.Group, block: Block, answers: Answers) -> None:
    item = put_scale(group, "item", np.asarray(block.items, np.int32))
    option = put_scale(group, "option", np.arange(answers.scores.shape[1], dtype=np.int32))
    attach(put(group, "scores", np.asarray(answers.scores, np.float64)), item, option)
    attach(put(group, "choice", np.asarray(answers.choice, np.int64)), item)
    attach(put(group, "correct", np.asarray(answers.correct, np.float64)), item)
    reasons = [answers.undefined.get(row, "") for row in range(len(block.items))]
    attach(put(group, "undefined", fixed_strings(reasons)), item)
    if answers.text_scores is not None and answers.text_tokens is not None:
        attach(put(group, "text_scores", np.asarray(answers.text_scores, np.float64)), item, option)
        attach(put(group, "text_tokens", np.asarray(answers.text_tokens, np.int32)), item, option)
    if answers.label_scores is not None and answers.label_tokens is not None:
        spelling = put_scale(group, "spelling", fixed_strings(SPELLINGS))
        attach(put(group, "label_scores", np.asarray(answers.label_scores, np.float32)), item, option, spelling)
        attach(put(group, "label_tokens", np.asarray(answers.label_tokens, np.int32)), item, option, spelling)
    if answers.continuation is not None:
        attach(put(group, "continuation", fixed_strings(answers.continuation)), item)


def _put_rows(
    group: h5py.Group,
    plan: CapturePlan,
    block: Block,
    site: str,
    position: Position,
    captured: Rows,
    encoded: Encoded,
) -> h5py.Dataset:
    """Everything of one site and position but the bytes of its values, whose dataset is given back."""
    layers = plan.site_layers()[site]
    value = announce(group, "value", encoded.values)
    value.attrs.update({"site": np.bytes_(site), "position": np.bytes_(str(position).encode("utf-8", "replace")),
                        "dtype": np.bytes_(plan.dtype), "compute_dtype": np.bytes_(plan.model.dtype),
                        "lossy": np.uint8(plan.lossy)})  # fmt: skip
    layer = put_scale(group, "layer", np.array([-1 if i is None else i for i in layers], np.int32))
    if captured.row_splits is None:
        row = put_scale(group, "item", np.asarray(block.items, np.int32))
    else:
        splits = np.asarray(captured.row_splits, np.int64)
        put_scale(group, "row_splits", splits)
        # Place of each row among the rows of its item.
        within = np.arange(splits[-1]) - np.repeat(splits[:-1], np.diff(splits))
        row = put_scale(group, position.row_axis, within.astype(np.int32))
    axes = SITE_KINDS[split_site(site)[1]].axes
    unit = [
        put_scale(
            group, name, fixed_strings(plan.summaries) if name == "summary" else np.arange(extent, dtype=np.int32)
        )
        for name, extent in zip(axes, captured.values.shape[2:], strict=True)
    ]
    attach(value, layer, row, *unit)
    for name in position.coordinates:
        attach(put(group, name, captured.coordinates[name]), row)
    attach(put(group, "absmax", encoded.absmax), layer, row)
    attach(put(group, "nonfinite", encoded.nonfinite), layer, row)
    if encoded.scale is not None:
        attach(put(group, "scale", encoded.scale), layer, *unit)
    return value
