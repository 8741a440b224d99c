import errno
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store import writer as writer_module
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, Prompt, PromptSet, Rows
from tests.store.stores import ALL, LAST, fill, make_block, make_plan, make_prompts, shards_of


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


def test_a_store_that_appears_while_ours_is_built_is_joined(tmp_path, monkeypatch):
    prompts, path = make_prompts(), tmp_path / "s.acts"
    plan, honest = make_plan(prompts), writer_module._move_into_place

    def meanwhile(new, target, **options):
        monkeypatch.setattr(writer_module, "_move_into_place", honest)
        StoreWriter.create(path, plan, prompts, {"made by": "another process"}).put(make_block(plan, "en", 0))
        honest(new, target, **options)

    monkeypatch.setattr(writer_module, "_move_into_place", meanwhile)
    with pytest.raises(BabelScopeError, match="cannot be written"):
        StoreWriter.create(path, plan, prompts, {})
    assert ActivationStore.open(path).progress == (1, len(plan.blocks))  # and is not replaced
    shutil.rmtree(path)
    monkeypatch.setattr(writer_module, "_move_into_place", meanwhile)
    writer = StoreWriter.join(path, plan, prompts, {})
    assert len(writer.pending()) == len(plan.blocks) - 1
    assert ActivationStore.open(path).provenance == {"made by": "another process"}
    assert [p.name for p in tmp_path.iterdir()] == ["s.acts"]


def test_a_store_is_not_joined_where_none_can_be(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    assert len(StoreWriter.join(tmp_path / "s.acts", plan, prompts, {}).pending()) == len(plan.blocks)
    with pytest.raises(BabelScopeError, match="another plan"):
        StoreWriter.join(tmp_path / "s.acts", make_plan(prompts, token_budget=65), prompts, {})
    (tmp_path / "file").write_text("")
    for place in ("file", "file/s.acts"):
        with pytest.raises(BabelScopeError):
            StoreWriter.join(tmp_path / place, plan, prompts, {})
    assert (tmp_path / "file").read_text() == ""


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


def test_prompts_that_the_plan_was_not_made_for_are_refused(tmp_path):
    with pytest.raises(BabelScopeError, match="another set of prompts"):
        StoreWriter.create(tmp_path / "s.acts", make_plan(make_prompts(3)), make_prompts(4), {})
    assert list(tmp_path.iterdir()) == []


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
        (lambda b: b.rows.update({("embed", ALL): replace(b.rows["embed", ALL], coordinates={})}), "coordinates"),
        (lambda b: b.rows.pop(("embed", LAST)), "differ from the plan"),
        (lambda b: b.failed.update({1: "too long"}), "each once"),
        (lambda b: replace(b, items=b.items[::-1]), "in order"),
        (lambda b: replace(b, n_tokens=b.n_tokens[:1]), "n_tokens"),
        (lambda b: replace(b, answers=None), "2 items"),
        (lambda b: replace(b, answers=replace(b.answers, continuation=("x", "y"))), "asks for"),
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


@pytest.mark.parametrize("code", ["EPERM", "ENOTSUP", "ENOSYS"])
def test_a_file_system_without_links_is_named_and_nothing_stays(tmp_path, monkeypatch, code):
    def link(*_):
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    prompts = make_prompts()
    plan = make_plan(prompts)
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(BabelScopeError, match="makes no hard links") as caught:
        StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    assert "another disk" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    writer = StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(BabelScopeError, match="makes no hard links"):
        writer.put(make_block(plan, "en", 0))
    assert sorted(tmp_path.rglob("*")) == before
