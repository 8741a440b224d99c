"""Whether a store is what it was when it was written: every finding, file by file."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py

from babelscope.activations_store.checks import items_problems, shard_problems
from babelscope.activations_store.hdf5 import opened
from babelscope.activations_store.items import prompts_in
from babelscope.activations_store.manifest import Manifest, read_manifest
from babelscope.activations_store.packed_checks import packed_problems
from babelscope.activations_store.shard import committed, group_name, shard_path
from babelscope.activations_store.sums import NAME, Progress, covered, file_digest, read_sums
from babelscope.errors import BabelScopeError, printable
from babelscope.schema import CapturePlan, PromptSet


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    file : str
        Relative to the store.
    problem : str
    damaged : bool
        Whether the file itself is at fault, so that nothing is lost when it is captured again.
    """

    file: str
    problem: str
    damaged: bool = False

    def __str__(self) -> str:
        # One line, whatever somebody called a file.
        return printable(f"{self.file}: {self.problem}").replace("\n", "\\n")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in the `number`-th of `total` files, and the extents of one row by group, in a shard."""

    number: int
    total: int
    file: str
    findings: tuple[Finding, ...]
    units: dict[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verification:
    """What `verify` found; true where nothing is wrong.

    Parameters
    ----------
    store : str
    full : bool
        Whether every byte was read.
    files : int
        How many files were looked at.
    findings : tuple of Finding
    """

    store: str
    full: bool
    files: int
    findings: tuple[Finding, ...]

    def __bool__(self) -> bool:
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    def __str__(self) -> str:
        how = "every byte" if self.full else "names, sizes and shapes; --full reads every byte"
        found = f"{len(self.findings)} findings" if self.findings else "no finding"
        lines = [str(finding) for finding in self.findings]
        return "\n".join([*lines, f"{self.store}: {self.files} files, {found} ({how})"])


def verify(path: Path, *, full: bool = False, progress: Progress = lambda *_: None) -> Verification:
    """Check a store.

    Parameters
    ----------
    full : bool
        Read every byte: each sha256, `absmax` and `nonfinite` recomputed, and `SHA256SUMS` where there is one. Else
        identity, names, sizes, shapes and types, and what the guard refuses.
    progress : callable
        Called before each file.

    Raises
    ------
    BabelScopeError
        If there is no store at `path`.
    """
    return collected(path, examine(path, full=full, progress=progress), full=full)


def collected(path: Path, checked: Iterable[Checked], *, full: bool) -> Verification:
    """Findings of all files, and of how they fit together."""
    every = list(checked)
    findings = [finding for one in every for finding in one.findings]
    shapes = {
        name: Counter(one.units[name] for one in every if name in one.units) for one in every for name in one.units
    }
    for one in every:
        for name, unit in one.units.items():
            (usual, _), *others = shapes[name].most_common()
            if others and unit != usual:
                findings.append(Finding(one.file, f"rows of {name} have shape {unit}, in most shards {usual}"))
    return Verification(str(path), full, len(every), tuple(findings))


def examine(
    path: Path, *, full: bool = False, start: int = 0, progress: Progress = lambda *_: None
) -> Iterator[Checked]:
    """Check a store file by file, in an order that depends on its names alone, from the `start`-th file on.

    Raises
    ------
    BabelScopeError
        If there is no store at `path`.
    """
    try:
        manifest = read_manifest(path)
    except BabelScopeError as error:
        if not (path / "store.json").exists():
            raise
        yield Checked(0, 1, "store.json", (Finding("store.json", error.problem),))
        return
    sums, _ = read_sums(path) if full and path.is_dir() else ({}, [])
    shards = _shards(path, manifest.plan)
    names = ["store.json", "items.h5", *shards, *_others(path, shards), NAME]
    if path.is_file():
        path, names = path.parent, [path.name]
    for number, name in enumerate(names):
        if number < start:
            continue
        progress(number, len(names), name)
        units: dict[str, tuple[int, ...]] = {}
        try:
            if name in shards:
                found, units = _shard_findings(path, manifest.plan, name, *shards[name], full=full)
            else:
                found = list(_file_findings(path, manifest, name, full=full))
        except MemoryError:
            found = [Finding(name, "cannot be read in the memory that there is")]
        if name in sums and (path / name).is_file() and not found and file_digest(path / name) != sums[name]:
            found.append(Finding(name, f"differs from {NAME}, though its own checksums hold"))
        yield Checked(number, len(names), name, tuple(found), units)


def _shards(path: Path, plan: CapturePlan) -> dict[str, tuple[str, int]]:
    there = committed(path, plan)
    return {shard_path(path, plan, *b).relative_to(path).as_posix(): b for b in plan.blocks if b in there}


def _others(path: Path, shards: Iterable[str]) -> list[str]:
    """Further files of a store, whether or not they belong there. Hidden ones are unfinished, or not ours."""
    found = [*path.glob("shards/**/*"), *path.glob("runs/*.json"), path / "packed.h5"]
    names = {p.relative_to(path).as_posix() for p in found if not p.is_dir() and p.exists() and p.name[0] != "."}
    return sorted(names - set(shards))


def _shard_findings(
    path: Path, plan: CapturePlan, name: str, language: str, block: int, *, full: bool
) -> tuple[list[Finding], dict[str, tuple[int, ...]]]:
    reason = _unreadable(path / name)
    if reason:
        return [Finding(name, reason)], {}
    try:
        with opened(path / name, plan, language, block) as file:
            problems = list(shard_problems(file, plan, block, full=full))
            return [Finding(name, problem, damaged=True) for problem in problems], {} if problems else _units(
                file, plan
            )
    except BabelScopeError as error:
        return [_finding(path, name, error)], {}


def _units(file: h5py.Group, plan: CapturePlan) -> dict[str, tuple[int, ...]]:
    names = [group_name(site, position) for site in plan.site_layers() for position in plan.positions]
    return {name: file[name]["value"].shape[2:] for name in names}


def _file_findings(path: Path, manifest: Manifest, name: str, *, full: bool) -> Iterator[Finding]:
    file = path / name
    if name == NAME:
        yield from _sums_findings(path, full=full)
        return
    reason = None if name == "items.h5" and not file.exists() else _unreadable(file)
    if reason:
        yield Finding(name, reason)
    elif name.startswith("shards/"):
        yield Finding(name, "is no shard of this plan")
    elif name.endswith(".json"):
        if full and not _is_json(file):
            yield Finding(name, "is not JSON")
    else:  # items.h5, or a packed file of any name
        try:
            with opened(file, manifest.plan) as held:
                check = items_problems if name == "items.h5" else packed_problems
                problems = list(check(held, manifest.plan, full=full))
                if full and not problems:
                    problems = _prompt_problems(held if name == "items.h5" else held["items"], manifest)
            yield from (Finding(name, problem, damaged=True) for problem in problems)
        except BabelScopeError as error:
            yield _finding(path, name, error)


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True


def _prompt_problems(group: h5py.Group, manifest: Manifest) -> list[str]:
    prompts = prompts_in(group)
    if manifest.texts and PromptSet("", prompts).digest() != manifest.plan.prompts_sha256:
        return ["its prompts are not those of the plan"]
    return []


def _sums_findings(path: Path, *, full: bool) -> Iterator[Finding]:
    if not full:
        return
    sums, unread = read_sums(path)
    yield from (Finding(NAME, f"cannot be understood: {line[:80]!r}; remove it") for line in unread)
    yield from (Finding(NAME, f"names {name}, which is missing") for name in sorted(set(sums) - set(covered(path))))


def _unreadable(file: Path) -> str | None:
    """Why a file cannot be opened for a reason that says nothing about its content."""
    try:
        if not file.is_file():
            return "is no regular file"
        with file.open("rb"):
            return None
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _finding(path: Path, name: str, error: BabelScopeError) -> Finding:
    return Finding(name, error.problem.removeprefix(f"{path / name}: "), damaged=(path / name).exists())
