"""Outputs appear whole or not at all."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from babelscope.activations_store.disk import HOST
from babelscope.errors import BabelScopeError
from babelscope.workflows import check_output, new_folder

PARTS = ("tables", "report.html")


def test_a_folder_appears_when_the_work_is_done(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", overwrite=False, parts=PARTS) as building:
        (building / "report.html").write_text("new")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "report.html").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    # As readable as any folder that this user makes, though it was built in a private one.
    (tmp_path / "plain").mkdir()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out", "plain")]
    assert modes[0] == modes[1]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out" / "tables").mkdir(parents=True)
    (tmp_path / "out" / "report.html").write_text("old")

    def fail() -> None:
        with new_folder(tmp_path / "out", overwrite=True, parts=PARTS) as building:
            (building / "report.html").write_text("new")
            assert (tmp_path / "out" / "report.html").read_text() == "old"
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert (tmp_path / "out" / "report.html").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_the_old_folder_goes_when_the_new_one_stands(tmp_path: Path) -> None:
    (tmp_path / "out" / "tables").mkdir(parents=True)
    with new_folder(tmp_path / "out", overwrite=True, parts=PARTS) as building:
        (building / "report.html").write_text("new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.html"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "real")
    with new_folder(tmp_path / "out", overwrite=True, parts=PARTS) as building:
        (building / "report.html").write_text("new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "real" / "report.html").read_text() == "new"


def test_what_is_not_ours_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(BabelScopeError, match=r"thesis\.tex"):
        check_output(tmp_path / "out", overwrite=True, parts=PARTS)
    with pytest.raises(BabelScopeError, match="is a folder"):
        check_output(tmp_path / "out", overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BabelScopeError, match="is a file"):
        check_output(tmp_path / "file", overwrite=True, parts=PARTS)
    check_output(tmp_path / "file", overwrite=True)


def test_a_dangling_link_is_something_that_exists(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(BabelScopeError, match="exists already"):
        check_output(tmp_path / "out", overwrite=False)


@contextmanager
def writing(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to write the folder `out` and will not come to an end."""
    code = f"""
import time
from pathlib import Path
from babelscope.workflows import new_folder
with new_folder(Path({str(out)!r}), overwrite=True, parts={PARTS!r}) as building:
    (building / "report.html").write_text("half")
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        try:
            while not list(out.parent.glob(f".*.{process.pid}.*/*/report.html")):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                time.sleep(0.01)
            yield process
        finally:
            process.kill()


def test_a_terminated_process_leaves_nothing(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=50)
    assert process.returncode == 128 + signal.SIGTERM
    assert err.strip() == "babelscope: terminated; nothing half-written is kept"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_output(tmp_path: Path) -> None:
    with writing(tmp_path / "out") as alive:
        with writing(tmp_path / "[out]") as process:
            process.kill()
            process.wait(timeout=50)
        with writing(tmp_path / "[out]") as process:
            process.kill()
            process.wait(timeout=50)
        assert len(list(tmp_path.glob(".*"))) == 2  # of the one that lives, and of the newest that was killed
        with new_folder(tmp_path / "[out]", overwrite=False, parts=PARTS):
            pass
        with new_folder(tmp_path / "out", overwrite=False, parts=PARTS):
            pass
        assert {p.name.split(".")[1] for p in tmp_path.glob(".*")} == {"out"}
        assert alive.poll() is None
    assert sorted(p.name for p in tmp_path.glob("*") if p.name[0] != ".") == ["[out]", "out"]


def test_an_output_that_was_being_replaced_when_its_process_was_killed_comes_back(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    left = tmp_path / f".out.{HOST}.{dead.pid}.0123abcd.tmp"
    (left / ".old").mkdir(parents=True)
    (left / ".old" / "report.html").write_text("old")
    (left / "out").mkdir()
    with (
        pytest.raises(BabelScopeError, match="exists already"),
        new_folder(tmp_path / "out", overwrite=False, parts=PARTS),
    ):
        pass
    assert (tmp_path / "out" / "report.html").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_signal_between_the_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "tables").mkdir(parents=True)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        if self == tmp_path / "out":
            os.kill(os.getpid(), signal.SIGTERM)
        return moved

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(SystemExit), new_folder(tmp_path / "out", overwrite=True, parts=PARTS):
        pass
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["tables"]
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
