import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, CapturePlan, Prompt, PromptSet, Rows
from tests.store.stores import ALL, LAST, fill, make_block, make_plan, make_prompts, shards_of


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
            if n == 4: os.kill(os.getpid(), signal.SIGKILL)
            writer.put(make_block(plan, language, index))
    """)
    path = tmp_path / "killed.acts"
    codes = [subprocess.run([sys.executable, "-c", code, str(path)], cwd=os.getcwd()).returncode for _ in range(2)]
    assert codes == [-signal.SIGKILL, 0]
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


def test_a_long_field_is_told_by_the_entry_that_differs(tmp_path):
    prompts, others = make_prompts(40, ("en",)), make_prompts(41, ("en",))
    fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with pytest.raises(BabelScopeError, match="items: store has 40 of them, this run has 41"):
        StoreWriter.resume(tmp_path / "s.acts", make_plan(others))
    renamed = make_plan(prompts, items=(*prompts.items[:-1], "other"))
    with pytest.raises(BabelScopeError, match=r"items\[39\]: store has 'item/39', this run has 'other'"):
        StoreWriter.resume(tmp_path / "s.acts", renamed)


@pytest.mark.parametrize("name", [f for f in CapturePlan.__slots__ if f != "model"])
def test_each_field_of_a_plan_is_part_of_its_identity(tmp_path, name):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts)
    StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    other = {
        "prompts_sha256": "0" * 64, "languages": ("sw",), "items": ("item/0",), "sites": plan.sites[:1],
        "positions": (ALL,), "answers": False, "backend": "nnsight", "block_items": 9, "token_budget": 9,
        "dtype": "float16",
    }  # fmt: skip
    with pytest.raises(BabelScopeError, match=rf"plan: {name}\b"):
        StoreWriter.resume(tmp_path / "s.acts", replace(plan, **{name: other[name]}))


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
    (tmp_path / "mine/store.json").write_text('{"groceries": 3}')
    with pytest.raises(BabelScopeError, match="no store"):
        StoreWriter.create(tmp_path / "mine", plan, prompts, {}, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "s.acts"]


@pytest.mark.parametrize("name", ["thesis.txt", "shards/l-en/notes.md", "runs/thesis.tex", "plots/figure.h5"])
def test_a_store_that_holds_something_else_is_not_overwritten(tmp_path, name):
    prompts = make_prompts(2, ("en",))
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("years of work")
    with pytest.raises(BabelScopeError, match=name):
        StoreWriter.create(path, make_plan(prompts), prompts, {}, overwrite=True)
    assert (path / name).read_text() == "years of work"
    assert ActivationStore.open(path).progress == (1, 1)


def test_a_link_to_another_disk_stays_a_link(tmp_path):
    prompts = make_prompts(2, ("en",))
    (tmp_path / "disk").mkdir()
    (tmp_path / "s.acts").symlink_to(tmp_path / "disk/s.acts")
    for overwrite in (False, True):
        StoreWriter.create(tmp_path / "s.acts", make_plan(prompts), prompts, {}, overwrite=overwrite)
    assert (tmp_path / "s.acts").is_symlink()
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["s.acts"]


def test_files_of_private_data_respect_the_umask(tmp_path):
    prompts = make_prompts(2, ("en",))
    before = os.umask(0o077)
    try:
        path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in path.rglob("*") if p.is_file()} == {0o400}


def test_a_run_says_when_it_started_and_why_it_stopped(tmp_path):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts)
    with pytest.raises(KeyboardInterrupt), StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}):
        raise KeyboardInterrupt
    with StoreWriter.resume(tmp_path / "s.acts", plan) as writer:
        writer.put(make_block(plan, "en", 0))
    records = [json.loads(p.read_text()) for p in sorted((tmp_path / "s.acts/runs").iterdir())]
    assert [r["event"] for r in records] == ["started", "stopped"] * 2
    assert [r["pending"] for r in records] == [1, 1, 1, 0]
    assert [r["why"] for r in records[1::2]] == ["KeyboardInterrupt: ", "done"]


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


def test_a_shard_in_the_place_of_another_is_refused(tmp_path):
    prompts = make_prompts(4)
    plan = make_plan(prompts)
    path = fill(tmp_path / "s.acts", plan, prompts).path
    names = ("l-en/000000000-000000002", "l-sw/000000000-000000002", "l-sw/000000002-000000004")
    here, there, next_one = (path / f"shards/{name}.h5" for name in names)
    for target, source in ((here, there), (next_one, there)):
        kept = target.read_bytes()
        target.unlink()
        target.write_bytes(source.read_bytes())
        for read in (lambda: StoreWriter.resume(path, plan), lambda: ActivationStore.open(path).answers):
            with pytest.raises(BabelScopeError, match=f"{target.name}.*language or block"):
                read()
        target.unlink()
        target.write_bytes(kept)


def flipped(target, good, place, bit=0):
    bad = bytearray(good)
    bad[place] ^= 1 << bit
    target.unlink(missing_ok=True)
    target.write_bytes(bad)


def read_everything(path):
    store = ActivationStore.open(path)
    store.select("resid.post", position="last").numpy()
    store.select("attn.heads@1", position="all").ragged()
    return store.answers, store.failed


@pytest.mark.parametrize(
    "name",
    ["rows/item", "rows/n_tokens", "rows/last_token", "answers/scores", "answers/choice", "answers/correct",
     "failed/item", "failed/reason", "attn.heads.all/row_splits"],
)  # fmt: skip
def test_one_wrong_bit_in_what_says_which_row_is_which_is_an_error(tmp_path, name):
    prompts = make_prompts(3, ("en",))
    path = fill(
        tmp_path / "s.acts", make_plan(prompts, positions=(LAST, ALL), block_items=3), prompts, failed={"en": (1,)}
    ).path
    target = path / "shards/l-en/000000000-000000003.h5"
    with h5py.File(target) as file:
        place = file[name].id.get_offset()
    flipped(target, target.read_bytes(), place)
    with pytest.raises(BabelScopeError, match=f"{target.name}: damaged .*sha256"):
        read_everything(path)


def test_no_wrong_bit_is_ever_a_traceback_or_another_answer(tmp_path):
    prompts = make_prompts(2, ("en",))
    path = fill(tmp_path / "s.acts", make_plan(prompts, positions=(LAST, ALL)), prompts).path
    target = path / "shards/l-en/000000000-000000002.h5"
    good = target.read_bytes()
    want = read_everything(path)
    rng = np.random.default_rng(0)
    noticed = 0
    for place in rng.choice(len(good), 100, replace=False):
        flipped(target, good, place, rng.integers(8))
        try:
            found = read_everything(path)
        except BabelScopeError as error:
            noticed += target.name in error.problem
        else:
            for one, other in zip(found, want, strict=True):
                pd.testing.assert_frame_equal(one, other)
    assert noticed > 10  # metadata; values have their sha256 beside them, which selecting does not compute


def test_items_of_another_store_are_refused(tmp_path):
    prompts = make_prompts()
    for name, budget in (("a", 64), ("b", 65)):
        fill(tmp_path / name, make_plan(prompts, token_budget=budget), prompts)
    (tmp_path / "a/items.h5").unlink()
    shutil.copy(tmp_path / "b/items.h5", tmp_path / "a/items.h5")
    for read in (lambda s: s.prompts, lambda s: s.covariates):
        with pytest.raises(BabelScopeError, match=r"items\.h5"):
            read(ActivationStore.open(tmp_path / "a"))


def test_prompts_that_the_plan_was_not_made_for_are_refused(tmp_path):
    with pytest.raises(BabelScopeError, match="another set of prompts"):
        StoreWriter.create(tmp_path / "s.acts", make_plan(make_prompts(3)), make_prompts(4), {})
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_plan_with_its_right_hash_is_refused(tmp_path):
    prompts = make_prompts(2, ("en",))
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    for changes, names in (({"languages": ("../../../etc",)}, "language code"), ({"block_items": 0}, "block_items")):
        plan = make_plan(prompts, **changes)
        record = json.loads((path / "store.json").read_text()) | {
            "plan": plan.to_json(),
            "plan_sha256": plan.fingerprint,
        }
        (path / "store.json").unlink()
        (path / "store.json").write_text(json.dumps(record))
        with pytest.raises(BabelScopeError, match=names):
            ActivationStore.open(path)


@pytest.mark.parametrize("languages", [("zh-Hans", "zh-hans"), ("en", "en")])
def test_languages_that_share_a_folder_on_some_disks_are_refused(tmp_path, languages):
    prompts = make_prompts()
    with pytest.raises(BabelScopeError, match="name one folder"):
        StoreWriter.create(tmp_path / "s.acts", make_plan(prompts, languages=languages), prompts, {})


def test_an_item_of_any_name_is_data_and_never_a_path(tmp_path):
    names = ("../../x", "/etc/passwd", "a\0b", "C:\\nul", "'; --", "<script>", "é" * 500, " ", "")
    prompts = PromptSet("odd", tuple(Prompt(n, "en", "text") for n in names))
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    assert store.select("embed", items=[names[6], names[0]]).items == (names[6], names[0])
    assert list(store.answers["item"]) == list(names)
    assert [p.name for p in tmp_path.iterdir()] == ["s.acts"]


@pytest.mark.parametrize("code", ["../../etc", "EN", "e", "en/x", "", "en\n"])
def test_a_language_that_is_no_code_never_becomes_a_path(tmp_path, code):
    prompts = make_prompts()
    with pytest.raises(BabelScopeError, match="no language code"):
        StoreWriter.create(tmp_path / "s.acts", make_plan(prompts, languages=(code,)), prompts, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda b: b.rows.update({("embed", LAST): Rows(np.zeros((1, 3, 6), np.float32))}), "has shape"),
        (lambda b: b.rows.update({("embed", LAST): Rows(np.zeros((1, 2, 6)))}), "float64"),
        (
            lambda b: b.rows.update({("embed", ALL): Rows(np.zeros((1, 2, 6), np.float32), np.array([0, 2, 1]))}),
            "splits",
        ),
        (lambda b: b.rows.update({("embed", ALL): Rows(np.zeros((1, 2, 6), np.float32))}), "splits"),
        (lambda b: b.rows.pop(("embed", LAST)), "differ from the plan"),
        (lambda b: b.failed.update({1: "too long"}), "each once"),
        (lambda b: replace(b, items=b.items[::-1]), "in order"),
        (lambda b: replace(b, n_tokens=b.n_tokens[:1]), "n_tokens"),
        (lambda b: replace(b, answers=None), "2 items"),
        (lambda b: replace(b, index=7), "no such block"),
        (lambda b: replace(b, language="../x"), "no such block"),
    ],
)  # fmt: skip
def test_a_block_that_is_not_what_the_plan_says_is_refused(tmp_path, change, names):
    prompts = make_prompts()
    plan = make_plan(prompts, positions=(LAST, ALL))
    writer = StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    block = make_block(plan, "en", 0)
    changed = change(block)
    with pytest.raises(BabelScopeError, match=names):
        writer.put(changed if isinstance(changed, Block) else block)
    assert ActivationStore.open(tmp_path / "s.acts").progress == (0, 6)
    assert not list(tmp_path.rglob("*.tmp"))
