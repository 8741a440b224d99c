"""What is exported is read with the other library alone, and is what was captured, bit by bit."""

import json
import sys

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest
import torch
import zarr
from safetensors import safe_open

from babelscope.errors import BabelScopeError
from babelscope.schema import Site
from babelscope.workflows import exchange
from tests.store.stores import ALL, LAST, WORDS, fill, make_plan, make_prompts, value

FAILED = {"en": [3], "sw": [0]}


def plain(plan, site, layer, language, items, ragged=False):
    """The values as they were made, in the captured dtype."""
    dtype = {"bfloat16": ml_dtypes.bfloat16}.get(plan.dtype, plan.dtype)
    rows = [value(plan, language, site, layer, i, i % 3 + 1 if ragged else 1, ragged).astype(dtype) for i in items]
    return np.concatenate(rows)


@pytest.fixture(params=["float32", "float16", "bfloat16"])
def store(request, tmp_path):
    prompts = make_prompts(6)
    return fill(tmp_path / "a.acts", make_plan(prompts, request.param, (LAST, ALL, WORDS)), prompts, FAILED)


def bits(values):
    return np.ascontiguousarray(values).view(np.uint8).tobytes()


def check_manifest(manifest, store, position="last"):
    assert manifest["store"] == store.fingerprint
    assert manifest["items"] == [f"item/{i}" for i in (1, 2, 4, 5)]
    assert manifest["languages"] == ["en", "sw"]
    assert manifest["position"] == position
    assert manifest["units"] == "1"


def test_safetensors(store, tmp_path):
    exchange.export(store, tmp_path / "a.safetensors", format="safetensors", position="last")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        manifest = json.loads(file.metadata()["babelscope"])
        check_manifest(manifest, store)
        assert {a["name"] for a in manifest["arrays"]} == set(file.keys())
        for array in manifest["arrays"]:
            tensor = file.get_tensor(array["name"])
            want = plain(store.plan, array["site"], array["layer"], array["language"], (1, 2, 4, 5))
            assert str(tensor.dtype).removeprefix("torch.") == store.plan.dtype == array["dtype"]
            assert tuple(tensor.shape) == want.shape
            assert tensor.contiguous().view(torch.uint8).numpy().tobytes() == bits(want)


def test_safetensors_of_ragged_rows(store, tmp_path):
    exchange.export(store, tmp_path / "a", format="safetensors", position="all", sites=["resid.post@2"])
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.get_tensor("en/resid.post/row_splits").tolist() == [0, 2, 5, 7, 10]
        assert file.get_tensor("en/resid.post/token_id").shape == (10,)
        want = plain(store.plan, "resid.post", 2, "en", (1, 2, 4, 5), ragged=True)
        got = file.get_tensor("en/resid.post@2").contiguous().view(torch.uint8).numpy()
        assert got.tobytes() == bits(want)


@pytest.mark.parametrize("float32", [False, True])
def test_zarr(store, tmp_path, float32):
    exchange.export(store, tmp_path / "a.zarr", format="zarr", position="last", float32=float32, layers="2")
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    check_manifest(root.attrs, store)
    array = root["arrays/sw/resid.post@2"]
    assert "arrays/sw/resid.post@0" not in root
    want = plain(store.plan, "resid.post", 2, "sw", (1, 2, 4, 5))
    assert array.metadata.dimension_names == ("item", "dim")
    kept = store.plan.dtype == "bfloat16" and not float32
    assert ("kept_as" in array.attrs) == kept
    assert array.attrs["layer"] == 2
    got = array[...].view(ml_dtypes.bfloat16) if kept else array[...].astype(want.dtype)
    assert bits(got) == bits(want)


@pytest.mark.parametrize("float32", [False, True])
def test_numpy(store, tmp_path, float32):
    exchange.export(store, tmp_path / "a", format="numpy", position="words", languages=["sw", "en"], float32=float32)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    check_manifest({**manifest, "languages": sorted(manifest["languages"])}, store, "words")
    for array in (a for a in manifest["arrays"] if "coordinate" not in a):
        got = np.load(tmp_path / "a" / array["file"], allow_pickle=False)
        want = plain(store.plan, array["site"], array["layer"], array["language"], (1, 2, 4, 5), ragged=True)
        kept = store.plan.dtype == "bfloat16" and not float32
        assert ("kept_as" in array) == kept
        assert bits(got.view(ml_dtypes.bfloat16) if kept else got.astype(want.dtype)) == bits(want)


def test_arrow(store, tmp_path):
    exchange.export(store, tmp_path / "a.arrow", format="arrow", position="all", sites=["resid.post"])
    with pa.memory_map(str(tmp_path / "a.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
        check_manifest(json.loads(table.schema.metadata[b"babelscope"]), store, "all")
        for language in ("en", "sw"):
            for layer in (0, 2):
                rows = table.filter((pa.compute.field("language") == language) & (pa.compute.field("layer") == layer))
                want = plain(store.plan, "resid.post", layer, language, (1, 2, 4, 5), ragged=True)
                got = rows["values"].combine_chunks().flatten().to_numpy().reshape(-1, 6)
                assert bits(got.astype(want.dtype)) == bits(want)
                assert rows["item"].to_pylist() == [f"item/{i}" for i in (1, 1, 2, 2, 2, 4, 4, 5, 5, 5)]
                assert rows["token_id"].to_pylist() == [0, 1] * 5 or len(rows["special"]) == 10


def test_arrow_holds_rows_of_one_size(tmp_path):
    prompts = make_prompts(3)
    plan = make_plan(prompts, sites=(Site("resid.post", 0), Site("attn.pattern", 1)), n_keys=4)
    store = fill(tmp_path / "a.acts", plan, prompts)
    with pytest.raises(BabelScopeError, match=r"these sites have resid\.post 6, attn\.pattern 8"):
        exchange.export(store, tmp_path / "out", format="arrow")
    assert [p.name for p in tmp_path.iterdir()] == ["a.acts"]


def test_an_export_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    prompts = make_prompts(3)
    store = fill(tmp_path / "a.acts", make_plan(prompts), prompts)
    for options, problem in (
        ({"format": "parquet"}, "no exporter called 'parquet'"),
        ({"format": "numpy", "sites": ["mlp.act"]}, "no site in this store called 'mlp.act'"),
        ({"format": "numpy", "languages": ["de"]}, "no language in this store called 'de'"),
        ({"format": "numpy", "layers": "1", "sites": ["resid.post"]}, "no layer of resid.post"),
        ({"format": "arrow", "sites": ["resid.post", "attn.out"]}, "no site in this store"),
        ({"format": "numpy", "layers": "9"}, "layer '9' is not one of the 3 layers"),
    ):
        with pytest.raises(BabelScopeError, match=problem):
            exchange.export(store, tmp_path / "out", **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(BabelScopeError, match=r"thesis\.tex"):
        exchange.export(store, tmp_path / "mine", format="zarr", overwrite=True)
    exchange.export(store, tmp_path / "out", format="numpy")
    with pytest.raises(BabelScopeError, match="exists already"):
        exchange.export(store, tmp_path / "out", format="numpy")
    exchange.export(store, tmp_path / "out", format="numpy", overwrite=True)
    assert "0.0 MB" in str(exchange.export(store, tmp_path / "none", format="numpy", dry_run=True))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(BabelScopeError, match="zarr is not installed") as caught:
        exchange.export(store, tmp_path / "none", format="zarr")
    assert "babelscope[export]" in caught.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.acts", "mine", "out"]
