import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.shard import check_digest
from babelscope.errors import BabelScopeError
from tests.store.stores import ALL, DTYPES, LAST, make_block, make_plan, make_prompts, value


def fill(path, plan, prompts, failed=None, **options):
    with StoreWriter.create(path, plan, prompts, {"why": "test"}, **options) as writer:
        for language, index in writer.pending():
            writer.put(make_block(plan, language, index, (failed or {}).get(language, ())))
    return ActivationStore.open(path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_value_comes_back_to_the_last_bit(tmp_path, dtype):
    prompts = make_prompts()
    plan = make_plan(prompts, dtype)
    store = fill(tmp_path / "s.acts", plan, prompts)
    for site, layer in (("resid.post", 0), ("resid.post", 2), ("attn.heads", 1), ("embed", None)):
        name = site if layer is None else f"{site}@{layer}"
        got = store.select(name).numpy()
        for a, language in enumerate(plan.languages):
            for i in range(len(plan.items)):
                want = value(plan, language, site, layer, i, 1, False)[0].astype(DTYPES[dtype])
                np.testing.assert_array_equal(got[a, i], want.astype(got.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_h5py_reads_the_same_numbers(tmp_path, dtype):
    prompts = make_prompts()
    plan = make_plan(prompts, dtype)
    store = fill(tmp_path / "s.acts", plan, prompts)
    ours = store.select("resid.post@2").numpy()[1, 2:4].astype("f4")
    with h5py.File(tmp_path / "s.acts/shards/l-sw/000000002-000000004.h5") as file:
        dataset = file["resid.post.last/value"]
        assert dataset.shape == (2, 2, 6)
        assert [d.label for d in dataset.dims] == ["layer", "item", "dim"]
        np.testing.assert_array_equal(file["resid.post.last/layer"], [0, 2])
        np.testing.assert_array_equal(dataset[1].astype("f4"), ours)


def test_bfloat16_is_stored_in_two_bytes_and_special_values_survive(tmp_path):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts, "bfloat16")
    block = make_block(plan, "en", 0)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40], np.float32).astype(ml_dtypes.bfloat16)
    block.rows["resid.post", LAST].values[0, 0] = special
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        writer.put(block)
    store = ActivationStore.open(tmp_path / "s.acts")
    np.testing.assert_array_equal(store.select("resid.post@0").numpy()[0, 0], special.astype(np.float32))
    with h5py.File(next((tmp_path / "s.acts").rglob("0*.h5"))) as file:
        assert file["resid.post.last/value"].id.get_type().get_size() == 2
        assert file["resid.post.last/nonfinite"][0, 0] == 3


def test_tokens_come_back_item_by_item(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts, positions=(LAST, ALL))
    store = fill(tmp_path / "s.acts", plan, prompts)
    got = store.select("attn.heads@1", position="all").ragged()
    for a, language in enumerate(plan.languages):
        for i in range(len(plan.items)):
            want = value(plan, language, "attn.heads", 1, i, i % 3 + 1, True).astype(np.float32)
            np.testing.assert_array_equal(got[a][i], want)
    with pytest.raises(BabelScopeError, match="many rows per item"):
        store.select("attn.heads@1", position="all").numpy()
    with pytest.raises(BabelScopeError, match="several positions"):
        store.select("attn.heads@1")


