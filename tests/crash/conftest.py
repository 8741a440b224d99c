"""The rig as fixtures, how often each test tries, and the table that `make torture` prints."""

import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from babelscope.activations_store import StoreWriter
from tests.crash import jobs
from tests.crash.rig import Bench, Server, files_of
from tests.store.stores import fill

TORTURE = bool(os.environ.get("BABELSCOPE_TORTURE"))


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """The C library's calls that change the disk, counted, recorded and cut short."""
    if platform.system() != "Linux" or shutil.which("gcc") is None:
        pytest.skip("the crash rig needs Linux and gcc")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    source = Path(__file__).with_name("shim.c")
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture(scope="session")
def server(shim):
    running = Server(preload=shim)
    yield running
    running.close()


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A store that was written undisturbed."""
    path = tmp_path_factory.mktemp("whole") / "run.acts"
    with StoreWriter.create(path, jobs.PLAN, jobs.PROMPTS, jobs.PROVENANCE) as writer:
        for language, index in writer.pending():
            writer.put(jobs.the_block(language, index))
    return path


@pytest.fixture
def bench(server, whole):
    """Where a store is written again and again: in memory where there is such a disk, as calls are what is tested."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="babelscope-crash-", dir=memory) as folder:
        yield Bench(server, Path(folder), files_of(whole))


@pytest.fixture
def disk_bench(server, whole, tmp_path):
    """The same on a real disk, where syncing takes its time."""
    return Bench(server, tmp_path, files_of(whole))


@pytest.fixture
def old(tmp_path_factory):
    """A folder with another finished store, to be overwritten."""
    folder = tmp_path_factory.mktemp("old")
    fill(folder / "run.acts", jobs.OLD_PLAN, jobs.OLD_PROMPTS)
    return folder


@pytest.fixture
def tries():
    """How often: `tries(in every commit, in make torture)`."""
    return lambda commit, torture: torture if TORTURE else commit


@pytest.fixture
def tally(record_property):
    """`tally(test, trials, found)`: a line of the table; fails if any of the lists in `found` has a problem."""
    begun = time.monotonic()

    def note(test, trials, found, at_stake=0):
        problems = [problem for trial in found for problem in trial]
        bound = f"{100 * (1 - 0.05 ** (1 / trials)):.2f} %" if not problems else ""
        row = (test, f"{trials:,}", f"{at_stake:,}" if at_stake else "", str(len(problems)), bound)
        record_property("tally", (*row, f"{time.monotonic() - begun:.0f}"))
        assert not problems, problems[:9]

    return note


@pytest.fixture
def caught(record_property):
    """`caught(test, found)`: the same for a writer that is broken on purpose; fails if `found` holds no problem."""
    begun = time.monotonic()

    def note(test, found):
        n = sum(map(bool, found))
        row = (f"broken: {test}", f"{len(found):,}", "", f"caught in {n:,}", "")
        record_property("tally", (*row, f"{time.monotonic() - begun:.0f}"))
        assert n > len(found) / 10

    return note


def pytest_terminal_summary(terminalreporter):
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    rows = [value for report in reports for name, value in report.user_properties if name == "tally"]
    if TORTURE and rows:
        terminalreporter.section("what was thrown at the store")
        head = ("test", "trials", "committed shards at stake", "problems", "95 % bound per trial", "s")
        for row in (head, ["---"] * len(head), *sorted(rows)):
            terminalreporter.write_line(f"| {' | '.join(row)} |")
