"""What can be wrong inside one file of a store, told one problem at a time."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import h5py
import numpy as np
from numpy.typing import NDArray

from babelscope.activations_store.bfloat16 import BFLOAT16, is_bfloat16, read_rows
from babelscope.activations_store.encoding import DTYPES, extremes
from babelscope.activations_store.hdf5 import read_checked, strings
from babelscope.activations_store.numbers import read_numbers
from babelscope.activations_store.shard import check_shard, group_name
from babelscope.schema import SPELLINGS, CapturePlan, Position
from babelscope.schema.site import SITE_KINDS, split_site

TEXT = np.dtype("S")
# Name of a dataset -> its type and its axes; an axis is an extent, or a name whose extent is found once and then fixed.
Layout = dict[str, tuple[np.dtype[np.generic], tuple[str | int, ...]]]

ITEMS_LAYOUT: Layout = {
    "item": (TEXT, ("items",)),
    "prompts/item": (np.dtype(np.int32), ("prompts",)),
    "prompts/language": (TEXT, ("prompts",)),
    "prompts/text_sha256": (TEXT, ("prompts",)),
    "prompts/record": (np.dtype(np.uint8), ("bytes",)),
    "prompts/record_splits": (np.dtype(np.int64), ("splits",)),
}


def shard_layout(plan: CapturePlan) -> Layout:
    """The datasets of a shard; scales of an axis stand before what has the axis."""
    i4, i8, f8 = (np.dtype(t) for t in (np.int32, np.int64, np.float64))
    found: Layout = {
        "rows/item": (i4, ("n",)), "rows/n_tokens": (i4, ("n",)), "rows/last_token": (TEXT, ("n",)),
        "rows/status": (np.dtype(np.uint8), ("n",)),
        "failed/item": (i4, ("m",)), "failed/reason": (TEXT, ("m",)),
    }  # fmt: skip
    if plan.answered:
        found |= {
            "answers/item": (i4, ("n",)), "answers/option": (i4, ("option",)),
            "answers/scores": (f8, ("n", "option")), "answers/choice": (i8, ("n",)), "answers/correct": (f8, ("n",)),
            "answers/undefined": (TEXT, ("n",)),
        }  # fmt: skip
    if plan.answers == "texts":
        found |= {"answers/text_scores": (f8, ("n", "option")), "answers/text_tokens": (i4, ("n", "option"))}
    if plan.spellings:
        axes = ("n", "option", len(SPELLINGS))
        found |= {
            "answers/spelling": (TEXT, (len(SPELLINGS),)), "answers/label_scores": (np.dtype(np.float32), axes),
            "answers/label_tokens": (i4, axes),
        }  # fmt: skip
    if plan.continuation:
        found["answers/continuation"] = (TEXT, ("n",))
    for site, layers in plan.site_layers().items():
        for position in plan.positions:
            found |= _rows_layout(plan, site, len(layers), position)
    return found


def _rows_layout(plan: CapturePlan, site: str, n_layers: int, position: Position) -> Layout:
    group = group_name(site, position)
    i4, f4, u4 = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.uint32)
    n = f"{group}/rows" if position.ragged else "n"
    units = SITE_KINDS[split_site(site)[1]].axes
    shape: tuple[str | int, ...] = (n_layers, n)
    found: Layout = {"layer": (i4, (n_layers,)), position.row_axis: (i4, (n,))}
    if position.ragged:
        found["row_splits"] = (np.dtype(np.int64), (f"{group}/splits",))
    found |= {name: (TEXT if name == "summary" else i4, (f"{group}/{name}",)) for name in units}
    unit = tuple(f"{group}/{name}" for name in units)
    found["value"] = (DTYPES[plan.dtype], (*shape, *unit))
    if plan.dtype == "int8":
        found["scale"] = (f4, (n_layers, *unit))
    found |= {name: (np.dtype(np.uint8) if name == "special" else i4, (n,)) for name in position.coordinates}
    found |= {"absmax": (f4, shape), "nonfinite": (u4, shape)}
    return {f"{group}/{name}": about for name, about in found.items()}


def layout_problems(file: h5py.Group, layout: Layout) -> Iterator[str]:
    """Datasets that are missing, or have another type or shape."""
    extents: dict[str, int] = {}
    for name, (dtype, axes) in layout.items():
        dataset = file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            yield f"{name} is missing"
            continue
        have = BFLOAT16 if is_bfloat16(dataset) else dataset.dtype
        if have != dtype and not (dtype == TEXT and have.kind == "S"):
            yield f"{name} is {have}, not {dtype}"
        shape = dataset.shape or ()
        want = tuple(
            axis if isinstance(axis, int) else extents.setdefault(axis, found)
            for axis, found in zip(axes, shape, strict=False)
        )
        if len(shape) != len(axes) or shape != want:
            yield f"{name} has shape {shape}, not {want}"


def shard_problems(file: h5py.Group, plan: CapturePlan, block: int, *, full: bool) -> Iterator[str]:
    """Everything that is wrong with an open shard of a block.

    Raises
    ------
    OSError, KeyError, ValueError and what else h5py raises
        Where it is too damaged to be looked at.
    """
    planned = plan.block(block)
    if (int(file.attrs["item_from"]), int(file.attrs["item_to"])) != (planned.start, planned.stop):
        yield "item_from and item_to are not those of its block"
    found = list(layout_problems(file, shard_layout(plan)))
    found += [f"attribute {name} is missing" for name in ("schema", "device", "versions") if name not in file.attrs]
    yield from found
    if found:
        return
    check_shard(file, plan, block)
    yield from content_problems(file, plan, planned, "its block")
    if full:
        yield from checksum_problems(file)


def content_problems(file: h5py.Group, plan: CapturePlan, planned: Sequence[int], blocks: str) -> Iterator[str]:
    """What disagrees in the rows of a shard, or of a language of a packed file, that have the right layout."""
    items, failed = read_checked(file["rows/item"]), read_checked(file["failed/item"])
    if sorted([*items.tolist(), *failed.tolist()]) != list(planned) or (np.diff(items) <= 0).any():
        yield f"its items are not those of {blocks}, each once and in order"
    for site, layers in plan.site_layers().items():
        for position in plan.positions:
            group = file[group_name(site, position)]
            yield from _attribute_problems(group, plan, site, position)
            yield from _rows_problems(group, layers, position, items)


def _attribute_problems(group: h5py.Group, plan: CapturePlan, site: str, position: Position) -> Iterator[str]:
    attributes = group["value"].attrs
    names = ("site", "position", "dtype", "compute_dtype")
    said = {name: bytes(attributes[name]).decode("utf-8", "replace") for name in names}
    if (said["site"], said["position"]) != (site, str(position).encode("utf-8", "replace").decode()):
        yield f"{group.name} says that it is {said['site']} at {said['position']}"
    lossy = bool(attributes["lossy"])
    if (said["dtype"], said["compute_dtype"], lossy) != (plan.dtype, plan.model.dtype, plan.lossy):
        yield f"{group.name} says that it is {said['compute_dtype']} stored as {said['dtype']}, lossy {int(lossy)}"


def _rows_problems(
    group: h5py.Group, layers: tuple[int | None, ...], position: Position, items: NDArray[np.generic]
) -> Iterator[str]:
    if read_checked(group["layer"]).tolist() != [-1 if i is None else i for i in layers]:
        yield f"{group.name}/layer is not what the plan says"
    if not position.ragged:
        if not np.array_equal(read_checked(group["item"]), items):
            yield f"{group.name}/item differs from rows/item"
        return
    splits = read_checked(group["row_splits"])
    rows = group["value"].shape[1]
    if len(splits) != len(items) + 1 or splits[0] != 0 or splits[-1] != rows or (np.diff(splits) < 0).any():
        yield f"{group.name}/row_splits does not divide {rows} rows among {len(items)} items"


def checksum_problems(file: h5py.Group) -> Iterator[str]:
    """Datasets whose bytes differ from their sha256, and values whose `absmax` or `nonfinite` is not theirs.

    Which scale an axis belongs to is not looked at: HDF5 keeps that without a checksum, and a wrong bit in it can make
    HDF5 loop for ever. No number depends on it here.
    """
    names: list[str] = []
    file.visititems(lambda name, thing: names.append(name) if isinstance(thing, h5py.Dataset) else None)
    for name in names:
        dataset, hashed = file[name], hashlib.sha256()
        is_value = name.endswith("/value") and "absmax" in dataset.parent
        wrong: set[str] = set()
        for layer, piece in enumerate(_pieces(dataset)):
            hashed.update(np.ascontiguousarray(piece).view(np.uint8).data if piece.size else b"")
            if is_value:
                wrong |= _other_extremes(dataset.parent, layer, piece)
        if hashed.hexdigest().encode() != bytes(dataset.attrs["sha256"]):
            yield f"{name} does not match its sha256"
        else:
            yield from (f"{name[:-6]}/{beside} is not that of the values" for beside in sorted(wrong))


def _other_extremes(group: h5py.Group, layer: int, values: NDArray[np.generic]) -> set[str]:
    """Which of `absmax` and `nonfinite`, those of the model, cannot be those of one stored layer (row, *unit)."""
    want, slack = group["absmax"][layer], np.float32(0)
    if values.dtype == np.int8:
        scale = group["scale"]
        scale = scale[layer] if scale.ndim < group["value"].ndim else scale[:, layer]  # a packed file has one per block
        values = read_numbers(group, layer)
        # Half a scale of rounding, a little of float32, and scales below the normal numbers, which are coarse.
        slack = np.float32(0.501) * scale.max(initial=0) + np.finfo(np.float32).tiny
    elif values.dtype == np.float16:  # rounding keeps the order, so the largest is the rounded largest, clipped
        with np.errstate(over="ignore"):
            want = np.minimum(want.astype(np.float16), np.finfo(np.float16).max).astype(np.float32)
    absmax, nonfinite = (found[0] for found in extremes(values[np.newaxis]))
    fits = {"absmax": np.abs(absmax - want) <= slack, "nonfinite": nonfinite == group["nonfinite"][layer]}
    return {name for name, fit in fits.items() if not fit.all()}


def _pieces(dataset: h5py.Dataset) -> Iterator[NDArray[np.generic]]:
    """The values in C order, one layer at a time where there are layers: a shard may be large."""
    if dataset.ndim < 2:
        yield np.asarray(dataset[()])
    else:
        yield from (read_rows(dataset, i) for i in range(len(dataset)))


def items_problems(file: h5py.Group, plan: CapturePlan, *, full: bool) -> Iterator[str]:
    """Everything that is wrong with an open `items.h5`, but for the meaning of the records."""
    found = list(layout_problems(file, ITEMS_LAYOUT))
    yield from found
    if found or not full:
        return
    broken = list(checksum_problems(file))
    yield from broken
    if broken:
        return
    # Fixed-length strings end in zeros, which are no part of them.
    if strings(file["item"]) != [i.encode("utf-8", "backslashreplace").decode().rstrip("\0") for i in plan.items]:
        yield "its items are not those of the plan"
    group = file["prompts"]
    numbers, languages = read_checked(group["item"]), strings(group["language"])
    if not set(languages) <= set(plan.languages) or not set(numbers.tolist()) <= set(range(len(plan.items))):
        yield "it has prompts of items or languages that the plan does not have"
    if not divides(group["record_splits"], len(numbers), len(group["record"])):
        yield "prompts/record_splits does not divide the records"


def divides(splits: h5py.Dataset, parts: int, length: int) -> bool:
    """Whether splits cut `length` elements into that many parts."""
    ends = read_checked(splits).tolist()
    return len(ends) == parts + 1 and (ends[0], ends[-1]) == (0, length) and all(a <= b for a, b in pairwise(ends))
