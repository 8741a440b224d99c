"""What killed writers leave is swept by the next one, and nothing else is."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.disk import HOST, OLD, is_abandoned, temporary_name
from babelscope.errors import BabelScopeError
from tests.store.stores import fill, make_plan, make_prompts, shards_of

PROMPTS = make_prompts()
PLAN = make_plan(PROMPTS)


@pytest.fixture(scope="module")
def dead():
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_temporary_files_that_nobody_writes_are_swept(tmp_path, dead):
    path = fill(tmp_path / "s.acts", PLAN, PROMPTS).path
    folder = path / "shards/l-en"
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
    StoreWriter.resume(path, PLAN)
    left = {p.name for p in folder.glob(".*")}
    assert left == {names["mine"], names["elsewhere"], names["not ours"]}
    assert not is_abandoned(folder / names["mine"])


def test_folders_that_were_being_built_are_swept_when_nobody_builds_them(tmp_path, dead):
    path = tmp_path / "s.acts"
    names = {
        "mine": temporary_name(path).name,
        "dead": f".s.acts.{HOST}.{dead}.0123abcd.tmp",
        "elsewhere": f".s.acts.{HOST}-other.{dead}.0123abcd.tmp",
        "of another store": f".t.acts.{HOST}.{dead}.0123abcd.tmp",
    }
    for name in names.values():
        (tmp_path / name / "s.acts").mkdir(parents=True)
    StoreWriter.create(path, PLAN, PROMPTS, {})
    kept = {names["mine"], names["elsewhere"], names["of another store"]}
    assert {p.name for p in tmp_path.iterdir()} == {"s.acts", *kept}
    (tmp_path / names["dead"] / "s.acts").mkdir(parents=True)
    StoreWriter.resume(path, PLAN)
    assert {p.name for p in tmp_path.iterdir()} == {"s.acts", *kept}


def test_a_store_whose_replacement_died_on_the_way_is_put_back(tmp_path, dead):
    path = fill(tmp_path / "s.acts", PLAN, PROMPTS).path
    before = shards_of(path)
    aside = tmp_path / f".s.acts.{HOST}.{dead}.0123abcd.tmp" / OLD
    for join in (False, True):
        aside.parent.mkdir()
        shutil.move(path, aside)
        if join:
            assert StoreWriter.join(path, PLAN, PROMPTS, {}).pending() == []
        else:
            with pytest.raises(BabelScopeError, match="exists already"):
                StoreWriter.create(path, PLAN, PROMPTS, {})
        assert [p.name for p in tmp_path.iterdir()] == ["s.acts"]
        assert shards_of(path) == before
        assert ActivationStore.open(path).progress == (6, 6)


def test_a_store_that_cannot_be_replaced_is_put_back(tmp_path, monkeypatch):
    path = fill(tmp_path / "s.acts", PLAN, PROMPTS).path
    before, rename = shards_of(path), os.rename

    def interrupted(source, target):
        rename(source, target)
        monkeypatch.setattr(os, "rename", rename)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        StoreWriter.create(path, PLAN, PROMPTS, {}, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["s.acts"]
    assert shards_of(path) == before
