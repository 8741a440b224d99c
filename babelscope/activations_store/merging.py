"""Merging: the shards of several stores of one plan, from several jobs or machines, in one store."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py

from babelscope import layout
from babelscope.activations_store.disk import publish
from babelscope.activations_store.hdf5 import DAMAGE, belongs, read_checked
from babelscope.activations_store.manifest import SCHEMA, differences, manifest_bytes
from babelscope.activations_store.packing import Progress, checked_layers, datasets
from babelscope.activations_store.reader import ActivationStore
from babelscope.activations_store.shard import check_shard, shard_path
from babelscope.activations_store.writer import build_folder
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Which store gives which shard.

    Parameters
    ----------
    sources : mapping of (language, block) to tuple of Path
        The shards of that name, in the order in which the stores were named.
    planned : int
        Shards of the whole plan.
    """

    sources: dict[tuple[str, int], tuple[Path, ...]]
    planned: int

    def __str__(self) -> str:
        twice = sum(len(paths) > 1 for paths in self.sources.values())
        size = sum(paths[0].stat().st_size for paths in self.sources.values())
        return layout.facts({
            "shards": f"{len(self.sources)} of {self.planned}, {twice} of them in more than one store",
            "store": f"{size / 1e6:,.1f} MB",
        })  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"planned": self.planned, "shards": [
            {"language": language, "block": block, "in": list(map(str, paths))}
            for (language, block), paths in self.sources.items()
        ]}  # fmt: skip


def plan_merge(stores: Sequence[ActivationStore]) -> MergePlan:
    """Find out which store gives which shard; nothing but names is read.

    Raises
    ------
    BabelScopeError
        If a store is packed, or was captured under another plan than the first one, naming every field.
    """
    first = stores[0]
    for store in stores:
        if store.path.is_file():
            raise BabelScopeError(f"{store.path} is packed, and folders are merged", "unpack it first")
        _check_same_plan(first, store)
    plan = first.plan
    found: dict[tuple[str, int], tuple[Path, ...]] = {}
    for language, block in plan.blocks:
        paths = tuple(shard_path(store.path, plan, language, block) for store in stores)
        present = tuple(path for path in paths if path.exists())
        if present:
            found[language, block] = present
    return MergePlan(found, len(plan.blocks))


def merge(stores: Sequence[ActivationStore], target: Path, *, progress: Progress | None = None) -> None:
    """Write the shards of all stores to a new one. Texts and provenance are those of the first.

    Parameters
    ----------
    target : Path
        Must not exist. If this raises, what is there is unfinished and has to be removed.

    Raises
    ------
    BabelScopeError
        As `plan_merge` does; if two stores hold different values under one name; if a shard is damaged; if the disk
        is full.
    """
    found, plan = plan_merge(stores), stores[0].plan
    files: dict[str, bytes | memoryview] = {
        "items.h5": (stores[0].path / "items.h5").read_bytes(),
        "store.json": _manifest(stores),
    }
    build_folder(target, plan, files)
    for done, ((language, block), paths) in enumerate(found.sources.items(), start=1):
        image = paths[0].read_bytes()
        check_image(image, plan, language, block, paths[0])
        for other in paths[1:]:
            _check_same_values(paths[0], image, other, plan, language, block)
        publish(shard_path(target, plan, language, block), image)
        if progress:
            progress(done, len(found.sources), f"merge {language}")
    for name, path in _runs(stores):
        if (
            not publish(target / "runs" / name, path.read_bytes())
            and path.read_bytes() != (target / "runs" / name).read_bytes()
        ):
            raise BabelScopeError(f"{path} is another run than the one of this name in {stores[0].path}", "rename it")


def check_image(
    image: bytes | memoryview, plan: CapturePlan, language: str, block: int, path: Path | None = None
) -> dict[str, bytes]:
    """Check the bytes of a shard, every dataset against its sha256.

    Returns
    -------
    dict
        Path of each dataset -> its sha256.

    Raises
    ------
    BabelScopeError
        If it is damaged or belongs elsewhere, naming `path`.
    """
    try:
        with h5py.File(BytesIO(image), "r") as file:
            if not belongs(file, plan, language, block):
                raise ValueError("it belongs to another capture plan, language or block")
            check_shard(file, plan, block)
            for dataset in datasets(file).values():
                _check_values(dataset)
            return {name: bytes(dataset.attrs["sha256"]) for name, dataset in datasets(file).items()}
    except DAMAGE as error:
        raise BabelScopeError(
            f"{path or f'block {block} of {language!r}'}: damaged ({type(error).__name__}: {error})",
            "move it out of its store and capture it again with --resume",
        ) from None


def _check_values(dataset: h5py.Dataset) -> None:
    if dataset.ndim > 1 and dataset.dtype.kind != "S":
        for _ in checked_layers(dataset):
            pass
    else:
        read_checked(dataset)


def _check_same_plan(first: ActivationStore, other: ActivationStore) -> None:
    different = differences(first.plan.identity(), other.plan.identity())
    if not different:
        return
    told = [d.replace(": store has ", f": {first.path} has ").replace(", this run has ", f", {other.path} has ")
            for d in different]  # fmt: skip
    names = {d.partition(":")[0].partition("[")[0] for d in different}
    hint = "merge stores of one plan only"
    if names <= {"languages", "prompts_sha256", "items", "n_keys", "segments"} and "languages" in names:
        hint = (
            "the languages are part of what a plan is, so a merged store would be another capture: keep both stores, "
            "open each, and select the common items: a.select(site, items=common), b.select(site, items=common)"
        )
    raise BabelScopeError(f"{other.path} was captured under another plan than {first.path}: {'; '.join(told)}", hint)


def _check_same_values(first: Path, image: bytes, other: Path, plan: CapturePlan, language: str, block: int) -> None:
    again = other.read_bytes()
    if again == image:
        return
    have, found = (check_image(data, plan, language, block, path) for data, path in ((image, first), (again, other)))
    different = sorted(name for name in have.keys() | found.keys() if have.get(name) != found.get(name))
    if different:
        raise BabelScopeError(
            f"{first} and {other} hold different values: {', '.join(different[:4])}",
            "one of them was computed in another way: move the one you do not want out of its store",
        )


def _manifest(stores: Sequence[ActivationStore]) -> bytes:
    record: dict[str, Any] = json.loads(manifest_bytes(stores[0].path))
    about = [{"store": str(s.path), "shards": s.progress[0], "provenance": s.provenance} for s in stores]
    record["schema"] = SCHEMA
    record["provenance"] = {**record["provenance"], "merged_from": about}
    return json.dumps(record, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _runs(stores: Sequence[ActivationStore]) -> Iterator[tuple[str, Path]]:
    for store in stores:
        for path in sorted((store.path / "runs").glob("*.json")):
            yield path.name, path
