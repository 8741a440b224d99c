"""Scores of labels by spelling: kept beside the answers, where the plan says so, in every form of a store."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest

import babelscope as bs
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.packing import pack
from babelscope.errors import BabelScopeError
from babelscope.schema import SPELLINGS
from babelscope.workflows import exchange
from tests.golden import plain
from tests.store.stores import fill, make_block, make_plan, make_prompts


@pytest.fixture
def store(tmp_path):
    prompts = make_prompts()
    return fill(tmp_path / "s.acts", make_plan(prompts, spellings=True), prompts, failed={"sw": (2,)})


def test_spellings_come_back_with_their_tokens_and_the_reason_where_they_are_undefined(store):
    found = store.spellings
    assert len(found) == 9 * len(SPELLINGS)
    bare = found[found["spelling"] == "bare"]
    assert list(zip(bare["item"], bare["language"], strict=True))[4:6] == [("item/4", "en"), ("item/0", "sw")]
    assert bare["score_0"].tolist() == [-4.0 - i for i in (0, 1, 2, 3, 4, 0, 1, 3, 4)]
    assert set(bare["token_1"]) == {8}
    assert set(bare["undefined"]) == {""}
    last = found[found["spelling"] == "last"]
    assert set(last["undefined"]) == {"labels share a token in this spelling"}
    assert last["score_0"].isna().all()
    assert set(last["token_0"]) == {9}
    assert not any(str(c).startswith("token") for c in store.answers)


def test_a_store_without_spellings_says_so_by_an_empty_table(tmp_path):
    prompts = make_prompts(2)
    plan = make_plan(prompts)
    assert "spellings" not in plan.to_json()
    store = fill(tmp_path / "s.acts", plan, prompts)
    assert store.spellings.empty
    with pytest.raises(BabelScopeError, match="no item has options") as caught:
        bs.accuracy(store, "labels-bare")
    assert "capture again" in caught.value.hint


def test_packing_keeps_them_and_unpacking_gives_the_same_bytes(store, tmp_path):
    exchange.pack(store.path, tmp_path / "s.h5")
    packed = ActivationStore.open(tmp_path / "s.h5")
    pd.testing.assert_frame_equal(packed.spellings, store.spellings)
    plain.read_packed(tmp_path / "s.h5")
    assert packed.verify(full=True).findings == ()
    exchange.unpack(tmp_path / "s.h5", tmp_path / "t.acts")
    for path in store.path.rglob("shards/*/*.h5"):
        assert (tmp_path / "t.acts" / path.relative_to(store.path)).read_bytes() == path.read_bytes()


def test_blocks_that_know_fewer_options_are_filled_up_with_none(tmp_path):
    prompts = make_prompts(4, ("en",))
    plan = make_plan(prompts, spellings=True)
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending():
            block = make_block(plan, language, index)
            if index:
                wide = {name: np.pad(getattr(block.answers, name), ((0, 0), (0, 1), *([(0, 0)] * more)),
                                     constant_values=fill)
                        for name, more, fill in (("scores", 0, np.nan), ("label_scores", 1, np.nan),
                                                 ("label_tokens", 1, -1))}  # fmt: skip
                block = replace(block, answers=replace(block.answers, **wide))
            writer.put(block)
    pack(ActivationStore.open(tmp_path / "s.acts"), tmp_path / "s.h5")
    found = ActivationStore.open(tmp_path / "s.h5").spellings
    assert found["token_2"].isna().all()
    assert set(found.loc[found["spelling"] == "spaced", "undefined"]) == {""}


def test_verify_misses_them_where_the_plan_promises_them(store, tmp_path):
    assert store.verify(full=True).findings == ()
    path = shutil.copytree(store.path, tmp_path / "t.acts")
    shard = next(path.glob("shards/l-en/*.h5"))
    shard.chmod(0o644)
    with h5py.File(shard, "r+") as file:
        del file["answers/label_tokens"]
    assert any("label_tokens is missing" in f.problem for f in ActivationStore.open(path).verify().findings)


def test_a_block_without_them_is_refused_where_the_plan_asks_and_one_with_them_where_it_does_not(tmp_path):
    prompts = make_prompts(2, ("en",))
    for asked, other in ((True, False), (False, True)):
        plan = make_plan(prompts, spellings=asked)
        block = make_block(make_plan(prompts, spellings=other), "en", 0)
        with (
            StoreWriter.create(tmp_path / f"{asked}.acts", plan, prompts, {}) as writer,
            pytest.raises(BabelScopeError, match="label_scores"),
        ):
            writer.put(block)


def test_a_store_that_was_begun_without_spellings_is_continued_without_them(tmp_path):
    asked = {"model": "organism", "prompts": "kfrd-arithmetic", "languages": ["en"], "limit": 4,
             "sites": ["resid.post@0"], "self_test": False}  # fmt: skip
    whole = bs.capture(tmp_path / "whole.acts", **asked)
    assert not whole.spellings.empty
    begun = replace(whole.plan, spellings=False)
    with StoreWriter.create(tmp_path / "old.acts", begun, whole.prompts, {}):
        pass
    old = bs.capture(tmp_path / "old.acts", **asked, resume=True)
    assert old.fingerprint == begun.fingerprint != whole.fingerprint
    assert old.spellings.empty
    pd.testing.assert_frame_equal(old.answers, whole.answers)


@pytest.mark.parametrize("code", ["gt_question_de", "threewrong_sw", "mixup+awareness-1", "full_de+english-shots"])
def test_settings_of_mixed_questions_are_codes_of_a_store(tmp_path, code):
    prompts = make_prompts(2, ("en", code))
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    assert ActivationStore.open(store.path).languages == ("en", code)
    assert store.verify(full=True).findings == ()
