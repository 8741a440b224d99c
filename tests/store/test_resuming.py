"""What a resume checks, what it moves away, what it writes down, and plans of other versions."""

import errno
import hashlib
import json
import os
import shutil
import struct
from dataclasses import fields, replace

import h5py
import numpy as np
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.disk import StoreFullError
from babelscope.errors import BabelScopeError
from babelscope.schema import CapturePlan, ModelRef
from tests.store.stores import fill, make_block, make_plan, make_prompts, shards_of

HERE = {"device": "cuda:0 (H100)", "versions": {"torch": "2.13", "numpy": "2.4"}}
OTHER = {
    "architecture": "Other", "n_layers": 4, "dtype": "float16", "weights_sha256": "x" * 64,
    "tokenizer_sha256": "y" * 64,
    "revision": "main", "attn_implementation": "eager", "config_sha256": "c" * 64, "n_encoder_layers": 3,
    "anatomy_sha256": "d" * 64, "adapter_sha256": "e" * 64, "adapter_merged": True, "quantization": "nf4",
    "chat_template_sha256": "f" * 64,
}  # fmt: skip


def rewrite(path, change):
    """Edit a record of `store.json` and its hash, as a program of another version would have written them."""
    record = json.loads((path / "store.json").read_text("utf-8"))
    change(record)
    model = {k: v for k, v in record["plan"]["model"].items() if k not in ("source", "adapter")}
    text = json.dumps({**record["plan"], "model": model}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    record["plan_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "store.json").unlink()
    (path / "store.json").write_text(json.dumps(record), "utf-8")
    return record["plan_sha256"]


def signed(path, fingerprint):
    """Give the HDF5 files of a store another plan, as if they had been written under it."""
    for file in path.rglob("*.h5"):
        file.chmod(0o644)
        with h5py.File(file, "r+", libver=("v108", "v108")) as opened:
            opened.attrs["plan_sha256"] = np.bytes_(fingerprint)


@pytest.mark.parametrize("name", [f.name for f in fields(ModelRef) if f.name not in ("source", "adapter")])
def test_each_field_of_a_model_is_part_of_the_identity(tmp_path, name):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts)
    StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})
    with pytest.raises(BabelScopeError, match=rf"plan: model\.{name}: store has"):
        StoreWriter.resume(tmp_path / "s.acts", replace(plan, model=replace(plan.model, **{name: OTHER[name]})))


def test_command_host_and_names_of_the_model_are_no_part_of_the_identity(tmp_path):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts)
    StoreWriter.create(tmp_path / "s.acts", plan, prompts, {"host": "a", "command": ["x"], "versions": {"torch": "1"}})
    moved = replace(plan, model=replace(plan.model, source="elsewhere", adapter="there"))
    with StoreWriter.resume(tmp_path / "s.acts", moved, prompts, {"host": "b", "versions": {"torch": "2"}}) as writer:
        writer.put(make_block(plan, "en", 0))
    assert ActivationStore.open(tmp_path / "s.acts").progress == (1, 1)


