"""The verbs `verify` and `repair`: whether a store is what was written, and moving aside what is not."""

from dataclasses import dataclass
from pathlib import Path

from babelscope.activations_store import verification
from babelscope.activations_store.quarantine import damaged_files, quarantine
from babelscope.activations_store.sums import write_sums
from babelscope.activations_store.untrusted import verify_apart
from babelscope.activations_store.verification import Finding, Verification
from babelscope.workflows.signals import Progress


def verify(
    store: str | Path, *, full: bool = False, untrusted: bool = False, progress: Progress | None = None
) -> Verification:
    """Check every file of a store.

    A full verification that finds nothing adds to `SHA256SUMS` the files that it lacks, unless `untrusted`.

    Parameters
    ----------
    full : bool
        Read every byte: each sha256, `absmax` and `nonfinite` recomputed, prompts against the plan, and `SHA256SUMS`
        where there is one. Else identity, names, sizes, shapes, types, and what is refused in foreign files.
    untrusted : bool
        In a process of its own with little memory and time, which a fault in HDF5 may kill; nothing is written.
    progress : callable, optional
        Called with (files done, files in all, what).

    Returns
    -------
    Verification
        True where nothing is wrong; `findings` has everything that is.

    Raises
    ------
    BabelScopeError
        If there is no store.
    """
    path = Path(store).expanduser()
    check = verify_apart if untrusted else verification.verify
    found = check(path, full=full, progress=_reporting(progress))
    if found and full and not untrusted and path.is_dir():
        write_sums(path)
    return found


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` moved, or would move.

    Parameters
    ----------
    store : str
    moved : mapping
        File -> where it is now; "" in a dry run.
    left : tuple of Finding
        What moving a file does not mend.
    """

    store: str
    moved: dict[str, str]
    left: tuple[Finding, ...]

    def __str__(self) -> str:
        lines = [f"{name} -> {place or 'quarantine'}" for name, place in self.moved.items()]
        lines += [f"left as it is: {finding}" for finding in self.left]
        done = "to move" if "" in self.moved.values() else "moved"
        return "\n".join([*lines, f"{self.store}: {len(self.moved)} damaged files {done}"])


def repair(store: str | Path, *, dry_run: bool = False, progress: Progress | None = None) -> Repair:
    """Move damaged shards, and a damaged `items.h5`, to `quarantine/`, so that `capture --resume` writes them again.

    Every byte is verified first, in a process of its own. Only a file that does not match its own checksums or its own
    name is moved, beside a note that says why; nothing is deleted or changed.

    Raises
    ------
    BabelScopeError
        If there is no store, or it cannot be written.
    """
    path = Path(store).expanduser()
    seen = {p.relative_to(path).as_posix(): p.stat() for p in path.rglob("*.h5") if p.is_file()}
    found = verify_apart(path, full=True, progress=_reporting(progress))
    damaged = {name: reasons for name, reasons in damaged_files(found.findings).items() if name in seen}
    moved = dict.fromkeys(damaged, "")
    if not dry_run:
        places = {name: quarantine(path, name, reasons, seen[name]) for name, reasons in damaged.items()}
        moved = {name: place.relative_to(path).as_posix() for name, place in places.items() if place}
    return Repair(str(path), moved, tuple(finding for finding in found.findings if finding.file not in damaged))


def _reporting(progress: Progress | None) -> Progress:
    def report(done: int, total: int, file: str) -> None:
        if progress:
            progress(done, total, f"verify {file.rpartition('/')[2]}")

    return report
