"""A full disk: a clean error, nothing left behind, and the same command completes the store once there is room."""

import os
import random
import shutil
import subprocess

import pytest

from tests.crash.rig import Bench, files_of, temporary_files


def full(bench, code, told, old=None):
    """What is wrong with how a writer ended that found the disk full."""
    clean = code == 1 and "no room for" in told[-1] and "--resume" in told[-1]
    found = [] if clean else [f"exit {code}: {told[-1:]}"]
    found += [f"{path}: left over" for path in temporary_files(bench.folder)]
    return found + bench.problems(told, old)


def test_a_limit_on_the_size_of_files(bench, tries, tally):
    rng, found = random.Random(0), []
    largest = max(map(len, bench.whole.values()))
    for _ in range(tries(7, 40)):
        bench.clear()
        code, told = bench.write(limit=rng.randrange(largest))
        found.append(full(bench, code, told) + bench.problems_at_the_end(told))
    tally("full disk: limit on file size", len(found), found, bench.at_stake)


def test_a_full_disk_while_a_store_is_replaced_leaves_the_old_one(bench, old):
    bench.clear(old)
    code, told = bench.write(limit=4096)
    before = files_of(old / "run.acts")
    assert full(bench, code, told, before) == []
    assert files_of(bench.store) == before


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many KB in memory, or changes its size; unmounts it at the end."""
    if shutil.which("mount") is None:
        pytest.skip("no disk can be mounted here: there is no mount")
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(kilobytes, again=False):
        how = f"{'remount,' * again}size={kilobytes}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_small_disk(server, whole, small_disk, tries, tally):
    rng, found = random.Random(0), []
    bench = Bench(server, small_disk(1), files_of(whole))
    room = sum(map(len, bench.whole.values())) // 1024
    for _ in range(tries(4, 20)):
        bench.clear()
        small_disk(rng.randint(4, room), again=True)
        code, told = bench.write()
        problems = full(bench, code, told)
        small_disk(10 * room, again=True)
        found.append(problems + bench.problems_at_the_end(told))
    tally("full disk: small disk", len(found), found, bench.at_stake)