def test_a_field_that_a_version_added_leaves_older_stores_their_identity(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    path = fill(tmp_path / "s.acts", plan, prompts).path

    def older(record):
        for name in ("levers", "segments", "n_keys", "continuation"):
            del record["plan"][name]
        del record["plan"]["model"]["quantization"]

    fingerprint = rewrite(path, older)
    signed(path, fingerprint)
    (path / "shards/l-en/000000000-000000002.h5").unlink()
    assert fingerprint != plan.fingerprint
    store = ActivationStore.open(path)
    assert store.fingerprint == fingerprint
    assert store.plan == plan
    assert store.select("embed", languages="sw").numpy().shape == (1, 5, 6)
    with StoreWriter.resume(path, plan, prompts) as writer:  # a plan made today, with every field
        assert writer.quarantined == ()
        assert writer.pending() == [("en", 0)]
        writer.put(make_block(plan, "en", 0))
    assert ActivationStore.open(path).select("embed").numpy().shape == (2, 5, 6)
    with pytest.raises(BabelScopeError, match="plan: continuation: store has 0, this run has 7"):
        StoreWriter.resume(path, replace(plan, continuation=7))


def test_a_field_of_a_newer_version_is_read_past_and_never_written_under(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    path = fill(tmp_path / "s.acts", plan, prompts).path

    def newer(record):
        record["schema"] = "babelscope/1.7"
        record["plan"]["tomorrow"] = [1]
        record["plan"]["model"]["moon"] = "full"
        record["beside"] = {}

    fingerprint = rewrite(path, newer)
    signed(path, fingerprint)
    store = ActivationStore.open(path)
    assert store.plan == plan
    assert store.fingerprint == fingerprint
    assert store.select("embed").numpy().shape == (2, 5, 6)
    with pytest.raises(BabelScopeError, match=r"plan\.tomorrow, plan\.model\.moon, unknown to this version"):
        StoreWriter.resume(path, plan)


def test_a_plan_that_was_changed_after_it_was_read_has_a_hash_of_its_own():
    plan = make_plan(make_prompts())
    read = CapturePlan.from_json({k: v for k, v in plan.to_json().items() if k != "levers"})
    assert read == plan
    assert read.fingerprint != plan.fingerprint
    assert replace(read, token_budget=65).fingerprint == replace(plan, token_budget=65).fingerprint


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.unlink()
    path.write_bytes(data)


def truncate(path):
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])


def append(path):
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b"\0")


def item_number(path):
    with h5py.File(path) as file:
        place = file["rows/item"].id.get_offset()
    flip(path, place)


HARM = {"metadata": lambda p: flip(p, 60), "cut off": truncate, "something appended": append, "rows": item_number,
        "not HDF5": lambda p: (p.unlink(), p.write_bytes(b"x" * 99))}  # fmt: skip


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_shard_is_told_kept_and_computed_again(tmp_path, harm):
    prompts = make_prompts()
    plan = make_plan(prompts)
    path = fill(tmp_path / "s.acts", plan, prompts).path
    whole = shards_of(path)
    shard = path / "shards/l-sw/000000002-000000004.h5"
    HARM[harm](shard)
    bad = shard.read_bytes()
    with StoreWriter.resume(path, plan, prompts) as writer:
        assert [(shard.name in told, "quarantine/l-sw-" in told) for told in writer.quarantined] == [(True, True)]
        assert writer.pending() == [("sw", 1)]
        writer.put(make_block(plan, "sw", 1))
    kept = sorted((path / "quarantine").iterdir())
    assert [p.suffix for p in kept] == [".h5", ".json"]
    assert kept[0].read_bytes() == bad
    note = json.loads(kept[1].read_text())
    assert [note["file"], len(note["reasons"])] == [shard.relative_to(path).as_posix(), 1]
    assert {k: v for k, v in shards_of(path).items() if not k.startswith("quarantine")} == whole
    started = json.loads(next(iter(sorted((path / "runs").glob("*.started.json"))[-1:])).read_text())
    assert started["quarantined"] == list(writer.quarantined)
    assert StoreWriter.resume(path, plan, prompts).quarantined == ()
    StoreWriter.create(path, plan, prompts, {}, overwrite=True)  # the folder is a part of a store


def test_bytes_behind_the_end_are_seen_when_a_shard_is_read(tmp_path):
    prompts = make_prompts()
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    append(path / "shards/l-sw/000000002-000000004.h5")
    with pytest.raises(BabelScopeError, match=r"000000002-000000004\.h5: damaged"):
        ActivationStore.open(path).select("embed").numpy()


