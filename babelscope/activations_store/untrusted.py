"""Verifying a store in a process of its own, which a fault in the HDF5 library may kill.

No guard can look at a file without HDF5 parsing some of it, and that parser has had holes. The child has little
memory and little time, opens nothing for writing, and says one JSON object per line: which file it begins, and what it
found. When it dies, the file it had begun is a finding, and the next child goes on behind it.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from babelscope.activations_store.sums import Progress
from babelscope.activations_store.verification import Checked, Finding, Verification, collected, examine
from babelscope.errors import BabelScopeError

MEMORY_BYTES = 4 << 30
# The slowest part of a full verification runs at some 300 MB/s; a hostile file may take a hundred times its share.
CPU_S, CPU_S_PER_BYTE = 60, 100 / 300e6


def verify_apart(path: Path, *, full: bool = False, progress: Progress = lambda *_: None) -> Verification:
    """`verify` in limited child processes, one more for each file that kills one.

    Raises
    ------
    BabelScopeError
        If there is no store at `path`.
    """
    return collected(path, _examined(path, full=full, progress=progress), full=full)


def _examined(path: Path, *, full: bool, progress: Progress) -> Iterator[Checked]:
    begun, total = -1, 0
    while True:
        start, name = begun + 1, ""
        child = _child(path, start, full=full)
        assert child.stdout is not None
        with child, child.stdout as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break  # its death came in the middle of a word
                record = json.loads(line)
                if "error" in record:
                    raise BabelScopeError(*record["error"])
                if "begin" in record:
                    begun, total, name = record["begin"]
                    progress(begun, total, name)
                else:
                    findings = tuple(Finding(**one) for one in record["findings"])
                    units = {group: tuple(unit) for group, unit in record["units"].items()}
                    yield Checked(record["number"], record["total"], record["file"], findings, units)
        if child.returncode == 0:
            return
        why = f"reading it {_ended(child.returncode)}"
        yield Checked(max(begun, 0), total, name, (Finding(name or "store.json", why),))
        if not name or begun + 1 >= total:
            return


def _child(path: Path, start: int, *, full: bool) -> "subprocess.Popen[str]":
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    # -P: a module that lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", __name__, path, start, int(full), int(CPU_S + size * CPU_S_PER_BYTE)]
    paths = os.pathsep.join(p for p in (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": paths, "HDF5_PLUGIN_PRELOAD": "::", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _ended(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "took more processor time than any file of a store needs"
    if code < 0:
        return f"crashed the HDF5 library ({signal.Signals(-code).name})"
    return f"ended the process (exit code {code})"


def _say(**record: object) -> None:
    print(json.dumps(record), flush=True)


def _main(path: str, start: str, full: str, cpu_s: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s) + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        for one in examine(
            Path(path), full=full == "1", start=int(start), progress=lambda n, total, name: _say(begin=(n, total, name))
        ):
            _say(**asdict(one))
    except BabelScopeError as error:
        _say(error=(error.problem, error.hint))


if __name__ == "__main__":
    _main(*sys.argv[1:])
