"""Repair, in the only safe sense: a damaged file is moved aside, so that the capture computes it again."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from babelscope.activations_store.disk import HOST, publish, reported, sync_folder
from babelscope.activations_store.sums import NAME, write_sums
from babelscope.activations_store.verification import Finding

FOLDER = "quarantine"


def damaged_files(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Shards, and `items.h5`, that are themselves at fault, with the reasons."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        if finding.damaged and (finding.file.startswith("shards/") or finding.file == "items.h5"):
            found.setdefault(finding.file, []).append(finding.problem)
    return found


def quarantine(store: Path, name: str, reasons: Sequence[str], seen: os.stat_result) -> Path | None:
    """Move a file of a store to `quarantine/`, beside a note that says why; nothing is deleted.

    Parameters
    ----------
    seen : os.stat_result
        Of the file that the reasons are about.

    Returns
    -------
    Path or None
        Where it is now; None if a process beside this one was faster, and the name is free or another file's.

    Raises
    ------
    BabelScopeError
        If the folder cannot be written; the file is then where it was.
    """
    now, file, folder = datetime.now(UTC), store / name, store / FOLDER
    flat = Path(name.removeprefix("shards/").replace("/", "-"))
    target = folder / f"{flat.stem}.{now:%Y%m%dT%H%M%S%f}-{HOST}-{os.getpid()}{flat.suffix}"
    with reported(target):
        folder.mkdir(exist_ok=True)
        sync_folder(store)
    note = {"file": name, "time": now.isoformat(), "reasons": list(reasons)}
    beside = target.with_suffix(".json")
    publish(beside, json.dumps(note, indent=1, ensure_ascii=False).encode("utf-8", "replace"))
    with reported(target):
        try:
            moves = _is_same_file(seen, file.stat())
            if moves:
                os.rename(file, target)
        except FileNotFoundError:
            moves = False
        if not moves:
            beside.unlink()
            return None
        sync_folder(folder)
        sync_folder(file.parent)
    if (store / NAME).exists():
        write_sums(store)
    return target


def _is_same_file(a: os.stat_result, b: os.stat_result) -> bool:
    # A new file may be given the inode number of one that was removed, but not its time of change.
    return os.path.samestat(a, b) and a.st_ctime_ns == b.st_ctime_ns
