"""One file reads as the folder does, and gives the very files back."""

import os
import resource
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.bfloat16 import BFLOAT16
from babelscope.activations_store.hdf5 import digest
from babelscope.activations_store.packing import pack
from babelscope.activations_store.sparse import SparseFile
from babelscope.activations_store.unpacking import unpack
from babelscope.activations_store.untrusted import verify_apart
from babelscope.activations_store.verification import verify
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, Rows, Site
from babelscope.workflows import exchange
from tests.store.stores import ALL, LAST, WORDS, fill, make_block, make_plan, make_prompts, shards_of


def files_of(path):
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@settings(max_examples=12)
@given(
    n=st.integers(1, 7),
    block_items=st.integers(1, 4),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    positions=st.sampled_from([(LAST,), (ALL,), (LAST, ALL, WORDS)]),
    answers=st.sampled_from([{}, {"answers": ""}, {"answers": "texts", "continuation": 4}]),
    failed=st.dictionaries(st.sampled_from(["en", "sw"]), st.sets(st.integers(0, 6))),
    done=st.integers(0, 14),
)
def test_a_packed_store_reads_as_its_folder_and_gives_the_same_files_back(
    tmp_path_factory, n, block_items, dtype, positions, answers, failed, done
):
    folder = tmp_path_factory.mktemp("packed")
    prompts = make_prompts(n)
    plan = make_plan(prompts, dtype, positions, block_items, **answers)
    with StoreWriter.create(folder / "a.acts", plan, prompts, {"why": "test"}) as writer:
        for language, index in writer.pending()[:done]:
            writer.put(make_block(plan, language, index, failed.get(language, ())))
    store = ActivationStore.open(folder / "a.acts")
    packed = exchange.pack(store.path, folder / "a.h5", partial=True)
    assert packed.progress == store.progress
    pd.testing.assert_frame_equal(packed.answers, store.answers)
    pd.testing.assert_frame_equal(packed.failed, store.failed)
    pd.testing.assert_frame_equal(packed.covariates, store.covariates)
    assert packed.prompts == store.prompts
    assert packed.provenance == store.provenance
    for name in store.sites:
        for position in positions:
            one, other = (s.select(name, position=str(position)) for s in (store, packed))
            assert one.items == other.items
            pd.testing.assert_frame_equal(one.dropped, other.dropped)
            for site, language in ((s, g) for s in one.sites for g in one.languages if one.items):
                for have, want in zip(other.stored(site, language), one.stored(site, language), strict=True):
                    assert (have is None and want is None) or have.tobytes() == want.tobytes()
    exchange.unpack(folder / "a.h5", folder / "b.acts")
    assert files_of(folder / "b.acts") == files_of(folder / "a.acts")


def test_a_partial_store_unpacks_to_one_that_is_resumed(tmp_path):
    prompts = make_prompts(5)
    plan = make_plan(prompts, "bfloat16")
    whole = fill(tmp_path / "whole.acts", plan, prompts)
    with StoreWriter.create(tmp_path / "a.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending()[:2]:
            writer.put(make_block(plan, language, index))
    with pytest.raises(BabelScopeError, match="unfinished: 2 of 6 shards"):
        exchange.pack(tmp_path / "a.acts")
    assert not (tmp_path / "a.acts" / "packed.h5").exists()
    exchange.pack(tmp_path / "a.acts", partial=True)
    exchange.unpack(tmp_path / "a.acts" / "packed.h5", tmp_path / "b.acts")
    with pytest.raises(BabelScopeError, match="unpack it"):
        StoreWriter.resume(tmp_path / "a.acts" / "packed.h5", plan)
    with StoreWriter.resume(tmp_path / "b.acts", plan) as writer:
        assert len(writer.pending()) == 4
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index))
    assert shards_of(tmp_path / "b.acts") == shards_of(whole.path)