def test_items_missing_in_a_language_are_dropped_by_name_and_never_filled(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    store = fill(tmp_path / "s.acts", plan, prompts, failed={"sw": (1, 4)})
    selection = store.select("resid.post@0")
    assert selection.items == ("item/0", "item/2", "item/3")
    assert selection.numpy().shape == (2, 3, 6)
    assert set(selection.dropped["item"]) == {"item/1", "item/4"}
    assert "too long in sw" in set(selection.dropped["reason"])
    np.testing.assert_array_equal(
        selection.numpy()[1, 2], value(plan, "sw", "resid.post", 0, 3, 1, False)[0].astype(np.float32)
    )
    assert store.select("resid.post@0", languages=["en"]).numpy().shape == (1, 5, 6)


@given(data=st.data())
def test_any_selection_equals_a_dictionary_of_rows(tmp_path_factory, data):
    prompts = make_prompts(5, ("en", "sw", "zh"))
    plan = make_plan(prompts, block_items=data.draw(st.integers(1, 6)))
    lost = {g: data.draw(st.sets(st.integers(0, 3))) for g in plan.languages}
    store = fill(tmp_path_factory.mktemp("h") / "s.acts", plan, prompts, failed=lost)
    languages = data.draw(st.lists(st.sampled_from(plan.languages), min_size=1, unique=True))
    items = data.draw(st.lists(st.sampled_from(plan.items), min_size=1, unique=True))
    selection = store.select("resid.post", languages=languages, items=items)
    kept = [i for i in items if not any(plan.items.index(i) in lost[g] for g in languages)]
    assert list(selection.items) == kept
    if not kept:
        with pytest.raises(BabelScopeError, match="no item"):
            selection.numpy()
        return
    want = [
        [[value(plan, g, "resid.post", layer, plan.items.index(i), 1, False)[0] for i in kept] for g in languages]
        for layer in (0, 2)
    ]
    np.testing.assert_array_equal(selection.numpy(), np.array(want, np.float32))


def test_torch_xarray_and_pandas_give_equal_numbers(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    selection = store.select("resid.post")
    values = selection.numpy()
    np.testing.assert_array_equal(selection.torch().numpy(), values)
    array = selection.xarray()
    assert array.dims == ("layer", "language", "item", "dim")
    np.testing.assert_array_equal(array.sel(language="sw", layer=2).values, values[1, 1])
    np.testing.assert_array_equal(selection.dataframe().loc[2, "sw"].to_numpy(), values[1, 1])


def test_prompts_answers_and_covariates_come_back(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    assert store.prompts.prompts == prompts.prompts
    assert list(store.covariates.index) == list(prompts.items)
    assert list(store.covariates["half"]) == [0, 1, 0, 1, 0]
    answers = store.answers
    assert len(answers) == 10
    assert set(answers["last_token"]) == {"ü"}
    assert list(answers["correct"][:5]) == [1, 0, 1, 0, 1]


def test_texts_can_be_left_out(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts, texts=False)
    with pytest.raises(BabelScopeError, match="without prompt texts"):
        _ = store.prompts
    assert list(store.covariates["half"]) == [0, 1, 0, 1, 0]
    assert not any(b"text 3" in p.read_bytes() for p in (tmp_path / "s.acts").rglob("*") if p.is_file())


def test_what_a_notebook_shows_is_escaped(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts)
    evil = plan.model.__class__(**{f: getattr(plan.model, f) for f in plan.model.__slots__} | {"source": "<script>x"})
    store = fill(tmp_path / "s.acts", make_plan(prompts, model=evil), prompts)
    assert "<script>" not in store._repr_html_()
    assert "5 items x 2 languages" in repr(store)


def test_every_dataset_carries_the_digest_of_its_bytes(tmp_path):
    prompts = make_prompts()
    fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with h5py.File(next((tmp_path / "s.acts").rglob("0*.h5"))) as file:
        dataset = file["resid.post.last/value"]
        assert check_digest(dataset, dataset[()])
        changed = dataset[()]
        changed[0, 0, 0] += 1
        assert not check_digest(dataset, changed)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda s: s.select("resid.pst@0"), "resid.pst"), (lambda s: s.select("resid.post@1"), "no layer 1"),
        (lambda s: s.select("mlp.act@0"), "mlp.act"), (lambda s: s.select("embed", languages=["fr"]), "'fr'"),
        (lambda s: s.select("embed", items=["item/9"]), "item/9"),
        (lambda s: s.select("embed", position="mean"), "mean"),
        (lambda s: s.select(["embed", "resid.post@0"]), "one kind"),
    ],
)  # fmt: skip
def test_what_the_store_does_not_hold_is_refused_by_name(tmp_path, call, names):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with pytest.raises(BabelScopeError, match=names) as caught:
        call(store)
    assert caught.value.hint
