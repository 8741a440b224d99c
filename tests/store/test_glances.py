"""What a store and its selections show of themselves: from headers and rows alone, never from activations."""

import re

import h5py
import numpy as np
import pytest

from babelscope.activations_store import ActivationStore
from babelscope.schema import Site
from tests.schema.test_glance import check, hostile_prompts
from tests.store.stores import ALL, fill, make_plan, make_prompts


@pytest.fixture
def store(tmp_path):
    prompts = make_prompts()
    return fill(tmp_path / "s.acts", make_plan(prompts), prompts)


def test_a_store_shows_extents_and_prompts(store):
    shown = "".join(check(store).texts)
    for part in (
        "5 items x 2 languages (en, sw)",
        "6 dim for each item",
        "2 head x 3 dim for each item",
        "text 0 <b>en</b>",
    ):
        assert part in shown


def test_a_selection_shows_its_axes(store):
    chosen = store.select("resid.post", languages="sw", where={"half": 1})
    assert re.search(r"layer +2 +0, 2\n", repr(chosen))
    assert re.search(r"item +2 +item/1, item/3\n", repr(chosen))
    assert re.search(r"dim +6$", repr(chosen))
    assert ".numpy()" in "".join(check(chosen).texts)


def test_ragged_positions_and_missing_prompts_are_said(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts, positions=(ALL,), sites=(Site("attn.heads", 1),))
    found = fill(tmp_path / "s.acts", plan, prompts, failed={"sw": (1,)}).select("attn.heads")
    assert "1 prompt (see .dropped)" in repr(found)
    assert re.search(r"token +of each item\nhead +2\ndim +3$", repr(found))
    assert "for each rows of an item" in "".join(check(found.store).texts)


def test_texts_that_were_left_out_are_not_shown(tmp_path):
    prompts = make_prompts()
    assert "text 0" not in fill(tmp_path / "s.acts", make_plan(prompts), prompts, texts=False)._repr_html_()


def test_what_a_notebook_shows_of_hostile_prompts_is_escaped(tmp_path):
    prompts = hostile_prompts(("en", "ar"))
    found = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    for noun in (found, found.select("resid.post"), found.prompts):
        assert "<script>alert(1)</script>" in "".join(check(noun).texts)


def test_no_activation_is_read(store):
    before = repr(store), store._repr_html_(), repr(store.select("resid.post"))
    for file in store.path.rglob("shards/*/*.h5"):
        with h5py.File(file) as shard:
            values: list[h5py.Dataset] = []
            shard.visititems(lambda name, x, kept=values: kept.append(x) if name.endswith("/value") else None)
            places = [(x.id.get_offset(), x.id.get_storage_size()) for x in values]
        assert places
        file.chmod(0o644)
        with file.open("r+b") as raw:
            for offset, size in places:
                raw.seek(offset)
                raw.write(b"\xff" * size)
    damaged = ActivationStore.open(store.path)
    assert np.isnan(damaged.select("resid.post").numpy()).all()
    assert (repr(damaged), damaged._repr_html_(), repr(damaged.select("resid.post"))) == before


def test_a_damaged_shard_is_named_and_nothing_is_raised(store):
    for file in store.path.rglob("shards/*/*.h5"):
        file.chmod(0o644)
        file.write_bytes(b"no HDF5")
    damaged = ActivationStore.open(store.path)
    for noun in (damaged, damaged.select("resid.post")):
        assert "shards" in repr(noun)
        noun._repr_html_()


def test_a_printed_store_is_not_cut(tmp_path):
    languages = tuple(f"{a}{b}" for a in "abcdef" for b in "xyzuvw")
    prompts = make_prompts(2, languages)
    many = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    assert "fw" in str(many)
    assert "fw" not in repr(many)
    check(many)