def test_plain_h5py_reads_a_packed_file(tmp_path):
    prompts = make_prompts(5)
    store = fill(tmp_path / "a.acts", make_plan(prompts, "bfloat16"), prompts, {"sw": [1]})
    exchange.pack(store.path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["lang/sw/resid.post.last"]
        assert [store.items[i] for i in group["item"]] == ["item/0", "item/2", "item/3", "item/4"]
        assert [dim.label or dim[0].name.rpartition("/")[2] for dim in group["value"].dims] == ["layer", "item", "dim"]
        want = store.select("resid.post", languages="sw").numpy()[:, 0]
        assert np.array_equal(group["value"][...], want)
        assert bytes(group["value"].attrs["site"]) == b"resid.post"
        assert group["value"].chunks is None


def test_a_packed_file_is_refused_twice_and_damage_is_never_packed(tmp_path):
    prompts = make_prompts(3)
    store = fill(tmp_path / "a.acts", make_plan(prompts), prompts)
    exchange.pack(store.path, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").stat().st_mode & 0o222 == 0
    with pytest.raises(BabelScopeError, match="exists already"):
        exchange.pack(store.path, tmp_path / "a.h5")
    exchange.pack(store.path, tmp_path / "a.h5", overwrite=True)
    with pytest.raises(BabelScopeError, match="packed already"):
        exchange.pack(tmp_path / "a.h5", tmp_path / "b.h5")
    with pytest.raises(BabelScopeError, match="folder already"):
        exchange.unpack(store.path, tmp_path / "b.acts")
    shard = sorted(store.path.rglob("l-sw/*.h5"))[0]
    data = bytearray(shard.read_bytes())
    with h5py.File(shard) as file:
        data[file["resid.post.last/value"].id.get_offset()] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(data)
    with pytest.raises(BabelScopeError, match=r"l-sw/000000000-000000002.h5: damaged .*resid.post.last/value"):
        exchange.pack(store.path, tmp_path / "c.h5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.acts", "a.h5"]


def rewrite(file, name, change):
    """Change values as somebody would who also writes the sha256 that belongs to them."""
    values = change(file[name][()])
    attributes = dict(file[name].attrs)
    if values.shape == file[name].shape and values.dtype == file[name].dtype:
        file[name][...] = values
    else:
        stored = file[name].id.get_type() if values.dtype == file[name].dtype else h5py.h5t.py_create(values.dtype)
        del file[name]
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file.id, name.encode(), stored, space)
        file[name][...] = values
        file[name].attrs.update({n: v for n, v in attributes.items() if n.islower()})
    file[name].attrs["sha256"] = np.bytes_(digest(file[name][()]))


def set_at(*place, to):
    def change(values):
        values[place] = to
        return values

    return change


# Dataset, what is done to it, and what is told of it: (without, with every byte read).
FAULTS = [
    ("lang/en/resid.post.all/absmax", None, "lang/en/resid.post.all/absmax is missing"),
    ("items/prompts/language", None, "items/prompts/language is missing"),
    ("items", None, "items is missing"),
    ("runs/name", None, "runs/name is missing"),
    ("lang/sw", None, "lang/sw is missing"),
    ("lang/sw/blocks/region", None, "lang/sw/blocks/region is missing"),
    ("lang/en/embed.last/value", lambda x: x.astype("f8"), "lang/en/embed.last/value is float64, not {dtype}"),
    ("lang/en/resid.post.last/value", lambda x: x[:, :-1], "lang/en/resid.post.last/value has shape (2, 4, 6)"),
    ("lang/sw/rows/item", lambda x: x[::-1], "lang/sw/its items are not those of its blocks"),
    ("lang/sw/failed/item", lambda x: x + 1, "lang/sw/its items are not those of its blocks"),
    ("lang/en/blocks/block", lambda _: np.int32([0, 1, 9]), "lang/en/blocks/block names blocks that the plan does not"),
    ("lang/en/blocks/rest_splits", lambda x: x[::-1], "lang/en/blocks/rest_splits does not divide"),
    ("lang/en/blocks/region", set_at(0, ..., 1, to=1), "lang/en/blocks/region has not the rows of"),
    ("lang/en/blocks/dataset", set_at(0, to=b"resid"), "lang/en/blocks/dataset does not name"),
    ("lang/en/attn.heads.all/row_splits", lambda x: x[::-1], "row_splits does not divide"),
    ("lang/en/embed.last/item", lambda x: x + 1, "/lang/en/embed.last/item differs from rows/item"),
    ("lang/en/resid.post.last/layer", lambda x: x + 1, "/lang/en/resid.post.last/layer is not what the plan says"),
    ("runs/record_splits", lambda x: x[:-1], "runs/record_splits does not divide the records"),
]
DEEP_FAULTS = [
    ("lang/en/resid.post.last/absmax", lambda x: x + 7, "lang/en/resid.post.last/absmax is not that of the values"),
    ("items/item", lambda x: x[::-1], "items/its items are not those of the plan"),
    ("items/prompts/record_splits", lambda x: x[:-1], "items/prompts/record_splits does not divide the records"),
    ("items/prompts/record", lambda x: np.frombuffer(x.tobytes().replace(b"text 1", b"text 7"), np.uint8),
     "its prompts are not those of the plan"),
]  # fmt: skip


@pytest.fixture(scope="module", params=["float32", "bfloat16", "int8"])
def packed(request, tmp_path_factory):
    """A packed file by itself, of any name; and its type."""
    folder, dtype = tmp_path_factory.mktemp("faults"), request.param
    prompts = make_prompts(5)
    plan = make_plan(prompts, "float32" if dtype == "int8" else dtype, (LAST, ALL))
    with StoreWriter.create(folder / "a.acts", replace(plan, dtype=dtype), prompts, {}) as writer:
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index, (1,) if language == "sw" else ()))
    return exchange.pack(folder / "a.acts", folder / "run.packed").path, dtype


