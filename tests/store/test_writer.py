import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.schema import Rows
from tests.store.stores import LAST, fill, make_block, make_plan, make_prompts, shards_of


def test_a_killed_writer_is_resumed_to_the_bytes_of_an_undisturbed_one(tmp_path):
    code = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from babelscope.activations_store import StoreWriter
        from tests.store.stores import make_block, make_plan, make_prompts
        prompts = make_prompts(7); plan = make_plan(prompts)
        path = Path(sys.argv[1])
        writer = StoreWriter.resume(path, plan) if path.exists() else StoreWriter.create(path, plan, prompts, {})
        for n, (language, index) in enumerate(writer.pending()):
            if n == 2: os.kill(os.getpid(), signal.SIGKILL)
            writer.put(make_block(plan, language, index))
    """)
    path = tmp_path / "killed.acts"
    codes = [subprocess.run([sys.executable, "-c", code, str(path)], cwd=os.getcwd()).returncode for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 3 + [0]
    prompts = make_prompts(7)
    fill(tmp_path / "whole.acts", make_plan(prompts), prompts)
    assert shards_of(path) == shards_of(tmp_path / "whole.acts")


def test_a_store_is_readable_while_it_is_written(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    writer = StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    store = ActivationStore.open(tmp_path / "s.acts")
    assert store.progress == (0, 6)
    with pytest.raises(BabelScopeError, match="no item was captured"):
        store.select("embed").numpy()
    for language in plan.languages:
        writer.put(make_block(plan, language, 1))
    assert store.select("embed").items == ("item/2", "item/3")


def test_another_plan_is_refused_field_by_field(tmp_path):
    prompts = make_prompts()
    fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with pytest.raises(BabelScopeError) as caught:
        StoreWriter.resume(tmp_path / "s.acts", make_plan(prompts, block_items=3, token_budget=65))
    assert "block_items: store has 2, this run has 3" in caught.value.problem
    assert "token_budget" in caught.value.problem
    assert "languages" not in caught.value.problem


def test_an_existing_path_is_refused_and_left_alone(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    fill(tmp_path / "s.acts", plan, prompts)
    before = shards_of(tmp_path / "s.acts")
    with pytest.raises(BabelScopeError) as caught:
        StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    assert "--resume" in caught.value.hint
    assert "--overwrite" in caught.value.hint
    assert shards_of(tmp_path / "s.acts") == before


def test_only_a_store_is_ever_overwritten(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(BabelScopeError, match="no store"):
        StoreWriter.create(tmp_path / "mine", plan, prompts, {}, overwrite=True)
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
    fill(tmp_path / "s.acts", plan, prompts)
    StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}, overwrite=True)
    assert ActivationStore.open(tmp_path / "s.acts").progress == (0, 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "s.acts"]


def test_a_committed_shard_cannot_be_changed(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    fill(tmp_path / "s.acts", plan, prompts)
    before = shards_of(tmp_path / "s.acts")
    block = make_block(plan, "en", 0)
    block.rows["embed", LAST].values[:] = 0
    StoreWriter.resume(tmp_path / "s.acts", plan).put(block)
    assert shards_of(tmp_path / "s.acts") == before
    assert all(p.stat().st_mode & 0o222 == 0 for p in (tmp_path / "s.acts").rglob("*.h5"))


def test_a_full_disk_is_a_clean_error_and_leaves_nothing_behind(tmp_path):
    code = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from babelscope.activations_store import StoreWriter
        from babelscope.errors import BabelScopeError
        from tests.store.stores import make_block, make_plan, make_prompts
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        prompts = make_prompts(); plan = make_plan(prompts)
        writer = StoreWriter.create(Path(sys.argv[1]), plan, prompts, {})
        writer.put(make_block(plan, "en", 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try: writer.put(make_block(plan, "en", 1))
        except BabelScopeError as error: print(error); sys.exit(7)
    """)
    path = tmp_path / "s.acts"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=os.getcwd())
    assert done.returncode == 7, done.stderr
    assert "--resume" in done.stdout
    assert [p.name for p in path.rglob("*") if p.is_file() and p.suffix not in (".h5", ".json")] == []
    assert ActivationStore.open(path).progress == (1, 6)


def test_an_edited_identity_is_noticed(tmp_path):
    prompts = make_prompts()
    fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    manifest = tmp_path / "s.acts/store.json"
    record = json.loads(manifest.read_text())
    record["plan"]["model"]["weights_sha256"] = "x" * 64
    manifest.chmod(0o644)
    manifest.write_text(json.dumps(record))
    with pytest.raises(BabelScopeError, match="edited"):
        ActivationStore.open(tmp_path / "s.acts")


@pytest.mark.parametrize("content", [None, "", "{}", '{"schema": "zarr/2.0"}', '{"schema": 3}', "[]", "[" * 100_000])
def test_what_is_no_store_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "store.json").write_text(content)
    with pytest.raises(BabelScopeError, match="no BabelScope store"):
        ActivationStore.open(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    prompts = make_prompts()
    fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    manifest = tmp_path / "s.acts/store.json"
    text = manifest.read_text().replace("babelscope/1.0", "babelscope/2.0")
    manifest.chmod(0o644)
    manifest.write_text(text)
    with pytest.raises(BabelScopeError, match=r"schema babelscope/2\.0"):
        ActivationStore.open(tmp_path / "s.acts")


def test_a_damaged_or_foreign_shard_is_named(tmp_path):
    prompts = make_prompts()
    fill(tmp_path / "a.acts", make_plan(prompts), prompts)
    fill(tmp_path / "b.acts", make_plan(prompts, token_budget=65), prompts)
    name = "shards/l-en/000000000-000000002.h5"
    (tmp_path / "a.acts" / name).unlink()
    (tmp_path / "a.acts" / name).write_bytes((tmp_path / "b.acts" / name).read_bytes())
    with pytest.raises(BabelScopeError, match="another capture plan"):
        ActivationStore.open(tmp_path / "a.acts").select("embed").numpy()
    (tmp_path / "a.acts" / name).write_bytes(b"not hdf5")
    with pytest.raises(BabelScopeError, match="000000000-000000002"):
        ActivationStore.open(tmp_path / "a.acts").select("embed").numpy()


@pytest.mark.parametrize("code", ["../../etc", "EN", "e", "en/x", "", "en\n"])
def test_a_language_that_is_no_code_never_becomes_a_path(tmp_path, code):
    prompts = make_prompts()
    with pytest.raises(BabelScopeError, match="no language code"):
        StoreWriter.create(tmp_path / "s.acts", make_plan(prompts, languages=(code,)), prompts, {})
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_is_not_what_the_plan_says_is_refused(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    writer = StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    block = make_block(plan, "en", 0)
    block.rows["embed", LAST] = Rows(np.zeros((1, 3, 6), np.float32))
    with pytest.raises(BabelScopeError, match="has shape"):
        writer.put(block)
    assert ActivationStore.open(tmp_path / "s.acts").progress == (0, 6)
