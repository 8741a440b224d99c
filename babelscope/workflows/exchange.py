"""The verbs that move stores around: pack, unpack, merge, export, import."""

import os
from collections.abc import Sequence
from pathlib import Path

from babelscope import plugins
from babelscope.activations_store import ActivationStore, disk, exporting, importing, merging, packing, unpacking
from babelscope.activations_store.selection import Selection
from babelscope.activations_store.writer import PARTS
from babelscope.errors import BabelScopeError
from babelscope.schema import expand_sites
from babelscope.workflows.analysis import open_store
from babelscope.workflows.outputs import new_output
from babelscope.workflows.signals import Progress

AGAIN = "run the same command again"


def pack(
    store: str | Path,
    out: str | Path | None = None,
    *,
    partial: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ActivationStore:
    """Write a store to one HDF5 file, which `open` reads as it does the folder.

    Parameters
    ----------
    store : path
    out : path, optional
        Default: `packed.h5` inside of the store.
    partial : bool
        Accept a store that lacks shards.
    overwrite : bool
        Replace a file.
    progress : callable, optional
        Called with (shards done, shards in all, what).

    Raises
    ------
    BabelScopeError
        If the store is unfinished or damaged, or `out` exists, or the disk is full. Nothing half-written is left.
    """
    opened = open_store(store)
    target = opened.path / "packed.h5" if out is None else Path(out).expanduser()
    with new_output(target, overwrite=overwrite) as content, disk.reported(target, opened.size, AGAIN):
        packing.pack(opened, content, partial=partial, progress=progress)
    return ActivationStore.open(target)


def unpack(
    packed: str | Path, out: str | Path, *, overwrite: bool = False, progress: Progress | None = None
) -> ActivationStore:
    """Write the files of a packed store to a folder, byte by byte as they were; a partial one can be resumed.

    Raises
    ------
    BabelScopeError
        If `packed` is no packed store or damaged, or `out` exists, or the disk is full. Nothing half-written is left.
    """
    opened, target = open_store(packed), Path(out).expanduser()
    with new_output(target, overwrite=overwrite, parts=PARTS) as content, disk.reported(target, opened.size, AGAIN):
        unpacking.unpack(opened, content, progress=progress)
    return ActivationStore.open(target)


def merge(
    out: str | Path,
    stores: Sequence[str | Path],
    *,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ActivationStore | merging.MergePlan:
    """Write the shards of several stores of one plan to a new one. Texts and provenance are those of the first.

    Raises
    ------
    BabelScopeError
        If two stores have different plans, or different values under one name; if a shard is damaged; if `out` exists
        or the disk is full. Nothing half-written is left.
    """
    opened, target = [open_store(store) for store in stores], Path(out).expanduser()
    if not opened:
        raise BabelScopeError("there is nothing to merge", "name the stores behind the output")
    planned = merging.plan_merge(opened)
    if dry_run:
        return planned
    with new_output(target, overwrite=overwrite, parts=PARTS) as content, disk.reported(target, 0, AGAIN):
        merging.merge(opened, content, progress=progress)
    return ActivationStore.open(target)


def export(
    store: str | Path | ActivationStore,
    out: str | Path,
    *,
    format: str,
    sites: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    layers: str | None = None,
    position: str | None = None,
    float32: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Path | exporting.Export:
    """Write a part of a store in the format of another tool; only items that every language has.

    Parameters
    ----------
    format : str
        Name of an exporter: arrow, numpy, safetensors or zarr.
    sites, languages : sequence of str, optional
        Default: all. A site may name its layers, as `mlp.act@0:4`.
    layers : str, optional
        Layers of the sites that name none, as `0,3` or `2:6`. Without `sites`, those that have one of them.
    position : str, optional
        Needed only where the store holds several.
    float32 : bool
        Widen bfloat16, which loses nothing.
    dry_run : bool
        Describe the export and write nothing.

    Raises
    ------
    BabelScopeError
        For names that the store does not have, or if `out` exists or the disk is full. Nothing half-written is left.
    """
    opened = store if isinstance(store, ActivationStore) else open_store(store)
    exporter: exporting.Exporter = plugins.load("exporter", format)
    found = exporting.exported(
        _selections(opened, sites, languages, layers, position), float32=float32 or exporter.widens
    )
    if dry_run:
        return found
    target = Path(out).expanduser()
    size = sum(array.size for array in found.arrays)
    with new_output(target, overwrite=overwrite, parts=exporter.parts) as content, disk.reported(target, size, AGAIN):
        exporter.write(content, found, progress or (lambda done, total, what: None))
        _sync(content)
    return target


def import_store(
    out: str | Path,
    source: str | Path,
    *,
    kind: str,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ActivationStore | importing.Source:
    """Make a store of what another tool has captured. Its provenance says that no model was run here.

    Parameters
    ----------
    source : path
        A file or folder, as docs/exchange.md describes it.
    kind : str
        Name of an importer: npy, saelens or transformer-lens.
    dry_run : bool
        Check the source and write nothing.

    Raises
    ------
    BabelScopeError
        If the source contradicts itself, naming file and field; if `out` exists or the disk is full. Nothing
        half-written is left.
    """
    target, origin = Path(out).expanduser(), Path(source).expanduser()
    found: importing.Source = plugins.load("importer", kind)(origin)
    importing.check_source(found)
    if dry_run:
        return found
    with new_output(target, overwrite=overwrite, parts=PARTS) as content, disk.reported(target, 0, AGAIN):
        importing.write_store(found, content, kind, origin, progress=progress)
    return ActivationStore.open(target)


def _selections(
    store: ActivationStore, sites: Sequence[str] | None, languages: Sequence[str] | None, layers: str | None,
    position: str | None,
) -> list[Selection]:  # fmt: skip
    """One selection per kind of site."""
    by_name: dict[str, list[str]] = {}
    for text in sites or store.sites:
        name, at, _ = text.partition("@")
        if layers is None or at or (sites and store.layers(name) == (None,)):
            by_name.setdefault(name, []).append(text)
        elif sites:
            by_name.setdefault(name, []).append(f"{name}@{layers}")
        elif store.layers(name) != (None,):  # of all sites, those that have one of the layers
            wanted = expand_sites([f"{name}@{layers}"], store.plan.model.depths)
            kept = [str(site) for site in wanted if site.layer in store.layers(name)]
            by_name |= {name: kept} if kept else {}
    if not by_name:
        raise BabelScopeError(f"{store.path} holds no site in the layers {layers}", f"cli.py inspect {store.path}")
    return [store.select(texts, languages=languages, position=position) for texts in by_name.values()]


def _sync(path: Path) -> None:
    """Make a file, or everything in a folder, durable."""
    for part in (path, *path.rglob("*")):
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
