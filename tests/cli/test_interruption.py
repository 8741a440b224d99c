"""Ctrl-C stops a capture between two blocks, and --resume ends it as if nothing had happened."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import babelscope as bs
from tests.cli import tiny
from tests.cli.conftest import Finished
from tests.forked import babelscope, forked

# One item a block: 72 blocks, so that the signal comes long before the end.
SLOW = (
    "--prompts", "knowledge", "--languages", "en,de,sw", "--limit", "24", "--site", "mlp.act", "--block-items", "1",
)  # fmt: skip


def shards_of(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*.h5"))}


def interrupted(store: Path, model: Path) -> Finished:
    with forked(babelscope, "capture", str(store), "--model", str(model), *SLOW, cwd=store.parent) as process:
        while not any(store.glob("shards/*/[!.]*.h5")):
            assert process.is_alive(), process.said
            time.sleep(0.005)
        process.interrupt(signal.SIGINT)
        process.join(300)
        return Finished(process.exitcode, "", process.said)


def test_an_interrupted_capture_is_resumed_to_the_same_shards(tiny_model: Path, tmp_path: Path) -> None:
    done = interrupted(tmp_path / "run.acts", tiny_model)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert "stopping after this block" in done.err
    assert "run the same command with --resume" in done.err
    finished, planned = bs.open(tmp_path / "run.acts").progress
    assert 0 < finished < planned
    early = shards_of(tmp_path / "run.acts")
    bs.capture(tmp_path / "run.acts", model=str(tiny_model), resume=True, **arguments())
    bs.capture(tmp_path / "whole.acts", model=str(tiny_model), **arguments())
    whole = shards_of(tmp_path / "whole.acts")
    assert len(whole) == planned + 1  # and items.h5
    assert shards_of(tmp_path / "run.acts") == whole
    assert early.items() <= whole.items()


def arguments() -> dict[str, object]:
    return {
        "prompts": ["knowledge"], "languages": ["en", "de", "sw"], "limit": 24, "sites": ["mlp.act"], "block_items": 1
    }  # fmt: skip


def test_an_unfinished_store_is_analyzed_with_a_warning(tiny_model: Path, tmp_path: Path) -> None:
    bs.capture(
        tmp_path / "run.acts", model=str(tiny_model), prompts="knowledge", languages=["en", "sw"], limit=8,
        sites=["resid.post"], block_items=2, self_test=False,
    )  # fmt: skip
    told: list[str] = []
    sorted((tmp_path / "run.acts" / "shards" / "l-sw").glob("*.h5"))[-1].unlink()
    analysis = bs.analyze(tmp_path / "run.acts", "cs", mode="corrected", note=told.append)
    assert told[0] == f"{tmp_path / 'run.acts'} is unfinished: 7 of 8 shards; only items found in every language count"
    assert "2 items left out" in told[1]
    assert set(analysis["cs"].table["n"]) == {6}


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    code = """
import os, signal, time
from babelscope.workflows.signals import stop_requested
with stop_requested() as stopped:
    assert not stopped()
    os.kill(os.getpid(), signal.SIGINT)
    assert stopped()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, cwd=tiny.ROOT)
    assert done.returncode == 130
    assert "stopped at once" in done.stderr
