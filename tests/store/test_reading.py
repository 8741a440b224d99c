"""Selections, alignments, other libraries, other processes and threads, and disks without locks."""

import errno
import multiprocessing
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store import hdf5 as hdf5_module
from babelscope.activations_store import selection as selection_module
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet
from tests.store.stores import ALL, DTYPES, LAST, fill, make_block, make_plan, make_prompts, value

LOST = {"en": (3,), "sw": (1, 4), "zh": ()}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Six items in three languages, some lost in one of them; `rule` and `level` vary by item."""
    rules = ("add", "order", "add")
    prompts = PromptSet("made", tuple(
        Prompt(f"item/{i}", g, f"text {i} {g}", gold=i % 2, covariates={"rule": rules[i % 3], "level": i})
        for g in ("en", "sw", "zh") for i in range(6)
    ))  # fmt: skip
    plan = make_plan(prompts, positions=(LAST, ALL), answers="")
    return fill(tmp_path_factory.mktemp("reading") / "s.acts", plan, prompts, failed=LOST)


def row(store, language, site, layer, item):
    return value(store.plan, language, site, layer, item, 1, False)[0].astype(np.float32)


@pytest.mark.parametrize(
    ("where", "items"),
    [
        ({"rule": "add"}, (0, 2, 3, 5)), ({"rule": ["add", "order"]}, range(6)), ({"level": {4, 1}}, (1, 4)),
        ({"rule": "add", "gold": 1}, (3, 5)), ({}, range(6)),
    ],
)  # fmt: skip
def test_items_are_selected_by_their_covariates(store, where, items):
    got = store.select("embed", where=where, languages="zh", position="last")
    assert got.items == tuple(f"item/{i}" for i in items)
    np.testing.assert_array_equal(got.numpy()[0], [row(store, "zh", "embed", None, i) for i in items])


def test_covariates_and_items_are_both_obeyed_in_the_order_of_the_items(store):
    got = store.select(
        "embed", where={"rule": "add"}, items=["item/5", "item/1", "item/0"], languages="zh", position="last"
    )
    assert got.items == ("item/5", "item/0")


def test_a_covariate_or_value_that_is_not_there_is_told(store):
    with pytest.raises(BabelScopeError, match="covariate in this store called 'rul'") as error:
        store.select("embed", where={"rul": "add"}, position="last")
    assert "rule" in error.value.hint
    with pytest.raises(BabelScopeError, match=r"no item has {'rule': 'subtraction'}"):
        store.select("embed", where={"rule": "subtraction"}, position="last")
    with pytest.raises(BabelScopeError, match="way to align called 'left'"):
        store.select("embed", align="left", position="last")


@given(data=st.data())
def test_an_outer_alignment_has_every_row_there_is_and_a_mask_for_the_rest(store, data):
    languages = data.draw(st.lists(st.sampled_from(store.languages), min_size=1, unique=True))
    items = data.draw(st.lists(st.integers(0, 5), min_size=1, unique=True))
    layers = data.draw(st.sampled_from([(0,), (2, 0)]))
    selection = store.select([f"resid.post@{k}" for k in layers], languages=languages, position="last",
                             items=[f"item/{i}" for i in items], align="outer")  # fmt: skip
    kept = [i for i in items if any(i not in LOST[g] for g in languages)]
    assert selection.items == tuple(f"item/{i}" for i in kept)
    if not kept:
        with pytest.raises(BabelScopeError, match="no item"):
            selection.numpy()
        return
    np.testing.assert_array_equal(selection.present, [[i not in LOST[g] for i in kept] for g in languages])
    values = selection.numpy().reshape(len(layers), len(languages), len(kept), 6)
    table = selection.dataframe()
    array = selection.xarray()
    for s, layer in enumerate(layers):
        for a, language in enumerate(languages):
            for b, i in enumerate(kept):
                there = i not in LOST[language]
                assert bool(values.mask[s, a, b].any()) is not there
                assert bool(values.mask[s, a, b].all()) is not there
                assert ((layer, language, f"item/{i}") in table.index) is there
                at = {"language": language, "item": f"item/{i}"} | ({"layer": layer} if len(layers) > 1 else {})
                found = array.sel(at)
                assert bool(found["present"]) is there
                if there:
                    want = row(store, language, "resid.post", layer, i)
                    for got in (values.data[s, a, b], table.loc[layer, language, f"item/{i}"], found.values):
                        np.testing.assert_array_equal(got, want)
                else:
                    assert np.isnan(values.data[s, a, b]).all()
                    assert np.isnan(found.values).all()


def test_what_cannot_bear_a_mask_refuses_an_outer_alignment(store):
    with pytest.raises(BabelScopeError, match=r"torch\(\) cannot show"):
        store.select("embed", position="last", align="outer").torch()
    tokens = store.select("attn.heads@1", position="all", align="outer")
    with pytest.raises(BabelScopeError, match=r"ragged\(\) cannot show"):
        tokens.ragged()
    with pytest.raises(BabelScopeError, match=r"coordinate\(\) cannot show"):
        tokens.coordinate("token_id")


def shard_of(path):
    return next(path.glob("shards/l-sw/000000002-*.h5"))


@pytest.mark.parametrize("dtype", [*DTYPES, "int8"])
def test_every_library_gives_equal_numbers(tmp_path, dtype):
    prompts = make_prompts()
    plan = replace(make_plan(prompts, "float32" if dtype == "int8" else dtype), dtype=dtype)
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending():
            writer.put(make_block(replace(plan, dtype="float32" if dtype == "int8" else dtype), language, index))
    selection = ActivationStore.open(tmp_path / "s.acts").select(
        "resid.post", languages="sw", items=["item/2", "item/3"]
    )
    want = selection.numpy()
    np.testing.assert_array_equal(selection.torch().numpy(), want)
    np.testing.assert_array_equal(selection.xarray().values, want)
    np.testing.assert_array_equal(selection.dataframe().to_numpy(), want.reshape(-1, want.shape[-1]))

    def numbers(stored, scale):
        return stored.astype(want.dtype) * (1 if scale is None else np.asarray(scale)[:, None])

    path, group = shard_of(tmp_path / "s.acts"), "resid.post.last"
    with h5py.File(path) as file:
        np.testing.assert_array_equal(numbers(file[group]["value"][()], file[group].get("scale")), want[:, 0])
    for engine in ("h5netcdf", "netcdf4"):
        if engine == "netcdf4" and dtype == "float16":
            continue  # this engine ends the process on float16
        pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
        with xarray.open_dataset(path, group=group, engine=engine) as data:
            assert data["value"].dims == ("layer", "item", "dim")
            assert list(data["item"]) == [2, 3]
            np.testing.assert_array_equal(numbers(data["value"].values, data.get("scale")), want[:, 0])


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be told what will be read")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_disk_is_asked_for_the_rows_of_every_shard_before_they_are_read_and_for_no_others(
    tmp_path, monkeypatch, dtype
):
    prompts = make_prompts(24)
    store = fill(tmp_path / "s.acts", make_plan(prompts, dtype), prompts, failed={"sw": (0,)})
    wanted = (*range(1, 20), 22)
    extents = []
    for path in sorted(store.path.rglob("shards/*/*.h5")):
        with h5py.File(path) as file:
            value = file["resid.post.last/value"]
            rows = np.flatnonzero(np.isin(file["rows/item"], wanted))
            size = value.id.get_storage_size() // value.size * value.shape[2]  # of a row
            begin = value.id.get_offset() + value.shape[1] * size  # of the second layer
            if rows.size:
                extents.append((path, begin + rows[0] * size, (rows[-1] - rows[0] + 1) * size))
    asked, known = [], []
    advise, read = os.posix_fadvise, selection_module.read_places

    def note(handle, at, length, advice):
        if at:  # else it is the head of a file
            asked.append((Path(os.readlink(f"/proc/self/fd/{handle}")), at, length))
        advise(handle, at, length, advice)

    def count(*arguments):
        known.append(len(set(asked)))
        read(*arguments)

    monkeypatch.setattr(os, "posix_fadvise", note)
    monkeypatch.setattr(selection_module, "read_places", count)
    store.select("resid.post@2", items=[f"item/{i}" for i in wanted]).numpy()
    assert sorted(set(asked)) == extents
    assert known == [min(k + 9, len(extents)) for k in range(len(extents))]


@pytest.mark.parametrize("dtype", DTYPES)
def test_h5dump_prints_the_numbers(tmp_path, dtype):
    if shutil.which("h5dump") is None:
        pytest.skip("h5dump is not installed")
    prompts = make_prompts()
    fill(tmp_path / "s.acts", make_plan(prompts, dtype), prompts)
    path = shard_of(tmp_path / "s.acts")
    command = ["h5dump", "-d", "/resid.post.last/value", "-y", "-w", "100000", "-m", "%.9g", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    data = text[text.index("DATA {") + 6 : text.index("}", text.index("DATA {"))]
    with h5py.File(path) as file:
        want = file["resid.post.last/value"][()]
    printed = np.array([float(x) for x in data.replace("\n", " ").split(",")], want.dtype)
    np.testing.assert_array_equal(printed.reshape(want.shape), want)


def test_pandas_reads_the_rows_of_a_shard(store):
    pytest.importorskip("h5netcdf")
    path = store.path / "shards/l-en/000000000-000000002.h5"
    with xarray.open_dataset(path, group="rows", engine="h5netcdf") as data:
        table = data[["n_tokens", "status"]].to_dataframe()
    assert isinstance(table, pd.DataFrame)
    assert list(table["n_tokens"]) == [1, 2]


def read_one(path, item):
    return ActivationStore.open(path).select("resid.post@2", items=item, position="last", languages="zh").numpy()


def read_inherited(item):
    return INHERITED.select("resid.post@2", items=item, position="last", languages="zh").numpy()


INHERITED = None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_that_inherit_an_open_store_read_what_they_ask_for(store):
    global INHERITED
    INHERITED = ActivationStore.open(store.path)
    read_inherited("item/0")  # the parent has read before it forks
    items = [f"item/{i % 6}" for i in range(48)]
    with store.shard("zh", 0), multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(read_inherited, items)
    for item, got in zip(items, found, strict=True):
        np.testing.assert_array_equal(got[0, 0], row(store, "zh", "resid.post", 2, int(item[-1])))


def test_threads_share_a_store(store):
    opened = ActivationStore.open(store.path)
    items = [f"item/{i % 6}" for i in range(120)]
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda i: opened.select("resid.post@2", items=i, position="last", languages="zh").numpy(), items)
        )
    for item, got in zip(items, found, strict=True):
        np.testing.assert_array_equal(got[0, 0], row(store, "zh", "resid.post", 2, int(item[-1])))


def test_workers_of_a_data_loader_read_what_they_ask_for(store):
    torch = pytest.importorskip("torch")

    class Items(torch.utils.data.Dataset):
        def __init__(self):
            self.opened = ActivationStore.open(store.path)
            self.selection = self.opened.select("embed", position="last", languages="zh")
            self.selection.numpy()

        def __len__(self):
            return len(self.selection.items)

        def __getitem__(self, i):
            return self.opened.select("embed", position="last", languages="zh", items=f"item/{i}").torch()[0, 0]

    loader = torch.utils.data.DataLoader(Items(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    got = np.concatenate([batch.numpy() for batch in loader])
    np.testing.assert_array_equal(got, [row(store, "zh", "embed", None, i) for i in range(6)])


def opening(monkeypatch, number):
    """Let every open with locks fail with an error number, and note how files are opened."""
    calls, honest = [], h5py.File

    def file(path, mode="r", **options):
        calls.append(options)
        if "locking" not in options:
            raise OSError(number, os.strerror(number))
        return honest(path, mode, **options)

    monkeypatch.setattr(hdf5_module.h5py, "File", file)
    return calls


@pytest.mark.parametrize("number", [37, 38, 95, 524])
def test_a_disk_without_locks_is_read_without_them(store, monkeypatch, number):
    calls = opening(monkeypatch, number)
    assert ActivationStore.open(store.path).select("embed", position="last", languages="zh").numpy().shape == (1, 6, 6)
    assert calls[:2] == [{}, {"locking": False}]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.EAGAIN])
def test_another_error_of_the_disk_is_told_and_never_taken_for_damage(store, monkeypatch, number):
    calls = opening(monkeypatch, number)
    with pytest.raises(BabelScopeError, match="cannot be read") as caught:
        ActivationStore.open(store.path).select("embed", position="last").numpy()
    assert not isinstance(caught.value, hdf5_module.DamagedFileError)
    assert {"locking": False} not in calls
    before = sorted(store.path.rglob("*"))
    with pytest.raises(BabelScopeError):
        StoreWriter.resume(store.path, store.plan)
    assert sorted(store.path.rglob("*")) == before


def test_a_shard_that_is_held_with_or_without_locks_is_read(store):
    path = next(store.path.glob("shards/l-zh/000000000-*.h5"))
    for options in ({}, {"locking": False}, {"locking": "best-effort"}):
        with h5py.File(path, "r", **options):
            assert read_one(store.path, "item/0").shape == (1, 1, 6)


def test_rows_are_read_where_they_lie_in_any_order(store):
    """Side by side, with gaps, backward: the first is read in place, the others by way of the whole block."""
    for numbers in ((0, 1, 2, 3, 4, 5), (1, 2), (0, 2, 4), (5, 4, 3), (3,), (2, 5, 0)):
        got = store.select("resid.post", position="last", languages="zh", items=[f"item/{i}" for i in numbers]).numpy()
        want = [[row(store, "zh", "resid.post", layer, i) for i in numbers] for layer in (0, 2)]
        np.testing.assert_array_equal(got[:, 0], want)
