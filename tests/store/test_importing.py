"""What other tools have captured becomes a store, or is refused with file, field and what to do."""

import json
import os

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from babelscope.errors import BabelScopeError
from babelscope.workflows import analyze, exchange
from tests.store.stores import ALL, LAST, WORDS, fill, make_plan, make_prompts


@settings(max_examples=10)
@given(
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    position=st.sampled_from([LAST, ALL, WORDS]),
    failed=st.dictionaries(st.sampled_from(["en", "sw"]), st.sets(st.integers(0, 3))),
)
def test_what_numpy_was_given_comes_back(tmp_path_factory, dtype, position, failed):
    folder = tmp_path_factory.mktemp("numpy")
    prompts = make_prompts(6)
    store = fill(folder / "a.acts", make_plan(prompts, dtype, (position,)), prompts, failed)
    exchange.export(store, folder / "out", format="numpy")
    again = exchange.import_store(folder / "b.acts", folder / "out", kind="npy")
    assert again.provenance["derived_from"]["model_was_run_here"] is False
    assert again.plan.dtype == dtype
    assert again.sites == store.sites
    for name in store.sites:
        one, other = store.select(name), again.select(name)
        assert one.items == other.items
        assert one.sites == other.sites
        for site, language in ((s, g) for s in one.sites for g in store.languages):
            for have, want in zip(other.stored(site, language), one.stored(site, language), strict=True):
                assert (have is None and want is None) or have.tobytes() == want.tobytes()
        for coordinate in position.coordinates:
            have, want = (s.coordinate(coordinate) for s in (other, one))
            assert [[x.tolist() for x in rows] for rows in have] == [[x.tolist() for x in rows] for rows in want]


