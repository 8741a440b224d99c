"""Stores that are narrower than what was captured go through every exchange: each block has its own scale."""

import json
import pickle
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.encoding import encode
from babelscope.errors import BabelScopeError
from babelscope.workflows import exchange
from tests.golden.test_golden import STORES, read_by_us
from tests.store.stores import ALL, LAST, make_block, make_plan, make_prompts, shards_of

FAILED = {"sw": (2,)}


def captured(plan, language, index):
    """A block in which a row does not fit float16 and another is not finite; each block 100 times the one before."""
    wide = replace(plan, dtype="float32", on_overflow="stop")
    block = make_block(wide, language, index, FAILED.get(language, ()))
    for rows in block.rows.values():
        rows.values[...] *= 100**index
    block.rows["resid.post", LAST].values[1, -1, 3] = 1e6 * (index + 1)
    if index:
        block.rows["embed", LAST].values[0, 0, 1] = np.nan
    return block


@pytest.fixture(params=["int8", "float16"])
def store(request, tmp_path):
    prompts = make_prompts(6)
    plan = replace(
        make_plan(prompts, "float32", (LAST, ALL), 3),
        dtype=request.param,
        on_overflow="clip" if request.param == "float16" else "stop",
    )
    parts = []
    for device in ("one", "two"):  # a block of each language on either machine
        with StoreWriter.create(tmp_path / device, plan, prompts, {"device": device, "versions": {"v": "ü"}}) as writer:
            for language in plan.languages:
                writer.put(captured(plan, language, len(parts)))
        parts.append(tmp_path / device)
    return exchange.merge(tmp_path / "a.acts", parts)


def wanted(plan, site, layer, language, index, position):
    """The rows of a block as they have to be read, by a loop over its units."""
    rows = captured(plan, language, index).rows[site, position].values[layer].astype(np.float64)
    if plan.dtype == "float16":
        return np.clip(rows, -65504, 65504).astype(np.float16)
    out = np.empty(rows.shape)
    for unit in np.ndindex(rows.shape[1:]):
        column = rows[:, *unit]
        scale = float(np.float32(np.nanmax(np.abs(column))) / np.float32(127))
        out[:, *unit] = np.rint(column / scale) * scale
    return out


def check_values(found, plan, site, layer, language, position, rows):
    want = np.concatenate([wanted(plan, site, layer, language, index, position) for index in range(2)])
    assert len(found) == len(want) == rows
    if plan.dtype == "float16":
        np.testing.assert_array_equal(found, want)
    else:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, want, rtol=1e-5)


def test_merged_and_unpacked_files_are_the_shards_byte_by_byte(store, tmp_path):
    for part in (tmp_path / "one", tmp_path / "two"):
        for name, data in shards_of(part).items():
            assert (store.path / name).read_bytes() == data
    exchange.pack(store.path, tmp_path / "a.h5")
    exchange.unpack(tmp_path / "a.h5", tmp_path / "b.acts")
    assert shards_of(tmp_path / "b.acts") == shards_of(store.path)


def test_rows_of_a_packed_file_have_the_scale_of_their_own_block(store, tmp_path):
    packed = exchange.pack(store.path, tmp_path / "a.h5")
    for opened in (store, packed):
        for language, n in (("en", 6), ("sw", 5)):
            for site, layer, name in (("resid.post", 1, "resid.post@2"), ("attn.heads", 0, "attn.heads@1")):
                last = opened.select(name, languages=language, position="last").numpy()[0]
                check_values(last, store.plan, site, layer, language, LAST, n)
                rows = np.concatenate(opened.select(name, languages=language, position="all").ragged()[0])
                check_values(rows, store.plan, site, layer, language, ALL, len(rows))
    assert pickle.dumps(packed)  # so it can go to a worker that is not forked
    pd.testing.assert_frame_equal(packed.marked, store.marked)
    assert {"non-finite"} <= set(store.marked["status"])
    assert ("clipped" in set(store.marked["status"])) == (store.plan.dtype == "float16")
    for items in (["item/5", "item/0"], ["item/3"], ["item/1", "item/4", "item/3"], None):  # in any order, over blocks
        for align in ("inner", "outer"):
            have, want = (s.select("resid.post", items=items, position="last", align=align) for s in (packed, store))
            assert have.items == want.items
            np.testing.assert_array_equal(have.numpy(), want.numpy())
            pd.testing.assert_frame_equal(have.dataframe(), want.dataframe())
    with pytest.raises(BabelScopeError, match="cannot show that an item is missing"):
        packed.select("embed", position="last", align="outer").stored(store.plan.sites[-1], "en")


