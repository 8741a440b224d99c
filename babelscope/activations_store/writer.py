"""Writing a store: created whole, filled shard by shard, resumed by asking which names exist."""

import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import h5py
import numpy as np

from babelscope.activations_store.disk import (
    HOST,
    OLD,
    discard,
    is_abandoned,
    publish,
    reported,
    sweep,
    sync_folder,
    temporary_name,
)
from babelscope.activations_store.items import items_image, read_prompts
from babelscope.activations_store.manifest import Manifest, check_plan, differences, is_store, read_manifest
from babelscope.activations_store.resuming import quarantine_damaged
from babelscope.activations_store.shard import committed, shard_image, shard_path
from babelscope.activations_store.sums import Progress, write_sums
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, CapturePlan, PromptSet

# All that a store may hold; a folder with anything else in it is never removed.
PARTS = frozenset({"store.json", "items.h5", "shards", "runs", "SHA256SUMS", "packed.h5", "quarantine"})
SUFFIXES = frozenset({".h5", ".json", ".tmp", "SHA256SUMS"})


class StoreWriter:
    """Fills a store. A shard whose name exists is committed; anything else is not there.

    Use `create` or `resume`, then `put` every block of `pending`, inside a `with`.

    Attributes
    ----------
    path : Path
    plan : CapturePlan
    provenance : mapping
        Of this run: `device` and `versions` go into every shard, all of it into `runs/`.
    quarantined : tuple of str
        What `resume` moved away, each with the reason; it is pending again.
    """

    def __init__(
        self,
        path: Path,
        plan: CapturePlan,
        provenance: Mapping[str, Any] = MappingProxyType({}),
        quarantined: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.plan = plan
        self.provenance = provenance
        self.quarantined = tuple(quarantined)
        self._digests: dict[str, str] = {}
        self._run = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{HOST}-{os.getpid()}"

    @classmethod
    def create(
        cls,
        path: Path,
        plan: CapturePlan,
        prompts: PromptSet,
        provenance: Mapping[str, Any],
        *,
        texts: bool = True,
        overwrite: bool = False,
    ) -> "StoreWriter":
        """Make an empty store for a plan.

        Parameters
        ----------
        texts : bool
            Whether prompt texts are kept; their hashes always are.
        overwrite : bool
            Replace an existing store (never anything else).

        Raises
        ------
        BabelScopeError
            If `path` exists and may not be replaced, a language code is not one, the plan was made for other
            prompts, or the disk is full. Nothing half-written is left.
        """
        check_plan(plan)
        target = Path(os.path.realpath(path))  # a link to another disk stays a link
        with reported(path):
            sweep(target)
        if target.exists():
            if not overwrite:
                raise BabelScopeError(
                    f"{path} exists already", "add --resume to continue it or --overwrite to replace it"
                )
            _check_replaceable(target)
        manifest = Manifest(plan, prompts.name, prompts.source, texts, provenance)
        files: dict[str, bytes | memoryview] = {
            "items.h5": items_image(plan, prompts, texts=texts),
            "store.json": manifest.to_bytes(),
        }
        building = temporary_name(target)
        with reported(path, sum(map(len, files.values()))):
            try:
                build_folder(building / target.name, plan, files)
                _move_into_place(building / target.name, target, overwrite=overwrite)
            finally:
                discard(building, target)
        return cls(path, plan, provenance)

    @classmethod
    def join(
        cls, path: Path, plan: CapturePlan, prompts: PromptSet, provenance: Mapping[str, Any], *, texts: bool = True
    ) -> "StoreWriter":
        """Make an empty store for a plan, or continue one that another process made, perhaps this very moment.

        Raises
        ------
        BabelScopeError
            As `create` and `resume` do.
        """
        if not path.exists():
            try:
                return cls.create(path, plan, prompts, provenance, texts=texts)
            except BabelScopeError:
                if not is_store(path):  # the store of a faster process appears whole, or there is another problem
                    raise
        return cls.resume(path, plan, prompts, provenance)

    @classmethod
    def resume(
        cls,
        path: Path,
        plan: CapturePlan,
        prompts: PromptSet | None = None,
        provenance: Mapping[str, Any] = MappingProxyType({}),
    ) -> "StoreWriter":
        """Continue a store of the same plan. A damaged shard is moved to `quarantine/`, and is pending again.

        Parameters
        ----------
        prompts : PromptSet, optional
            Those of the plan: a missing `items.h5` is written again from them.
        provenance : mapping
            Of this run.

        Raises
        ------
        BabelScopeError
            If the store was captured under another plan, naming every field that differs; or if `items.h5` is
            damaged or missing, or a file cannot be read.
        """
        if path.is_file():
            raise BabelScopeError(f"{path} is a packed store, which nothing is added to", "unpack it and resume that")
        with reported(path):
            sweep(Path(os.path.realpath(path)))
        manifest = read_manifest(path)
        if manifest.unknown:
            raise BabelScopeError(
                f"{path} was captured under a plan with {', '.join(manifest.unknown)}, unknown to this version",
                "upgrade babelscope, or write to another store",
            )
        different = differences(manifest.plan.identity(), plan.identity())
        if different:
            raise BabelScopeError(
                f"{path} was captured under another plan: " + "; ".join(different),
                "repeat the first command exactly, or write to another store",
            )
        with reported(path):  # copies by way of git or an object store lack folders that were empty
            for folder in (path / "runs", *(path / "shards" / f"l-{g}" for g in plan.languages)):
                folder.mkdir(parents=True, exist_ok=True)
        for temporary in [*path.glob("shards/*/.*.tmp"), *path.glob("runs/.*.tmp"), *path.glob(".*.tmp")]:
            if not is_abandoned(temporary):
                continue
            if temporary.is_dir():  # of a killed `pack`
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)
        if prompts is not None and not (path / "items.h5").exists():
            publish(path / "items.h5", items_image(manifest.plan, prompts, texts=manifest.texts))
        read_prompts(path / "items.h5", manifest.plan)
        return cls(path, manifest.plan, provenance, quarantine_damaged(path, manifest.plan))

    def pending(self) -> list[tuple[str, int]]:
        """(language, block) pairs that are not committed yet, in row order."""
        done = committed(self.path, self.plan)
        return [block for block in self.plan.blocks if block not in done]

    def put(self, block: Block) -> None:
        """Commit a block: when this returns, it survives a power cut. One that is there already stays as it is.

        Raises
        ------
        BabelScopeError
            If the block is not what the plan asks for, or the disk is full; nothing of it is then written.
        """
        image = shard_image(self.plan, block, self._origin)
        path = shard_path(self.path, self.plan, block.language, block.index)
        with ThreadPoolExecutor(1) as beside:  # while the disk is waited for
            digest = beside.submit(lambda: hashlib.sha256(image).hexdigest())
            if publish(path, image):
                self._digests[path.relative_to(self.path).as_posix()] = digest.result()
        if block.law_errors:
            self._record(f"laws.{block.language}.{block.index}", {"law_errors": dict(block.law_errors)})

    def seal(self, progress: Progress = lambda *_: None) -> None:
        """Write `SHA256SUMS` if nothing is pending; shards that others wrote are read for it.

        Parameters
        ----------
        progress : callable
            As for `write_sums`.
        """
        if not self.pending():
            write_sums(self.path, self._digests, progress)

    @property
    def _origin(self) -> dict[str, str]:
        """What the bits of a shard may depend on beside the plan. No times, and nothing that differs run by run."""
        return {
            "device": str(self.provenance.get("device", "")),
            "versions": json.dumps(self.provenance.get("versions", {}), sort_keys=True),
        }

    def _record(self, event: str, what: Mapping[str, Any]) -> None:
        """One file per event: a run that was killed has no `stopped`."""
        record = {"event": event.split(".")[0], "time": datetime.now(UTC).isoformat(), **what}
        text = json.dumps(record, indent=1, ensure_ascii=False, default=str)
        publish(self.path / "runs" / f"{self._run}.{event}.json", text.encode("utf-8", "backslashreplace"))

    def __enter__(self) -> "StoreWriter":
        versions = {"python": platform.python_version(), "h5py": h5py.__version__, "numpy": np.__version__}
        about = {"host": HOST, "command": sys.argv, "versions": versions} | dict(self.provenance)
        self._record("started", about | {"pending": len(self.pending()), "quarantined": self.quarantined})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            why = "done" if error is None else f"{type(error).__name__}: {error}"
            self._record("stopped", {"why": why, "pending": len(self.pending())})
        except BabelScopeError:
            if error is None:  # the first error is the one to tell
                raise


