import sys
from dataclasses import replace

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.behavior.accuracy import accuracy
from babelscope.errors import BabelScopeError
from babelscope.schema import Answers
from tests.store.stores import ALL, DTYPES, LAST, WORDS, fill, make_block, make_plan, make_prompts, value


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
        assert file["resid.post.last/nonfinite"][()].sum() == 3
        assert file["resid.post.last/absmax"][0, 0] == np.float32(special[5])
        want = np.abs(file["resid.post.last/value"][1]).max(axis=1)
        np.testing.assert_array_equal(file["resid.post.last/absmax"][1], want)


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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Stores of 5 items in 3 languages with different blocks and losses: (store, lost items per language)."""
    prompts = make_prompts(5, ("en", "sw", "zh"))
    cases = [(1, {}), (2, {"sw": (1, 4)}), (3, {"en": (0, 1, 2), "zh": (2,)}), (6, {"en": (3,), "sw": (0,), "zh": ()})]
    return [
        (
            fill(tmp_path_factory.mktemp("made") / "s.acts", make_plan(prompts, block_items=n), prompts, failed=lost),
            lost,
        )
        for n, lost in cases
    ]


@given(data=st.data())
def test_any_selection_equals_a_dictionary_of_rows(made, data):
    store, lost = data.draw(st.sampled_from(made))
    plan = store.plan
    languages = data.draw(st.lists(st.sampled_from(plan.languages), min_size=1, unique=True))
    items = data.draw(st.lists(st.sampled_from(plan.items), min_size=1))
    layers = data.draw(st.sampled_from([(0, 2), (2,), (2, 0)]))
    selection = store.select([f"resid.post@{layer}" for layer in layers], languages=languages, items=items)
    kept = [i for i in dict.fromkeys(items) if not any(plan.items.index(i) in lost.get(g, ()) for g in languages)]
    assert list(selection.items) == kept
    assert set(selection.dropped["item"]) == set(items) - set(kept)
    if not kept:
        with pytest.raises(BabelScopeError, match="no item"):
            selection.numpy()
        return
    want = [
        [[value(plan, g, "resid.post", layer, plan.items.index(i), 1, False)[0] for i in kept] for g in languages]
        for layer in layers
    ]
    want = np.array(want, np.float32)
    np.testing.assert_array_equal(selection.numpy(), want if len(layers) > 1 else want[0])


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


def test_an_absent_library_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    prompts = make_prompts(2, ("en",))
    selection = fill(tmp_path / "s.acts", make_plan(prompts), prompts).select("embed")
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(BabelScopeError, match=r"pip install 'babelscope\[xarray\]'"):
        selection.xarray()


def test_only_the_shards_that_hold_the_items_asked_for_are_read(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    damaged = tmp_path / "s.acts/shards/l-en/000000002-000000004.h5"
    damaged.unlink()
    damaged.write_bytes(b"not hdf5")
    assert store.select("embed", items=["item/4", "item/0"]).numpy().shape == (2, 2, 6)
    with pytest.raises(BabelScopeError, match="000000002-000000004"):
        store.select("embed", items=["item/3"]).numpy()
    assert "damaged" in repr(store)


def test_a_shard_that_a_notebook_holds_open_can_still_be_read(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with h5py.File(tmp_path / "s.acts/shards/l-en/000000000-000000002.h5"):
        assert store.select("embed").numpy().shape == (2, 5, 6)


def test_a_block_without_any_captured_item_is_complete_and_empty(tmp_path):
    prompts = make_prompts(4, ("en", "sw"))
    plan = make_plan(prompts, positions=(LAST, ALL))
    store = fill(tmp_path / "s.acts", plan, prompts, failed={"sw": (0, 1)})
    assert store.progress == (4, 4)
    assert store.select("attn.heads@1", position="last").items == ("item/2", "item/3")
    assert len(store.select("attn.heads@1", position="all").ragged()[1]) == 2


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
    assert list(answers["gold"][:5]) == [0, 1, 0, 1, 0]
    assert list(answers.columns[:7]) == ["item", "language", "n_tokens", "last_token", "gold", "choice", "correct"]


def test_an_answer_that_is_undefined_is_missing_and_says_why(tmp_path):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts)
    block = make_block(plan, "en", 0)
    nothing = Answers(
        np.array([[np.nan] * 2, [-1, -2]]), np.array([-1, 0]), np.array([np.nan, 0]), {0: "A and B alike"}
    )
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        writer.put(replace(block, answers=nothing))
    answers = ActivationStore.open(tmp_path / "s.acts").answers
    assert list(answers["choice"].isna()) == [True, False]
    assert list(answers["correct"].isna()) == [True, False]
    assert list(answers["undefined"]) == ["A and B alike", ""]


def test_a_store_without_answers_has_the_columns_and_no_values(tmp_path):
    prompts = make_prompts(2, ("en",))
    answers = fill(tmp_path / "s.acts", make_plan(prompts, answers=""), prompts).answers
    assert len(answers) == 2
    assert answers[["choice", "correct"]].isna().all().all()
    assert "score_0" not in answers


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


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda s: s.select("resid.pst@0"), "resid.pst"),
        (lambda s: s.select("resid.post@1"), "layer of resid.post .* '1'"),
        (lambda s: s.select("mlp.act@0"), "mlp.act"), (lambda s: s.select("embed", languages=["fr"]), "'fr'"),
        (lambda s: s.select("embed", items=["item/9"]), "item/9"),
        (lambda s: s.select("embed", position="mean"), "mean"),
        (lambda s: s.select(["embed", "resid.post@0"]), "one kind"), (lambda s: s.select([]), "one kind"),
        (lambda s: s.select("embed@0"), "embed has no layers"), (lambda s: s.select("resid.post@9"), "layer '9'"),
        (lambda s: s.select("embed", languages=[]), "no language"),
    ],
)  # fmt: skip
def test_what_the_store_does_not_hold_is_refused_by_name(tmp_path, call, names):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with pytest.raises(BabelScopeError, match=names) as caught:
        call(store)
    assert caught.value.hint


def test_rows_of_special_tokens_can_be_left_out(tmp_path):
    prompts = make_prompts()
    store = fill(tmp_path / "s.acts", make_plan(prompts, positions=(ALL, WORDS)), prompts)
    chosen = store.select("embed", position="all", items=["item/4", "item/2"])
    everything, flags = chosen.ragged(), chosen.coordinate("special")
    assert any(flag.any() for flag in flags[0])
    for rows, marks, kept in zip(everything[1], flags[1], chosen.ragged(special=False)[1], strict=True):
        np.testing.assert_array_equal(rows[marks == 0], kept)
    words = store.select("embed", position="words")
    assert [len(x) for x in words.coordinate("char_start")[0]] == [len(x) for x in words.ragged(special=False)[0]]
    with pytest.raises(BabelScopeError, match="coordinate of position words called 'special'"):
        words.coordinate("special")


def test_texts_and_continuations_come_back_beside_the_answers(tmp_path):
    prompts = make_prompts()
    plan = make_plan(prompts, answers="texts", continuation=4)
    answers = fill(tmp_path / "s.acts", plan, prompts, failed={"sw": (2,)}).answers
    assert list(answers["continuation"]) == [f"são {i}" for i in (0, 1, 2, 3, 4, 0, 1, 3, 4)]
    assert list(answers["text_score_1"][:3]) == [-6, -6.1, -6.2]
    assert set(answers["text_tokens_1"]) == {2}
    assert {"score_0", "score_1"} <= set(answers)


def test_a_continuation_can_be_kept_without_scores(tmp_path):
    prompts = make_prompts(2, ("en",))
    answers = fill(tmp_path / "s.acts", make_plan(prompts, answers="", continuation=4), prompts).answers
    assert list(answers["continuation"]) == ["são 0", "são 1"]


# Gold is 0, 1, 0, 1, 0. By sums the text of option 0 is the better one everywhere, per token that of option 1.
@pytest.mark.parametrize(("scoring", "right"), [("labels", 3 / 5), ("texts", 3 / 5), ("texts-per-token", 2 / 5)])
def test_accuracy_counts_the_option_that_the_scoring_prefers(tmp_path, scoring, right):
    prompts = make_prompts(5, ("en",))
    store = fill(tmp_path / "s.acts", make_plan(prompts, answers="texts"), prompts)
    assert accuracy(store, scoring).table["accuracy"].tolist() == [right]


def test_accuracy_by_texts_needs_texts(tmp_path):
    prompts = make_prompts(2, ("en",))
    store = fill(tmp_path / "s.acts", make_plan(prompts), prompts)
    with pytest.raises(BabelScopeError, match="no item has options") as caught:
        accuracy(store, "texts")
    assert "--answers texts" in caught.value.hint
