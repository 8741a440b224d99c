"""Starts processes that write a store, kills them, and judges what they leave."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

from babelscope.activations_store.disk import OLD
from babelscope.activations_store.shard import shard_path
from tests.crash import jobs

ROOT = Path(__file__).parents[2]
KILLED = -9


class Server:
    """Runs one job at a time in a process forked from a warm one; `start` and `finish`, or both at once by `run`."""

    def __init__(self, *imports, preload=None):
        environment = dict(os.environ, PYTHONPATH=str(ROOT), **({"LD_PRELOAD": str(preload)} if preload else {}))
        command = [sys.executable, "-W", "ignore", "-m", "tests.crash.server", *imports]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )

    def start(self, do, **job):
        self._process.stdin.write(json.dumps({"do": do, **job}, default=str) + "\n")
        self._process.stdin.flush()

    def finished(self):
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def finish(self):
        """Exit code (negative for a signal) and lines told."""
        self.answer = json.loads(self._process.stdout.readline())
        return self.answer["code"], self.answer["told"]

    def run(self, do, **job):
        self.start(do, **job)
        return self.finish()

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)


class Bench:
    """An empty folder in which `store` is written, the bytes it must get, and how many shards were at stake."""

    def __init__(self, server, folder, whole):
        self.server, self.folder, self.whole = server, folder, whole
        self.store = folder / "run.acts"
        self.at_stake = 0

    def clear(self, base=None):
        """Begin anew, with a copy of another folder if wanted."""
        for entry in self.folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if base:
            shutil.copytree(base, self.folder, dirs_exist_ok=True)

    def write(self, **job):
        return self.server.run("write", store=self.store, **job)

    def problems(self, told, old=None):
        """What is wrong with a store whose writer has died after it told so; `old` is what it was to overwrite."""
        self.at_stake += sum(line.startswith("shard") for line in told)
        return self._compared(told, old)

    def _compared(self, told, old=None):
        claims = [line.split() for line in told if line.startswith(("store", "shard"))]
        files = files_of(self.store)
        if not claims and old is not None and (files == old or old in hidden(self.folder)):
            return []
        found = [f"{name}: wrong bytes" for name, data in files.items() if self.whole.get(name) != data]
        if claims and "store.json" not in files:
            found.append("the store is lost")
        names = (str(shard_path(Path(), jobs.PLAN, g, int(b))) for _, g, b in filter(lambda c: c[1:], claims))
        found += [f"{name}: committed and lost" for name in names if name not in files]
        if old is not None and "store.json" not in files:
            found.append("the old store is lost before there is a new one")
        return found + unreadable_records(self.store)

    def problems_at_the_end(self, told=()):
        """Continue to the end with the honest writer, and compare with an undisturbed store."""
        code, more = self.write()
        found = [] if code == 0 else [f"not resumed: exit {code}, {more[-1:]}"]
        found += self._compared([*told, *more])
        if code == 0:
            found += [f"{name}: missing at the end" for name in self.whole.keys() - files_of(self.store).keys()]
            found += [f"{path}: left over" for path in temporary_files(self.folder)]
        return found


def files_of(store):
    """Relative name -> bytes of all that is committed, but for the records of runs, which tell times."""
    found = {str(p.relative_to(store)): p for p in sorted(store.rglob("*")) if p.suffix != ".tmp" and p.is_file()}
    return {name: p.read_bytes() for name, p in found.items() if not name.startswith("runs/")}


def hidden(folder):
    """What writers were about to overwrite and have moved aside."""
    return [files_of(p / OLD) for p in folder.glob(".*.tmp")]


def temporary_files(folder):
    return [p for p in folder.rglob("*") if p.suffix == ".tmp"]


def unreadable_records(store):
    found = []
    for path in store.glob("runs/[!.]*"):
        with contextlib.suppress(ValueError):
            json.loads(path.read_text())
            continue
        found.append(f"{path.name}: half a record")
    return found