def test_a_shard_that_was_computed_again_meanwhile_is_not_moved_away(tmp_path, monkeypatch):
    from babelscope.activations_store import resuming

    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts)
    path = fill(tmp_path / "s.acts", plan, prompts).path
    shard = path / "shards/l-en/000000000-000000002.h5"
    good = shard.read_bytes()
    truncate(shard)
    honest = resuming.quarantine

    def meanwhile(*arguments):
        shard.rename(tmp_path / "moved by another process")
        shard.write_bytes(good)
        return honest(*arguments)

    monkeypatch.setattr(resuming, "quarantine", meanwhile)
    assert StoreWriter.resume(path, plan).pending() == []
    assert list((path / "quarantine").iterdir()) == []
    assert shard.read_bytes() == good


def test_folders_that_a_copy_lost_are_made_again(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    path = StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}).path
    for folder in ("runs", "shards"):
        shutil.rmtree(path / folder)
    assert ActivationStore.open(path).progress == (0, 6)
    with StoreWriter.resume(path, plan, prompts) as writer:
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index))
    assert ActivationStore.open(path).progress == (6, 6)


def test_device_and_versions_stand_in_each_shard_and_in_the_record_of_each_run(tmp_path):
    prompts = make_prompts(4, ("en",))
    plan = make_plan(prompts)
    path = tmp_path / "s.acts"
    with StoreWriter.create(path, plan, prompts, HERE | {"self_test": {"x": 0.0}}) as writer:
        writer.put(make_block(plan, "en", 0))
    there = {"device": "cpu", "versions": {"torch": "2.14"}, "command": ["again"]}
    with StoreWriter.resume(path, plan, prompts, there) as writer:
        writer.put(make_block(plan, "en", 1))
    for name, about in (("000000000-000000002", HERE), ("000000002-000000004", there)):
        with h5py.File(path / f"shards/l-en/{name}.h5") as file:
            assert file.attrs["device"].decode() == about["device"]
            assert json.loads(file.attrs["versions"]) == about["versions"]
            assert len(file.attrs) == 8  # more of them would lie where no checksum covers them
    runs = [json.loads(p.read_text()) for p in sorted((path / "runs").glob("*.started.json"))]
    assert [(r["device"], r["versions"], r["pending"]) for r in runs] == [
        (HERE["device"], HERE["versions"], 2), (there["device"], there["versions"], 1)
    ]  # fmt: skip
    assert runs[1]["command"] == ["again"]
    assert runs[0]["host"]


def test_the_metadata_of_a_shard_lies_before_its_values(tmp_path):
    prompts = make_prompts()
    path = fill(tmp_path / "s.acts", make_plan(prompts), prompts).path
    file = path / "shards/l-en/000000000-000000002.h5"
    with h5py.File(file) as opened:
        values = [opened[g]["value"].id for g in opened if "value" in opened[g]]
        first = min(v.get_offset() for v in values)
        assert first + sum(v.get_storage_size() for v in values) == file.stat().st_size
        heads = [h5py.h5o.get_info(opened[name].id).addr for name in ("rows/item", "embed.last/absmax", "failed")]
        assert max(heads) < first
    assert struct.unpack("<Q", file.read_bytes()[28:36])[0] == file.stat().st_size  # as the reader finds the end


@pytest.mark.parametrize(
    ("number", "says", "helps"),
    [(errno.ENOSPC, "MB are free", "free some room"), (errno.EDQUOT, "quota is used up", "quota"),
     (errno.EFBIG, "may write no file of that size", "ulimit -f")],
)  # fmt: skip
def test_each_kind_of_full_disk_is_told_apart(tmp_path, monkeypatch, number, says, helps):
    prompts = make_prompts()
    plan = make_plan(prompts)
    writer = StoreWriter.create(tmp_path / "s.acts", plan, prompts, {})

    def full(*_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(StoreFullError, match=says) as caught:
            writer.put(make_block(plan, "en", 0))
    assert "no room for" in caught.value.problem
    assert helps in caught.value.hint
    assert "--resume" in caught.value.hint
    assert not list(tmp_path.rglob("*.tmp"))
    writer.put(make_block(plan, "en", 0))