def test_verify_finds_nothing_in_a_packed_file_that_is_right(packed):
    assert [verify(packed[0], full=full).findings for full in (False, True)] == [(), ()]
    assert verify_apart(packed[0], full=True).findings == ()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("name", "change", "told"), [*FAULTS, *DEEP_FAULTS], ids=lambda x: x if "/" in str(x) else "")
def test_what_is_wrong_inside_a_packed_file_is_named(packed, tmp_path, name, change, told, full):
    copy = shutil.copyfile(packed[0], tmp_path / "copy.h5")
    with h5py.File(copy, "r+") as file:
        if change is None:
            del file[name]
        else:
            rewrite(file, name, change)
    found = [finding.problem for finding in verify(copy, full=full).findings]
    if (name, change, told) in DEEP_FAULTS and not full:
        assert found == []
    else:
        assert told.format(dtype=packed[1]) in found[0]


@pytest.mark.parametrize(("where", "name", "told"), [
    ("/", "schema", "attribute schema is missing"), ("lang/en", "language", "lang/en/attribute language is that of"),
    ("lang/en/embed.last/value", "site", "/lang/en/embed.last says that it is swapped"),
])  # fmt: skip
def test_a_wrong_attribute_of_a_packed_file_is_named(packed, tmp_path, where, name, told):
    copy = shutil.copyfile(packed[0], tmp_path / "copy.h5")
    with h5py.File(copy, "r+") as file:
        del file[where].attrs[name]
        if name != "schema":
            file[where].attrs[name] = np.bytes_("swapped")
    found = [finding.problem for finding in verify(copy).findings]
    assert len(found) == 1
    assert told in found[0]


def test_a_flipped_byte_of_a_packed_file_is_not_unpacked(tmp_path):
    prompts = make_prompts(3, ("en",))
    store = fill(tmp_path / "a.acts", make_plan(prompts, "float16"), prompts)
    exchange.pack(store.path, tmp_path / "a.h5")
    good = (tmp_path / "a.h5").read_bytes()
    rng = np.random.default_rng(0)
    unseen = 0
    for trial in range(40):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (tmp_path / f"{trial}.h5").write_bytes(data)
        try:
            exchange.unpack(tmp_path / f"{trial}.h5", tmp_path / f"{trial}.acts")
        except BabelScopeError:
            assert not (tmp_path / f"{trial}.acts").exists()
            continue
        unseen += 1  # it hit the copy that is for reading, or room between objects; the files are right
        assert files_of(tmp_path / f"{trial}.acts") == files_of(store.path)
    assert unseen < 30