def test_a_packed_file_says_what_computed_each_block(store, tmp_path):
    exchange.pack(store.path, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        blocks = file["lang/sw/blocks"]
        assert list(blocks["block"]) == [0, 1]
        assert list(blocks["device"]) == [b"one", b"two"]
        assert [json.loads(text) for text in blocks["versions"]] == [{"v": "ü"}] * 2
        assert blocks["device"].dims[0][0] == blocks["block"]
        assert bytes(file["lang/sw/rows/status"].attrs["flag_meanings"]) == b"ok clipped non-finite"
        group = file["lang/sw/resid.post.last"]
        if store.plan.dtype == "int8":
            assert [dim[0].name.rpartition("/")[2] for dim in group["scale"].dims] == ["block", "layer", "dim"]
            for index in range(2):
                values = captured(store.plan, "sw", index).rows["resid.post", LAST].values
                np.testing.assert_array_equal(group["scale"][index], encode(values, "int8").scale)


@pytest.mark.parametrize("packed", [False, True])
def test_an_export_is_what_the_folder_gives(store, tmp_path, packed):
    source = exchange.pack(store.path, tmp_path / "a.h5").path if packed else store.path
    told = str(exchange.export(source, tmp_path / "e", format="numpy", position="last", dry_run=True))
    assert ("int8, decoded to float32" in told) == (store.plan.dtype == "int8")
    for position in ("last", "all"):
        folder = exchange.export(source, tmp_path / position, format="numpy", position=position)
        manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
        assert (manifest["stored_dtype"], manifest["lossy"]) == (store.plan.dtype, True)
        for array in manifest["arrays"]:
            if "coordinate" in array:
                continue
            site = array["site"] if array["layer"] is None else f"{array['site']}@{array['layer']}"
            part = store.select(site, items=manifest["items"], languages=array["language"], position=position)
            want = part.numpy()[0] if position == "last" else np.concatenate(part.ragged()[0])
            found = np.load(folder / array["file"])
            assert found.dtype.name == array["dtype"] == ("float32" if store.plan.dtype == "int8" else "float16")
            np.testing.assert_array_equal(found, want)


def test_an_export_of_int8_can_be_imported_and_integers_cannot(store, tmp_path):
    folder = exchange.export(store.path, tmp_path / "e", format="numpy", position="last", sites=["resid.post"])
    back = exchange.import_store(tmp_path / "back.acts", folder, kind="npy")
    items = list(back.items)
    want = store.select("resid.post", items=items, position="last").numpy()
    np.testing.assert_array_equal(back.select("resid.post").numpy(), want)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    for array in manifest["arrays"]:
        array["dtype"] = "int8"
        np.save(folder / array["file"], np.zeros(array["shape"], np.int8))
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BabelScopeError, match="int8") as caught:
        exchange.import_store(tmp_path / "no.acts", folder, kind="npy")
    assert "one dtype of float32, float16, bfloat16;" in caught.value.problem


def test_a_resume_after_damage_gives_a_store_that_packs_without_the_quarantine(store, tmp_path):
    shard = sorted(store.path.glob("shards/l-sw/*.h5"))[1]
    good = shards_of(store.path)
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:-1])
    provenance = {"device": "two", "versions": {"v": "ü"}}
    with StoreWriter.resume(store.path, store.plan, provenance=provenance) as writer:
        assert writer.pending() == [("sw", 1)]
        writer.put(captured(store.plan, "sw", 1))
    assert list(store.path.glob("quarantine/*.h5"))
    exchange.pack(store.path, tmp_path / "a.h5")
    exchange.unpack(tmp_path / "a.h5", tmp_path / "b.acts")
    assert shards_of(tmp_path / "b.acts") == good
    assert ActivationStore.open(store.path).size == ActivationStore.open(tmp_path / "b.acts").size


@pytest.mark.parametrize("path", STORES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_golden_store_reads_the_same_when_it_is_packed(path, tmp_path):
    packed = exchange.pack(path, tmp_path / "a.h5", partial=True)
    have, want = read_by_us(packed.path), read_by_us(path)
    assert have.keys() == want.keys()
    for key, values in want.items():
        np.testing.assert_array_equal(have[key], values)
    exchange.unpack(packed.path, tmp_path / "b.acts")
    assert shards_of(tmp_path / "b.acts") == shards_of(path)
