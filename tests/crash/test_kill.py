"""Death of the writer: at random moments, at every call that changes the disk, and of the whole machine."""

import random
import shutil

import pytest

from tests.crash.power import Disk, File, read_calls
from tests.crash.rig import KILLED, files_of, temporary_files


@pytest.fixture(params=("create", "overwrite", "resume"))
def base(request, old, bench, tmp_path):
    """Name of what there is when the writer starts, a folder with it or None, bytes of a store to be overwritten."""
    if request.param == "create":
        return request.param, None, None
    if request.param == "overwrite":
        return request.param, old, files_of(old / "run.acts")
    bench.write(arm=(6, True))  # two files of the store, the record of the start, two shards, and half of a third
    assert [p.stat().st_size > 0 for p in temporary_files(bench.store)] == [True]
    return request.param, shutil.copytree(bench.folder, tmp_path / "base"), None


def deaths(bench, folder=None, old_files=None, **job):
    """What is wrong after a death at each call and in the middle of each write; one list for each."""
    found = []
    for half in (False, True):
        bench.clear(folder)
        code, told = bench.write(arm=(0, half), **job)
        assert code == 0, told
        for at in range(1, int(told[-1].split()[1]) + 1):
            bench.clear(folder)
            code, told = bench.write(arm=(at, half), **job)
            assert code == KILLED, told
            found.append(bench.problems(told, old_files) + bench.problems_at_the_end(told))
    return found


def power_cuts(bench, states, log, folder=None, old_files=None, **job):
    """What is wrong after power cuts at random moments; one list for each."""
    bench.clear(folder)
    code, told = bench.write(record=str(log), **job)
    assert code == 0, told
    calls, rng, found = read_calls(log), random.Random(0), []
    for _ in range(states):
        disk, told = replayed(calls[: rng.randint(1, len(calls))], bench.folder, folder)
        bench.clear()
        disk.cut(bench.folder, rng)
        found.append(bench.problems(told, old_files) + bench.problems_at_the_end(told))
    return found


def replayed(calls, root, folder):
    """The disk after some calls, and what had been told by then."""
    disk, told = Disk(root), []
    if folder:
        disk.load(folder)
    for op, *call in calls:
        if op == "mark":
            told.append(call[0])
        else:
            disk.do(op, *call)
    return disk, told


def test_killed_at_random_moments_and_resumed_again_and_again(disk_bench, tries, tally):
    rng, kills, goal, found, told = random.Random(0), 0, tries(100, 1000), [], []
    while kills < goal:
        code, more = disk_bench.write(signals=[(rng.uniform(0, 0.15), 9)])
        assert code in (0, KILLED), more
        kills += code == KILLED
        told += more
        found.append(disk_bench.problems(told))
        if code == 0 or kills == goal:
            found.append(disk_bench.problems_at_the_end(told))
            disk_bench.clear()
            told = []
    tally("kill -9 at random moments", kills, found, disk_bench.at_stake)


def test_killed_at_every_call_that_changes_the_disk(bench, base, tally):
    name, *there = base
    found = deaths(bench, *there)
    assert len(found) > 40
    tally(f"death at every call and in every write: {name}", len(found), found, bench.at_stake)


def test_power_loss(bench, base, tries, tally, tmp_path):
    name, *there = base
    states = tries(34, 334)
    tally(f"power loss: {name}", states, power_cuts(bench, states, tmp_path / "log", *there), bench.at_stake)


def test_power_loss_that_keeps_one_unsynced_name_alone(bench, base, tmp_path):
    _, folder, old_files = base
    bench.clear(folder)
    assert bench.write(record=str(tmp_path / "log"))[0] == 0
    calls, rng, states = read_calls(tmp_path / "log"), random.Random(0), 0
    for moment in range(1, len(calls) + 1):
        disk, told = replayed(calls[:moment], bench.folder, folder)
        for only in range(len(disk.waiting)):
            bench.clear()
            disk.cut(bench.folder, rng, only)
            assert bench.problems(told, old_files) == [], calls[moment - 1][:3]
            states += 1
    assert states > 50


def test_what_was_recorded_is_all_that_was_done(bench, base, tmp_path):
    _, folder, _ = base
    bench.clear(folder)
    bench.write(record=str(tmp_path / "log"))
    disk, _ = replayed(read_calls(tmp_path / "log"), bench.folder, folder)
    there = sorted(bench.folder.rglob("*"))
    assert there == sorted(names_below(disk.tree, bench.folder))
    assert all(disk.node(p).now() == p.read_bytes() for p in there if p.is_file())


def names_below(folder, path):
    for name, node in folder.now.items():
        yield path / name
        if not isinstance(node, File):
            yield from names_below(node, path / name)


@pytest.mark.parametrize("broken", ["no fsync", "no folder fsync"])
def test_a_writer_that_does_not_sync_is_caught(bench, broken, tries, tmp_path, caught):
    caught(f"{broken}, power loss", power_cuts(bench, tries(20, 120), tmp_path / "log", broken=broken))


def test_a_writer_without_temporary_names_is_caught(bench, caught):
    caught("no temporary name, death at every call", deaths(bench, broken="no temporary name"))