def write_npy(folder, rng, **changes):
    folder.mkdir()
    arrays = []
    base = rng.standard_normal((40, 8))
    for language in ("en", "sw"):
        for layer in (0, 1):
            name = f"{language}-{layer}.npy"
            np.save(folder / name, (base + rng.standard_normal((40, 8)) / 4).astype(np.float32))
            arrays.append({"file": name, "site": "resid.post", "layer": layer, "language": language})
    manifest = {
        "model": "someone/model", "n_layers": 4, "items": [f"q{i}" for i in range(40)], "arrays": arrays,
        "texts": {g: {f"q{i}": f"Question {i} ({g})" for i in range(40)} for g in ("en", "sw")},
        "covariates": {f"q{i}": {"task": "t"} for i in range(40)},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def test_an_imported_store_is_analyzed_as_its_packed_copy_is(tmp_path):
    source = write_npy(tmp_path / "npy", np.random.default_rng(0))
    store = exchange.import_store(tmp_path / "a.acts", source, kind="npy")
    assert store.prompts.prompts[0].text == "Question 0 (en)"
    assert list(store.covariates["task"].unique()) == ["t"]
    packed = exchange.pack(store.path, tmp_path / "a.h5")
    one, other = (analyze(s, "cs", sites=["resid.post"]) for s in (store, packed))
    assert len(one.results) > 0
    for have, want in zip(other.results, one.results, strict=True):
        pd.testing.assert_frame_equal(have.table, want.table, check_exact=True)
    assert one["cs"].table["gap"].gt(0).any()


def test_the_same_source_is_the_same_store_and_another_is_not(tmp_path):
    one = write_npy(tmp_path / "one", np.random.default_rng(0))
    other = write_npy(tmp_path / "other", np.random.default_rng(1))
    prints = [
        exchange.import_store(tmp_path / f"{i}.acts", source, kind="npy").fingerprint
        for i, source in enumerate((one, one, other))
    ]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(("change", "problem"), [
    ({"items": None}, "field 'items' is None, expected list"),
    ({"items": ["q0"]}, r"resid.post@0 in 'en' has shape \(40, 8\), expected .* with 1 rows"),
    ({"items": ["q0"] * 40}, "names an item twice"),
    ({"items": list(range(40))}, "no text"),
    ({"model": 3}, "field 'model' is 3, expected text"),
    ({"n_layers": 1}, "field 'n_layers' is 1, but there is a layer 1"),
    ({"position": "here"}, "no position called 'here'"),
    ({"position": "all"}, "needs the coordinate 'row_splits'"),
    ({"arrays": []}, "names no array"),
    ({"arrays": [1]}, r"arrays\[0\] is no object"),
    ({"arrays": [{"site": "resid.post"}]}, r"arrays\[0\]: field 'language' is missing, expected text"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "en", "file": "../x.npy"}]}, "expected a file in"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "en", "file": "no.npy"}]}, "expected a file in"),
    ({"arrays": [{"site": "resid.mid", "layer": 0, "language": "en", "file": "en-0.npy"}]}, "no site called"),
    ({"arrays": [{"site": "resid.post", "language": "en", "file": "en-0.npy"}]}, "needs one layer"),
    ({"arrays": [{"site": "attn.pattern", "layer": 0, "language": "en", "file": "en-0.npy"}]}, "cannot be imported"),
    ({"arrays": [{"site": "attn.heads", "layer": 0, "language": "en", "file": "en-0.npy"}]}, "row, head, dim"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "en", "file": "en-0.npy"}] * 2}, "twice"),
    ({"arrays": [{"site": "resid.post", "layer": n, "language": g, "file": "en-0.npy"} for n, g in
                 ((0, "en"), (1, "sw"))]}, "missing in sw"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "../e", "file": "en-0.npy"}], "texts": {}},
     "no language code"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "en", "file": "en-0.npy", "dtype": "float16"}]},
     "is float32, its manifest says 'float16'"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "en", "file": "wide.npy"}]}, "have one dtype"),
    ({"arrays": [{"site": "resid.post", "layer": 0, "language": "en", "file": "pickle.npy"}]}, "no .npy file"),
    ({"texts": {"en": {"q0": "a"}}}, "'texts' lacks items"),
    ({"texts": {"de": {}}}, "field 'texts' has 'de'"),
    ({"covariates": {"q0": 1}}, "field 'covariates'"),
])  # fmt: skip
def test_a_manifest_that_is_wrong_is_refused(tmp_path, change, problem):
    source = write_npy(tmp_path / "npy", np.random.default_rng(0), **change)
    np.save(source / "wide.npy", np.zeros((40, 8)))
    np.save(source / "pickle.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(BabelScopeError, match=problem) as caught:
        exchange.import_store(tmp_path / "a.acts", source, kind="npy")
    assert caught.value.hint
    assert os.listdir(tmp_path) == ["npy"]


def cache(rng, rows=4, tokens=3):
    return {
        "blocks.0.hook_resid_post": torch.tensor(rng.standard_normal((rows, tokens, 6))).to(torch.bfloat16),
        "blocks.1.hook_resid_post": torch.tensor(rng.standard_normal((rows, tokens, 6))).to(torch.bfloat16),
        "blocks.1.attn.hook_z": torch.tensor(rng.standard_normal((rows, tokens, 2, 3))).to(torch.bfloat16),
        "blocks.1.attn.hook_pattern": torch.zeros(rows, 2, tokens, tokens),
        "tokens": torch.arange(rows * tokens).reshape(rows, tokens),
    }


ROWS = {
    "model": "gpt2", "items": ["a", "b", "b", "a"], "languages": ["en", "en", "sw", "sw"], "lengths": [2, 3, 1, 3],
    "special_token_ids": [0, 3],
}  # fmt: skip


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("position", ["last", "all"])
def test_a_cache_of_transformer_lens(tmp_path, padding, position):
    tensors = cache(np.random.default_rng(0))
    save_file(tensors, tmp_path / "c.safetensors")
    (tmp_path / "c.json").write_text(json.dumps({**ROWS, "padding": padding, "position": position}))
    told = str(exchange.import_store(tmp_path / "a", tmp_path / "c.safetensors", kind="transformer-lens", dry_run=True))
    assert "left out  blocks.1.attn.hook_pattern" in told
    store = exchange.import_store(tmp_path / "a.acts", tmp_path / "c.safetensors", kind="transformer-lens")
    assert store.plan.dtype == "bfloat16"
    assert store.sites == ("attn.heads", "resid.post")
    for site, name in (("resid.post@1", "blocks.1.hook_resid_post"), ("attn.heads@1", "blocks.1.attn.hook_z")):
        selection = store.select(site, languages=["sw", "en"], items=["b", "a"])
        for language, rows in (("sw", (2, 3)), ("en", (1, 0))):
            n = [ROWS["lengths"][row] for row in rows]
            spans = [slice(0, k) if padding == "right" else slice(3 - k, 3) for k in n]
            spans = spans if position == "all" else [slice(s.stop - 1, s.stop) for s in spans]
            want = torch.cat([tensors[name][row, span] for row, span in zip(rows, spans, strict=True)])
            values, _ = selection.stored(selection.sites[0], language)
            assert values.tobytes() == want.contiguous().view(torch.uint8).numpy().tobytes()
    assert store.answers.set_index(["item", "language"])["n_tokens"].to_dict() == {
        ("a", "en"): 2, ("b", "en"): 3, ("b", "sw"): 1, ("a", "sw"): 3,
    }  # fmt: skip
    if position == "all":
        ids = store.select("resid.post@0", items=["a"]).coordinate("token_id")
        assert [len(x[0]) for x in ids] == [2, 3]
        special = store.select("resid.post@0", items=["a"]).coordinate("special")[0][0].tolist()
        assert special == ([1, 0] if padding == "right" else [0, 0])


def test_a_cache_of_one_token_and_an_item_that_a_language_lacks(tmp_path):
    tensors = {"blocks.0.hook_out": torch.arange(12.0).reshape(3, 4)}
    save_file(tensors, tmp_path / "c.safetensors")
    rows = {"model": "m", "items": ["a", "b", "a"], "languages": ["en", "en", "sw"]}
    (tmp_path / "c.json").write_text(json.dumps(rows))
    store = exchange.import_store(tmp_path / "a.acts", tmp_path / "c.safetensors", kind="transformer-lens")
    assert store.select("resid.post").numpy().tolist() == [[[0, 1, 2, 3]], [[8, 9, 10, 11]]]
    assert store.failed.to_numpy().tolist() == [["b", "sw", "not in the imported source"]]
    with pytest.raises(BabelScopeError, match="without prompt texts"):
        _ = store.prompts


@pytest.mark.parametrize(("change", "problem"), [
    ({"items": ["a"]}, "field 'items' has 1 entries, expected 4"),
    ({"languages": ["en"] * 4}, "rows 1 and 2 are both item 'b' in 'en'"),
    ({"lengths": [9, 1, 1, 1]}, "field 'lengths' needs 4 whole numbers from 1 to 3"),
    ({"padding": "middle"}, "field 'padding' is 'middle'"),
    ({"position": "mean"}, "expected last or all"),
    ({"model": None}, "field 'model'"),
])  # fmt: skip
def test_rows_that_do_not_fit_are_refused(tmp_path, change, problem):
    save_file(cache(np.random.default_rng(0)), tmp_path / "c.safetensors")
    (tmp_path / "c.json").write_text(json.dumps({**ROWS, **change}))
    with pytest.raises(BabelScopeError, match=problem):
        exchange.import_store(tmp_path / "a.acts", tmp_path / "c.safetensors", kind="transformer-lens")


@pytest.mark.parametrize("data", [
    b"", b"\xff" * 8, b"\x02" + bytes(7) + b"[]", b"\x80\x04\x95" + b"x" * 20,
    (60).to_bytes(8, "little") + b'{"blocks.0.hook_out":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'[:60],
    (71).to_bytes(8, "little") + b'{"blocks.0.hook_out":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
    (70).to_bytes(8, "little") + b'{"blocks.0.hook_out":{"dtype":"Q9","shape":[4],"data_offsets":[0,16]}}' + bytes(16),
])  # fmt: skip
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, data):
    (tmp_path / "c.safetensors").write_bytes(data)
    (tmp_path / "c.json").write_text(json.dumps(ROWS))
    with pytest.raises(BabelScopeError, match="no whole safetensors file"):
        exchange.import_store(tmp_path / "a.acts", tmp_path / "c.safetensors", kind="transformer-lens")


