"""Outputs appear whole or not at all."""

import stat
from pathlib import Path

import pytest

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
