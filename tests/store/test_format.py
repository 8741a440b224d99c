"""The documented format, read by what the document says and by nothing of ours."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.errors import BabelScopeError
from babelscope.schema import Position, Prompt, PromptSet, Segment, Site
from tests.store.stores import ALL, DTYPES, LAST, WORDS, fill, make_block, make_plan, make_prompts, value

DOCUMENT = Path(__file__).parents[2] / "docs/store-format.md"


def shard(path, name="l-sw/000000002-000000004"):
    return h5py.File(path / f"shards/{name}.h5")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_program_of_the_document_reads_every_value(tmp_path, monkeypatch, dtype):
    prompts = make_prompts()
    plan = make_plan(prompts, dtype)
    fill(tmp_path / "run.acts", plan, prompts, failed={"en": (1,)})
    monkeypatch.chdir(tmp_path)
    program = re.search(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)[1]
    found = {}
    exec(program, found)
    assert found["items"] == ["item/0", "item/2", "item/3", "item/4"]
    want = [value(plan, "en", "resid.post", 2, i, 1, False)[0] for i in (0, 2, 3, 4)]
    # Through the stored type, so that equality is to the last bit.
    np.testing.assert_array_equal(found["values"], np.array(want).astype(DTYPES[dtype]).astype(found["values"].dtype))


def test_the_hash_of_the_plan_is_what_the_document_says(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    record = json.loads((tmp_path / "s.acts/store.json").read_text("utf-8"))
    plan = record["plan"]
    del plan["model"]["source"], plan["model"]["adapter"]
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == record["plan_sha256"] == store.fingerprint


def test_the_tables_of_the_document_name_every_dataset_and_no_other(tmp_path):
    prompts = make_prompts()
    fill(
        tmp_path / "s.acts",
        make_plan(prompts, positions=(LAST, ALL, WORDS), answers="texts", spellings=True, continuation=3),
        prompts,
        failed={"sw": (2,)},
    )
    found = set()

    def note(name, thing):
        if isinstance(thing, h5py.Dataset):
            found.add(re.sub(r"(resid\.post|attn\.heads|embed)\.(last|all|words)/", "SITE.POSITION/", name))
            raw = thing.id
            stored = np.empty(thing.shape, raw.dtype)
            raw.read(h5py.h5s.ALL, h5py.h5s.ALL, stored) if stored.size else None
            assert thing.attrs["sha256"].decode() == hashlib.sha256(stored.tobytes()).hexdigest()
            assert thing.chunks is None

    eight = replace(make_plan(prompts), dtype="int8")
    with StoreWriter.create(tmp_path / "int8.acts", eight, prompts, {}) as writer:
        writer.put(make_block(make_plan(prompts), "en", 0))
    for path in tmp_path.rglob("*.h5"):
        with h5py.File(path) as file:
            file.visititems(note)
    shards_and_items = DOCUMENT.read_text("utf-8").split("\n## Packed files\n")[0]
    table = "\n".join(line.split("|")[1] for line in shards_and_items.splitlines() if line.startswith("| `"))
    named = set(re.findall(r"`([^`]+)`", table)) - set(json.loads((tmp_path / "s.acts/store.json").read_text()))
    # Coordinates of axes, described in the text.
    scales = {"answers/item", "answers/option", "answers/spelling"} | {
        f"SITE.POSITION/{n}" for n in ("item", "token", "word", "row_splits", "head", "dim")
    }
    assert found - scales == named


def test_tokens_answers_and_failures_are_where_the_document_says(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts, positions=(LAST, ALL))
    fill(tmp_path / "s.acts", plan, prompts, failed={"sw": (2,)})
    with shard(tmp_path / "s.acts") as file:
        assert file.attrs["schema"] == b"babelscope/1.0"
        assert (file.attrs["language"], file.attrs["block"], file.attrs["item_from"]) == (b"sw", 1, 2)
        assert list(file["rows/item"]) == [3]
        assert file["rows/last_token"].asstr()[0] == "ü"
        assert (list(file["failed/item"]), list(file["failed/reason"].asstr())) == ([2], ["too long in sw"])
        np.testing.assert_array_equal(file["answers/scores"], [[-0.5, -1.0]])
        tokens = file["attn.heads.all"]
        assert [tokens["value"].dims[i][0].name.split("/")[-1] for i in range(4)] == ["layer", "token", "head", "dim"]
        want = value(plan, "sw", "attn.heads", 1, 3, 1, True).astype(np.float32)
        np.testing.assert_array_equal(tokens["value"][0, tokens["row_splits"][0] : tokens["row_splits"][1]], want)
        assert list(file["embed.last/layer"]) == [-1]


def test_prompts_can_be_rebuilt_from_the_packed_records(tmp_path):
    prompts = PromptSet("made", (
        Prompt("a/../b\n", "en", "one\0 two", (Segment("cue", 0, 3, "en"),), ("A",), ("x",), 0, "x", {"ok": True}),
        Prompt("ß" * 300, "zh", "三 <b>", covariates={"share": 0.1}),
    ), {"seed": 1})  # fmt: skip
    store = ActivationStore.open(StoreWriter.create(tmp_path / "s.acts", make_plan(prompts), prompts, {}).path)
    assert store.prompts == prompts
    with h5py.File(tmp_path / "s.acts/items.h5") as file:
        packed, splits = bytes(file["prompts/record"][()]), file["prompts/record_splits"]
        assert json.loads(packed[splits[1] : splits[2]])["text"] == "三 <b>"
        assert list(file["prompts/language"].asstr()) == ["en", "zh"]
        assert file["prompts/text_sha256"].asstr()[1] == hashlib.sha256("三 <b>".encode()).hexdigest()
        assert list(file["item"].asstr()) == list(prompts.items)


@pytest.mark.parametrize("dtype", DTYPES)
def test_xarray_opens_a_group_with_named_axes_and_the_same_numbers(tmp_path, dtype):
    pytest.importorskip("h5netcdf", reason="xarray reads HDF5 files through h5netcdf")
    prompts = make_prompts()
    plan = make_plan(prompts, dtype, positions=(LAST, ALL))
    store = fill(tmp_path / "s.acts", plan, prompts)
    path = tmp_path / "s.acts/shards/l-sw/000000002-000000004.h5"
    with xarray.open_dataset(path, group="attn.heads.last", engine="h5netcdf") as data:
        assert data["value"].dims == ("layer", "item", "head", "dim")
        ours = store.select("attn.heads@1", position="last", languages="sw", items=["item/2", "item/3"]).numpy()[0]
        np.testing.assert_array_equal(data["value"].sel(layer=1).values.astype(ours.dtype), ours)
    for group in ("rows", "answers", "failed", "attn.heads.all"):
        with xarray.open_dataset(path, group=group, engine="h5netcdf") as data:
            assert data.sizes


@pytest.mark.parametrize("segment", ["question", "../../etc", "a/b", "\0", "+2F", "Frage ü", "."])
def test_a_segment_of_any_name_has_one_group_of_its_own(tmp_path, segment):
    prompts = make_prompts(2, ("en",))
    positions = (Position("segment", segment), Position("segment", "/"), LAST)
    store = fill(tmp_path / "s.acts", make_plan(prompts, positions=positions), prompts)
    with h5py.File(tmp_path / "s.acts/shards/l-en/000000000-000000002.h5") as file:
        assert len(file) == 3 + 9  # rows, answers, failed; three sites at three positions
        assert all(re.fullmatch(r"[a-z][A-Za-z0-9._+-]*", name) for name in file)
    assert store.select("embed", position=f"segment:{segment}").numpy().shape == (1, 2, 6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_shard_is_a_function_of_its_block_and_bears_no_time(tmp_path, dtype):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts, dtype)
    block = make_block(plan, "en", 0)
    # Laws are observed once per run, so a resumed run observes them on another block.
    block.law_errors.update(residual=1e-6)
    with StoreWriter.create(tmp_path / "a.acts", plan, prompts, {}) as writer:
        writer.put(block)
    fill(tmp_path / "b.acts", plan, prompts)
    name = "shards/l-en/000000000-000000002.h5"
    assert (tmp_path / "a.acts" / name).read_bytes() == (tmp_path / "b.acts" / name).read_bytes()
    with h5py.File(tmp_path / "a.acts" / name) as file:
        stamps = []
        file.visititems(lambda _, thing: stamps.append(h5py.h5o.get_info(thing.id).mtime))
        assert set(stamps) == {0}
    laws = [json.loads(p.read_text()) for p in (tmp_path / "a.acts/runs").glob("*.laws.*")]
    assert [record["law_errors"] for record in laws] == [{"residual": 1e-6}]


ATTENTION = {"sites": (Site("attn.mass", 1), Site("attn.pattern", 1)), "n_keys": 4, "segments": ("cue", "fråga")}


def test_the_axis_of_attention_mass_is_named_in_the_file_and_by_the_reader(tmp_path):
    prompts = make_prompts(2, ("en",))
    store = fill(tmp_path / "s.acts", make_plan(prompts, **ATTENTION), prompts)
    names = ("entropy_nats", "first_token", "mean_distance", "segment:cue", "segment:fråga")
    assert store.summaries == names
    path = tmp_path / "s.acts/shards/l-en/000000000-000000002.h5"
    with h5py.File(path) as file:
        value = file["attn.mass.last/value"]
        assert [d.label or d[0].name.rpartition("/")[2] for d in value.dims] == ["layer", "item", "head", "summary"]
        assert tuple(file["attn.mass.last/summary"].asstr()) == names
        assert file["attn.pattern.last/value"].shape == (1, 2, 2, 4)
    array = store.select("attn.mass@1").xarray()
    assert array.dims == ("language", "item", "head", "summary")
    np.testing.assert_array_equal(array.sel(summary="segment:cue").values, store.select("attn.mass@1").numpy()[..., 3])
    pytest.importorskip("h5netcdf", reason="xarray reads HDF5 files through h5netcdf")
    with xarray.open_dataset(path, group="attn.mass.last", engine="h5netcdf") as data:
        assert data["value"].dims == ("layer", "item", "head", "summary")


@pytest.mark.parametrize("change", [{"n_keys": 5}, {"segments": ("cue",)}])
def test_rows_of_another_number_of_keys_or_summaries_are_refused(tmp_path, change):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts, **ATTENTION | change)
    with pytest.raises(BabelScopeError, match="has shape"):
        fill(tmp_path / "s.acts", plan, prompts)
