"""Several processes fill one store: the same shards, byte for byte, as one process writes, whoever dies on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.workflows.parts import Part, is_silent, part_of
from tests.cli import tiny
from tests.cli.conftest import Finished
from tests.cli.test_errors import assert_one_problem
from tests.forked import babelscope, forked

Cli = Callable[..., Finished]

# Bits depend on the number of threads of a matrix product. OMP_NUM_THREADS is set for all tests (tests/conftest.py);
# whatever is started here inherits it.
MORE_BLOCKS = (
    "--prompts", "knowledge", "--languages", "en,de,sw", "--limit", "24", "--site", "mlp.act", "--block-items", "1",
)  # fmt: skip


def shards_of(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.h5"))}


def command(store: Path, model: Path, *more: object, options: tuple[str, ...] = tiny.ARGUMENTS) -> list[str]:
    return [str(tiny.ROOT / "cli.py"), "capture", str(store), "--model", str(model), *options, *map(str, more)]


@contextmanager
def started(arguments: list[str], *, launcher: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, *launcher, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def single(store: Path) -> dict[str, bytes]:
    """Shards that one process writes."""
    return shards_of(store)


def wait_for_shards(store: Path, at_work: Callable[[], bool], *, count: int = 3) -> None:
    while len(list(store.glob("shards/*/[!.]*.h5"))) < count:
        assert at_work()
        time.sleep(0.005)


# Starting Python and torch takes most of these tests, so only who is killed or competes is a process of its own.
def test_a_killed_part_is_resumed_and_the_others_need_not_know(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.acts"
    part = command(store, tiny_model, "--part", "2/2", options=MORE_BLOCKS)[1:]
    with forked(babelscope, *part, cwd=tmp_path) as process:
        wait_for_shards(store, process.is_alive)
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    early = shards_of(store)
    finished, planned = bs.open(store).progress
    assert 3 <= finished < 36  # and not its whole part
    assert planned == 72
    for part in ("1/2", "2/2"):
        done = cli(*command(store, tiny_model, "--part", part, "--resume", options=MORE_BLOCKS)[1:])
        assert done.code == 0, done.err
    assert done.out.strip().endswith("holds 72 of 72 shards")
    assert cli(*command(tmp_path / "whole.acts", tiny_model, options=MORE_BLOCKS)[1:]).code == 0
    whole = shards_of(tmp_path / "whole.acts")
    assert shards_of(store) == whole
    assert early.items() <= whole.items()


def test_a_killed_rank_ends_the_launch_and_one_process_may_finish_it(
    cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    store = tmp_path / "run.acts"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    with started(command(store, tiny_model, options=MORE_BLOCKS), launcher=launcher) as process:
        wait_for_shards(store, lambda: process.poll() is None)
        # The newest process that is at work in this store; its name stands in the record of its run.
        victim = int(sorted(store.glob("runs/*.started.json"))[-1].name.split(".")[0].rpartition("-")[2])
        os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        assert process.returncode != 0
    assert f"pid: {victim}" in err
    finished, _ = bs.open(store).progress
    assert 3 <= finished < 72
    done = cli(*command(store, tiny_model, "--resume", options=MORE_BLOCKS)[1:])
    assert done.code == 0, done.err
    assert "72 of 72 shards" in done.out


def test_a_part_that_comes_later_joins_the_store_of_the_first(
    cli: Cli, single: dict[str, bytes], tiny_model: Path
) -> None:
    for number, finished in ((2, 4), (1, 9), (1, 9)):  # in any order, and again
        done = cli(*command(Path("run.acts"), tiny_model, "--part", f"{number}/2")[1:])
        assert done.code == 0, done.err
        assert done.out == f"part {number}/2 done: run.acts holds {finished} of 9 shards\n"
    assert shards_of(Path("run.acts")).keys() == single.keys()


def test_a_part_does_not_join_the_store_of_another_plan(cli: Cli, tiny_model: Path) -> None:
    assert cli(*command(Path("run.acts"), tiny_model, "--part", "1/2")[1:]).code == 0
    done = cli(*command(Path("run.acts"), tiny_model, "--part", "2/2", "--site", "mlp.out")[1:])
    assert_one_problem(done, "another plan: sites", "repeat the first command")


@pytest.mark.parametrize(
    ("more", "problem", "hint"),
    [
        (["--part", "0/2"], "'0/2' is no part", "--part 1/8"),
        (["--part", "3/2"], "'3/2' is no part", "--part 1/8"),
        (["--part", "half"], "'half' is no part", "--part 1/8"),
        (["--part", "1/2", "--overwrite"], "part 1/2 cannot replace", "remove the store"),
    ],
)
def test_a_part_that_cannot_be_is_refused(cli: Cli, tiny_model: Path, more: list[str], problem: str, hint: str) -> None:
    assert_one_problem(cli(*command(Path("run.acts"), tiny_model, *more)[1:]), problem, hint)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_parts_are_disjoint_and_together_everything(count: int) -> None:
    blocks = [(language, i) for language in ("en", "sw") for i in range(5)]
    parts = [Part(number, count).of(blocks) for number in range(1, count + 1)]
    assert sorted(block for part in parts for block in part) == blocks
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_part_of_a_process_follows_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (part_of(None), is_silent()) == (Part(1, 1), False)
    assert part_of("3/8") == Part(3, 8)
    monkeypatch.setenv("RANK", "1")
    assert (part_of(None), is_silent()) == (Part(1, 1), False)  # RANK alone is somebody else's
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (part_of(None), is_silent()) == (Part(2, 4), True)
    with pytest.raises(BabelScopeError, match="RANK 1 of WORLD_SIZE 4"):
        part_of("3/8")


def scripts() -> list[str]:
    """The two scripts of the document, for the tiny model and with this checkout."""
    text = (tiny.ROOT / "docs" / "scale-out.md").read_text("utf-8")
    return re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)


@contextmanager
def as_documented(script: str, model: Path, folder: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A script as it stands, but for the names of the model and of the checkout, and for less to capture."""
    script = script.replace("PATH_OR_HUB_ID", str(model)).replace("--prompts kfrd-arithmetic", " ".join(tiny.ARGUMENTS))
    script = script.replace("cli.py", str(tiny.ROOT / "cli.py"))
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, started_as in (("python", ""), ("torchrun", "-m torch.distributed.run --standalone")):
        if not (programs / name).exists():  # another task may be running it: a file that is written is not executed
            (programs / name).write_text(f'#!/bin/bash\nexec {sys.executable} {started_as} "$@"\n')
            (programs / name).chmod(0o755)
    env = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **more}
    with subprocess.Popen(
        ["bash", "-euc", script], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_of_torchrun_write_the_shards_of_one(
    single: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    launch, _ = scripts()
    with as_documented(launch, tiny_model, tmp_path) as process:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    store = tmp_path / "run.acts"
    assert shards_of(store) == single
    lines = sorted(line for line in out.splitlines() if line.startswith("part "))
    assert [line.split(":")[0] for line in lines] == ["part 1/2 done", "part 2/2 done"]
    assert any(line.endswith("run.acts holds 9 of 9 shards") for line in lines)
    assert "5/5" in err  # the bar of the first process, and no other
    assert "4/4" not in err
    assert len(list(store.glob("runs/*.started.json"))) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["programs", "run.acts"]  # whichever came second left nothing


def test_the_tasks_of_an_array_that_start_at_once_fill_one_store(
    single: dict[str, bytes], tiny_model: Path, tmp_path: Path
) -> None:
    _, array = scripts()
    tasks = re.search(r"--array=1-(\d+)\n", array)
    assert tasks is not None
    share = f"--part $SLURM_ARRAY_TASK_ID/{tasks[1]}\n"
    assert share in array
    array = array.replace(share, "--part $SLURM_ARRAY_TASK_ID/2\n")  # as many as there are cores here
    said = []
    with ExitStack() as stack:
        processes = [
            stack.enter_context(as_documented(array, tiny_model, tmp_path, SLURM_ARRAY_TASK_ID=str(task)))
            for task in (1, 2)
        ]
        for process in processes:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            said.append(out)
    assert any(out.endswith("done: run.acts holds 9 of 9 shards\n") for out in said)
    assert shards_of(tmp_path / "run.acts") == single
    assert sorted(p.name for p in tmp_path.iterdir()) == ["programs", "run.acts"]