def cached_by_saelens(folder, values, tokens):
    from datasets import Array2D, Dataset, Features, Sequence, Value

    name = "blocks.2.hook_mlp_out"
    features = Features({
        name: Array2D(shape=values.shape[1:], dtype="float32"), "token_ids": Sequence(Value("int32"), length=3),
    })  # fmt: skip
    Dataset.from_dict({name: list(values), "token_ids": tokens.tolist()}, features=features).save_to_disk(folder)


def test_a_cache_of_saelens(tmp_path):
    values = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    tokens = np.arange(12).reshape(4, 3)
    for shard in (0, 1):
        rows = slice(2 * shard, 2 * shard + 2)
        cached_by_saelens(tmp_path / "cache" / f"shard_{shard}", values[rows], tokens[rows])
    with pytest.raises(BabelScopeError, match=r"items.json: No such file"):
        exchange.import_store(tmp_path / "a.acts", tmp_path / "cache", kind="saelens")
    (tmp_path / "cache" / "items.json").write_text(json.dumps({**ROWS, "position": "all"}))
    store = exchange.import_store(tmp_path / "a.acts", tmp_path / "cache", kind="saelens")
    selection = store.select("mlp.out@2", languages="sw", items=["b", "a"])
    got = selection.ragged()[0]
    assert np.array_equal(got[0], values[2, :1])
    assert np.array_equal(got[1], values[3])
    assert [x.tolist() for x in selection.coordinate("token_id")[0]] == [[6], [9, 10, 11]]


def test_a_folder_that_saelens_did_not_write_is_refused(tmp_path):
    (tmp_path / "items.json").write_text(json.dumps(ROWS))
    with pytest.raises(BabelScopeError, match=r"holds no .arrow file"):
        exchange.import_store(tmp_path / "a.acts", tmp_path, kind="saelens")
    (tmp_path / "x.arrow").write_bytes(b"nothing")
    with pytest.raises(BabelScopeError, match="no Arrow stream"):
        exchange.import_store(tmp_path / "a.acts", tmp_path, kind="saelens")


def test_bits_of_bfloat16_come_from_uint16(tmp_path):
    folder = tmp_path / "npy"
    folder.mkdir()
    values = np.arange(6, dtype=np.float32).reshape(2, 3).astype(ml_dtypes.bfloat16)
    np.save(folder / "x.npy", values.view(np.uint16))
    array = {"file": "x.npy", "site": "embed", "language": "en", "dtype": "bfloat16"}
    (folder / "manifest.json").write_text(json.dumps({"model": "m", "items": ["a", "b"], "arrays": [array]}))
    store = exchange.import_store(tmp_path / "a.acts", folder, kind="npy")
    assert store.select("embed").numpy()[0].tolist() == [[0, 1, 2], [3, 4, 5]]
