"""Writing a store: created whole, filled shard by shard, resumed by asking which names exist."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from babelscope.activations_store.disk import hdf5_image, publish, sync_folder
from babelscope.activations_store.shard import SCHEMA, opened, shard_image, shard_path
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, CapturePlan, PromptSet

LANGUAGE = re.compile(r"[a-z]{2,8}([-_][A-Za-z0-9]{1,8})*\Z")


class StoreWriter:
    """Fills a store. A shard whose name exists is committed; anything else is not there.

    Use `create` or `resume`, then `put` every block of `pending`, inside a `with`.
    """

    def __init__(self, path: Path, plan: CapturePlan) -> None:
        self.path = path
        self.plan = plan
        self._started = datetime.now(UTC)

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
            If `path` exists and may not be replaced, or a language code is not one.
        """
        for language in plan.languages:
            if not LANGUAGE.match(language):
                raise BabelScopeError(f"{language!r} is no language code", "use codes such as en, zh or pt-BR")
        if path.exists() and not overwrite:
            raise BabelScopeError(f"{path} exists already", "add --resume to continue it or --overwrite to replace it")
        if path.exists() and not (path / "store.json").is_file() and (not path.is_dir() or any(path.iterdir())):
            raise BabelScopeError(f"{path} exists and is no store, so it is not replaced", "name another path")
        building = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            _build(building, plan, prompts, provenance, texts=texts)
            _replace(building, path)
        finally:
            if building.exists():
                shutil.rmtree(building)
        sync_folder(path.absolute().parent)
        return cls(path, plan)

    @classmethod
    def resume(cls, path: Path, plan: CapturePlan) -> "StoreWriter":
        """Continue a store of the same plan.

        Raises
        ------
        BabelScopeError
            If the store was captured under another plan, naming every field that differs.
        """
        have = read_manifest(path)["plan"]
        differences = _differences(CapturePlan.from_json(have).identity(), plan.identity())
        if differences:
            raise BabelScopeError(
                f"{path} was captured under another plan: " + "; ".join(differences),
                "repeat the first command exactly, or write to another store",
            )
        for stale in path.glob("shards/*/.*.tmp"):
            stale.unlink(missing_ok=True)
        writer = cls(path, plan)
        for language, block in writer._committed():
            with opened(shard_path(path, plan, language, block), plan):
                pass
        return writer

    def pending(self) -> list[tuple[str, int]]:
        """(language, block) pairs that are not committed yet, in row order."""
        done = self._committed()
        return [(g, b) for g in self.plan.languages for b in range(self.plan.n_blocks) if (g, b) not in done]

    def put(self, block: Block) -> None:
        """Commit a block: when this returns, it survives a power cut."""
        path = shard_path(self.path, self.plan, block.language, block.index)
        publish(path, shard_image(self.plan, block))

    def _committed(self) -> set[tuple[str, int]]:
        names = {g: set(os.listdir(self.path / "shards" / f"l-{g}")) for g in self.plan.languages}
        return {
            (g, b)
            for g in self.plan.languages
            for b in range(self.plan.n_blocks)
            if shard_path(self.path, self.plan, g, b).name in names[g]
        }

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        stamp = self._started.strftime("%Y%m%dT%H%M%S%f")
        record = {
            "started": self._started.isoformat(),
            "stopped": datetime.now(UTC).isoformat(),
            "host": platform.node(),
            "why": "done" if error is None else f"{type(error).__name__}: {error}",
            "pending": len(self.pending()),
        }
        name = f"{stamp}-{platform.node()}-{os.getpid()}.json"
        try:
            publish(self.path / "runs" / name, json.dumps(record, indent=1).encode())
        except BabelScopeError:
            if error is None:
                raise


def read_manifest(path: Path) -> dict[str, Any]:
    """`store.json` of a store, checked against its own hash and against the schema we read.

    Raises
    ------
    BabelScopeError
        If `path` holds no store, one of a newer schema, or one whose identity was edited.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / "store.json").read_text("utf-8"))
        name, _, number = manifest["schema"].partition("/")
        plan = CapturePlan.from_json(manifest["plan"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BabelScopeError):
        raise BabelScopeError(f"{path} is no BabelScope store", "capture one: cli.py capture run.acts ...") from None
    if name != "babelscope" or int(number.split(".")[0]) > int(SCHEMA.partition("/")[2].split(".")[0]):
        raise BabelScopeError(f"{path} has schema {manifest['schema']}, this version reads {SCHEMA}", "upgrade babelscope")
    if plan.fingerprint != manifest["plan_sha256"]:
        raise BabelScopeError(f"{path}/store.json does not match its own hash: it was edited", "restore it or capture again")
    return manifest


def _build(
    folder: Path, plan: CapturePlan, prompts: PromptSet, provenance: Mapping[str, Any], *, texts: bool
) -> None:
    (folder / "shards").mkdir(parents=True)
    (folder / "runs").mkdir()
    for language in plan.languages:
        (folder / "shards" / f"l-{language}").mkdir()
    publish(folder / "items.h5", _items_image(prompts, texts=texts))
    manifest = {
        "schema": SCHEMA, "plan_sha256": plan.fingerprint, "plan": plan.to_json(), "prompts": prompts.name,
        "texts": texts, "provenance": dict(provenance),
    }  # fmt: skip
    text = json.dumps(manifest, indent=1, ensure_ascii=False, default=str)
    publish(folder / "store.json", text.encode())
    for part in (folder / "shards", folder / "runs", folder):
        sync_folder(part)


def _items_image(prompts: PromptSet, *, texts: bool) -> memoryview:
    """Prompt records as JSON lines, one dataset per language, in row order."""

    def build(file: h5py.File) -> None:
        for language in prompts.languages:
            group = file.create_group(f"l-{language}")
            records, hashes = [], []
            for prompt in prompts.of(language):
                record = prompt.to_json()
                if not texts:
                    record |= {"text": "", "options": (), "answer": ""}
                records.append(json.dumps(record, ensure_ascii=False))
                hashes.append(hashlib.sha256(prompt.text.encode()).hexdigest().encode())
            group.create_dataset("record", data=records, dtype=h5py.string_dtype())
            group.create_dataset("text_sha256", data=np.array(hashes, dtype="S64"))

    return hdf5_image(build)


def _replace(new: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        os.rename(path, old)
    os.rename(new, path)
    if old.exists():
        shutil.rmtree(old)


def _differences(have: Any, want: Any, name: str = "") -> list[str]:
    if isinstance(have, dict) and isinstance(want, dict):
        keys = sorted(have.keys() | want.keys())
        return [d for k in keys for d in _differences(have.get(k), want.get(k), f"{name}.{k}".lstrip("."))]
    return [] if have == want else [f"{name}: store has {have!r:.80}, this run has {want!r:.80}"]