def _check_replaceable(path: Path) -> None:
    if not path.is_dir() or (not is_store(path) and any(path.iterdir())):
        raise BabelScopeError(f"{path} exists and is no store, so it is not replaced", "name another path")
    files = (p.relative_to(path) for p in path.rglob("*") if not p.is_dir())
    foreign = sorted(str(p) for p in files if p.parts[0] not in PARTS or (p.suffix or p.name) not in SUFFIXES)
    if foreign:
        raise BabelScopeError(
            f"{path} holds {foreign[0]!r}, which is no part of a store, so it is not replaced",
            f"move {foreign[0]!r} away, or name another path",
        )


def build_folder(folder: Path, plan: CapturePlan, files: Mapping[str, bytes | memoryview]) -> None:
    """Make the folder of a store for a plan, without shards; `folder` must not exist."""
    folder.mkdir(parents=True)
    shards = [folder / "shards" / f"l-{language}" for language in plan.languages]
    for part in (folder / "shards", folder / "runs", *shards):
        part.mkdir()
    for name, data in files.items():
        publish(folder / name, data)
    for part in (*shards, folder / "shards", folder / "runs", folder):
        sync_folder(part)


def _move_into_place(new: Path, path: Path, *, overwrite: bool) -> None:
    # Asking the disk alone would replace a store that another process has made since `create` looked.
    if overwrite and path.exists():
        sync_folder(path.parent)  # the hidden folder is there for certain before the only copy moves into it
        os.rename(path, new.with_name(OLD))
    os.rename(new, path)  # fails where another process made a store meanwhile
    sync_folder(path.parent)
