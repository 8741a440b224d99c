"""Stores that were damaged, edited, mixed up, or made to harm."""

import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.errors import BabelScopeError
from tests.store.stores import ALL, LAST, fill, make_plan, make_prompts


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
        with pytest.raises(BabelScopeError, match=f"{target.name}.*language or block"):
            _ = ActivationStore.open(path).answers
        writer = StoreWriter.resume(path, plan)
        assert [target.name in told and "language or block" in told for told in writer.quarantined] == [True]
        assert len(writer.pending()) == 1
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


@pytest.mark.parametrize("texts", [True, False])
def test_lost_items_come_back_when_the_capture_is_resumed_as_the_hint_says(tmp_path, texts):
    prompts = make_prompts()
    plan = make_plan(prompts)
    items = fill(tmp_path / "s.acts", plan, prompts, texts=texts).path / "items.h5"
    good = items.read_bytes()
    flipped(items, good, good.index(b'{"item"'))
    for read in (
        lambda: ActivationStore.open(tmp_path / "s.acts").covariates,
        lambda: StoreWriter.resume(tmp_path / "s.acts", plan, prompts),
    ):
        with pytest.raises(BabelScopeError, match=r"items\.h5: damaged") as error:
            read()
        assert (
            error.value.hint == "move it out of the store and run the capture again with --resume: it is written again"
        )
    items.rename(tmp_path / "moved.h5")
    with pytest.raises(BabelScopeError, match=r"items\.h5 is missing") as error:
        ActivationStore.open(tmp_path / "s.acts").answers  # noqa: B018
    assert error.value.hint == "run the capture again with --resume: it is written again"
    with pytest.raises(BabelScopeError, match=r"items\.h5 is missing"):
        StoreWriter.resume(tmp_path / "s.acts", plan)  # no prompts at hand
    StoreWriter.resume(tmp_path / "s.acts", plan, prompts)
    assert items.read_bytes() == good
    assert ActivationStore.open(tmp_path / "s.acts").has_texts is texts


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