def test_memory_stays_far_below_the_size_of_the_store(tmp_path):
    prompts = make_prompts(32, ("en", "sw"))
    plan = make_plan(prompts, "bfloat16", block_items=4, sites=[Site("resid.post", i) for i in range(4)], answers="")
    with StoreWriter.create(tmp_path / "a.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending():
            items = np.array(plan.block(index))
            values = np.full((4, len(items), 32_768), index, "float32").astype(BFLOAT16)
            rows = {("resid.post", LAST): Rows(values)}
            writer.put(Block(language, index, items, rows, np.ones(len(items), np.int64), ("x",) * len(items)))
    store = ActivationStore.open(tmp_path / "a.acts")
    assert store.size > 16e6
    tracemalloc.start()
    pack(store, tmp_path / "a.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < store.size / 5  # a layer of a block, and two megabytes for hashing
    packed = ActivationStore.open(tmp_path / "a.h5")
    tracemalloc.start()
    unpack(packed, tmp_path / "b.acts")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < store.size / 2  # a block, three times over
    assert shards_of(tmp_path / "b.acts") == shards_of(tmp_path / "a.acts")


KILLED = """
import os, signal, sys
from babelscope.activations_store import packing, merging, unpacking
from babelscope.workflows import exchange
count, at = 0, int(sys.argv[3])
def deadly(name):
    real = getattr(os, name)
    def call(*arguments, **options):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), int(sys.argv[4]))
        return real(*arguments, **options)
    setattr(os, name, call)
for name in ("pwrite", "write", "fsync", "link", "posix_fallocate", "ftruncate", "rename"):
    deadly(name)
if sys.argv[1] == "pack":
    exchange.pack(sys.argv[2], sys.argv[2] + ".h5")
else:
    exchange.merge(sys.argv[2] + ".merged", [sys.argv[2]])
"""


@pytest.mark.parametrize(("verb", "step", "number"), [
    ("pack", 1, 9), ("pack", 5, 9), ("pack", 12, 15), ("merge", 3, 9), ("merge", 9, 15),
])  # fmt: skip
def test_a_killed_command_leaves_nothing_under_the_name(tmp_path, verb, step, number):
    prompts = make_prompts(3)
    store = fill(tmp_path / "a.acts", make_plan(prompts), prompts)
    command = [sys.executable, "-c", KILLED, verb, str(store.path), str(step), str(number)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    left = sorted(p.name for p in tmp_path.iterdir() if p.name != "a.acts")
    assert all(name.startswith(".") for name in left)
    assert number == 9 or not left  # what SIGKILL leaves is hidden, and the next call removes it
    if verb == "pack":
        assert exchange.pack(store.path, f"{store.path}.h5").progress == store.progress
    else:
        assert exchange.merge(f"{store.path}.merged", [store.path]).progress == store.progress
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_told_before_anything_is_copied(tmp_path):
    prompts = make_prompts(9)
    store = fill(tmp_path / "a.acts", make_plan(prompts), prompts)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(BabelScopeError, match="no room for"):
            exchange.pack(store.path, tmp_path / "a.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["a.acts"]


@given(st.lists(st.tuples(st.integers(0, 60), st.binary(min_size=1, max_size=20)), max_size=12))
def test_a_sparse_file_is_a_file(tmp_path_factory, writes):
    path = tmp_path_factory.mktemp("sparse") / "file"
    sparse = SparseFile()
    with path.open("wb+") as real:
        for at, data in writes:
            for file in (real, sparse):
                file.seek(at)
                file.write(data)
        real.seek(0)
        want = real.read()
    read = bytearray(len(want))
    sparse.seek(0)
    assert sparse.readinto(memoryview(read)) == len(want)
    assert bytes(read) == want
    handle = os.open(path.with_name("copy"), os.O_RDWR | os.O_CREAT)
    sparse.write_to(handle)
    os.close(handle)
    assert path.with_name("copy").read_bytes() == want
