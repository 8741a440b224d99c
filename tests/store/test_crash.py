"""Death of the writer at every step that changes the disk, and the resume after it."""

import os
import resource
import shutil
import signal
import time

import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.disk import HOST, is_abandoned, temporary_name
from babelscope.errors import BabelScopeError
from tests.store.stores import fill, make_block, make_plan, make_prompts, shards_of

# From Python 3.12 on, forking a process with threads warns; these children touch the disk and nothing else.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

STEPS = ("open", "write", "fsync", "link", "unlink", "mkdir", "rename")


def in_child(work):
    """Run `work` in a forked process; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying(step, half=False):
    """Replace the calls that change the disk, in this process, by ones that die at the `step`-th of them."""
    count = 0

    def deadly(name, real):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == step:
                if name == "write" and half:
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    for name in STEPS:
        setattr(os, name, deadly(name, getattr(os, name)))


@pytest.mark.parametrize("half", [False, True])
def test_a_writer_that_dies_at_any_step_is_resumed_to_the_same_bytes(tmp_path, half):
    prompts = make_prompts(3, ("en",))
    plan = make_plan(prompts, "bfloat16")
    whole = fill(tmp_path / "whole.acts", plan, prompts)
    want = shards_of(whole.path)
    path = tmp_path / "killed.acts"

    def work(step=0):
        if step:
            dying(step, half)
        with StoreWriter.resume(path, plan) if path.exists() else StoreWriter.create(path, plan, prompts, {}) as writer:
            for language, index in writer.pending():
                writer.put(make_block(plan, language, index))

    deaths = 0
    for step in range(1, 500):
        status = in_child(lambda step=step: work(step))
        assert status in (0, -signal.SIGKILL), step
        deaths += status != 0
        if path.exists():  # what is there is right, whatever is missing
            committed = shards_of(path)
            assert all(committed[name] == want[name] for name in committed), step
            assert ActivationStore.open(path).progress[0] == len(committed) - 1
        finished = status == 0
        work()
        assert shards_of(path) == want, step
        assert not list(path.rglob("*.tmp")), step
        for left in tmp_path.glob("*killed*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        for left in tmp_path.glob(".*killed*"):
            shutil.rmtree(left)
        if finished:
            break
    # Two files and four folders at creation, two records and two shards: far more steps than this must exist.
    assert deaths > 40


def test_only_temporary_files_that_nobody_writes_are_swept(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    path = fill(tmp_path / "s.acts", plan, prompts).path
    folder = path / "shards/l-en"
    dead = in_child(lambda: None) or 2**22 + 1  # beyond the largest process number of Linux
    names = {
        "mine": temporary_name(folder / "a.h5").name,
        "dead": f".a.h5.{HOST}.{dead}.0123abcd.tmp",
        "elsewhere": f".a.h5.{HOST}-other.{dead}.0123abcd.tmp",
        "elsewhere, old": f".b.h5.{HOST}-other.{dead}.0123abcd.tmp",
        "not ours": ".a.tmp",
    }
    for name in names.values():
        (folder / name).write_bytes(b"half")
    os.utime(folder / names["elsewhere, old"], (time.time() - 1e6,) * 2)
    StoreWriter.resume(path, plan)
    left = {p.name for p in folder.glob(".*")}
    assert left == {names["mine"], names["elsewhere"], names["not ours"]}
    assert not is_abandoned(folder / names["mine"])


def limited(size, work):
    """Whether `work`, in a child that can write no file above `size` bytes, gave the error of a full disk."""

    def bounded():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            work()
        except BabelScopeError as error:
            os._exit(7 if "no room" in error.problem and "--resume" in error.hint else 8)

    return in_child(bounded) == 7


@pytest.mark.parametrize("size", [1, 700, 4096])
def test_a_full_disk_while_a_store_is_made_leaves_nothing(tmp_path, size):
    prompts = make_prompts(40, ("en",))
    plan = make_plan(prompts)
    assert limited(size, lambda: StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_a_store_is_replaced_leaves_the_old_one(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    before = shards_of(fill(tmp_path / "s.acts", plan, prompts).path)
    assert limited(4096, lambda: StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}, overwrite=True))
    assert [p.name for p in tmp_path.iterdir()] == ["s.acts"]
    assert shards_of(tmp_path / "s.acts") == before


def test_a_full_disk_is_a_clean_error_and_the_store_is_completed_when_there_is_room(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    whole = shards_of(fill(tmp_path / "whole.acts", plan, prompts).path)
    path = tmp_path / "s.acts"
    writer = StoreWriter.create(path, plan, prompts, {})
    writer.put(make_block(plan, "en", 0))
    assert limited(4096, lambda: writer.put(make_block(plan, "en", 1)))
    assert not list(path.rglob("*.tmp"))
    assert ActivationStore.open(path).progress == (1, 6)
    with StoreWriter.resume(path, plan) as writer:
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index))
    assert shards_of(path) == whole
