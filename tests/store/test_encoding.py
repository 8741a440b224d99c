"""What becomes of numbers on their way to the disk: types, extremes, clipping, int8."""

from dataclasses import replace

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.activations_store.bfloat16 import create, fill, is_bfloat16
from babelscope.activations_store.disk import hdf5_image
from babelscope.activations_store.encoding import NOT_FINITE, decoded, encode, extremes
from babelscope.errors import BabelScopeError
from babelscope.schema import Position, Site
from tests.store.stores import ALL, DTYPES, LAST, make_block, make_plan, make_prompts

EVERY_BFLOAT16 = np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16)
FINITE = arrays.arrays(
    np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.floats(-(2.0**126), 2.0**126, width=32)
)
ANY = arrays.arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3), elements=st.floats(width=32))


def test_every_bfloat16_is_the_right_float32_to_h5py_and_keeps_its_bits(tmp_path):
    path = tmp_path / "all.h5"
    path.write_bytes(hdf5_image(lambda file: fill(create(file, "x", EVERY_BFLOAT16), EVERY_BFLOAT16)))
    with h5py.File(path) as file:
        dataset = file["x"]
        assert is_bfloat16(dataset)
        assert dataset.dtype == np.float32
        shown, want = dataset[()], EVERY_BFLOAT16.astype(np.float32)
        np.testing.assert_array_equal(shown, want)  # NaN equals NaN here
        np.testing.assert_array_equal(np.signbit(shown)[want == 0], np.signbit(want)[want == 0])
        raw = np.empty(2**16, np.uint16)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=dataset.id.get_type())
        np.testing.assert_array_equal(raw, np.arange(2**16))


def test_every_bfloat16_comes_back_from_a_store(tmp_path):
    prompts = make_prompts(2, ("en",))
    plan = make_plan(prompts, "bfloat16", sites=(Site("embed"),))
    values = EVERY_BFLOAT16.reshape(1, 2, -1)
    block = make_block(plan, "en", 0)
    block.rows["embed", LAST] = replace(block.rows["embed", LAST], values=values)
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        writer.put(block)
    got = ActivationStore.open(tmp_path / "s.acts").select("embed").numpy()
    np.testing.assert_array_equal(got.view(np.uint32) >> 16, np.arange(2**16).reshape(1, 2, -1))


@given(values=ANY, dtype=st.sampled_from(list(DTYPES)))
def test_extremes_are_those_of_a_loop(values, dtype):
    with np.errstate(all="ignore"):
        values = values.astype(DTYPES[dtype])
    absmax, nonfinite = extremes(values)
    for index in np.ndindex(values.shape[:2]):
        row = [float(x) for x in values[index]]
        assert absmax[index] == max([0.0, *(abs(x) for x in row if np.isfinite(x))])
        assert nonfinite[index] == sum(not np.isfinite(x) for x in row)


@given(
    values=arrays.arrays(
        np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.floats(-(2.0**126), 2.0**126, width=32)
    )
)
@settings(max_examples=200)
def test_int8_is_off_by_at_most_half_a_scale_of_its_unit(values):
    found = encode(values, "int8")
    assert found.scale.shape == (values.shape[0], values.shape[2])
    for layer in range(len(values)):
        back = decoded(found.values[layer], found.scale[layer]).astype(np.float64)
        # 127 steps to the largest value; beside the rounding to a step, float32 rounds the scale and the product.
        step = np.abs(values[layer].astype(np.float64)).max(axis=0) / 127
        bound = step / 2 + 2e-5 * step + 1e-38
        assert (np.abs(back - values[layer]) <= bound).all()


@given(values=ANY)
def test_int8_says_of_every_value_whether_it_was_finite(values):
    with np.errstate(over="ignore"):
        found = encode(values, "int8")
        back = np.stack([decoded(x, s) for x, s in zip(found.values, found.scale, strict=True)])
    np.testing.assert_array_equal(found.values == NOT_FINITE, ~np.isfinite(values))
    np.testing.assert_array_equal(np.isnan(back), ~np.isfinite(values))


def test_one_massive_unit_costs_the_others_nothing():
    """The reason for a scale for each unit: with one for each row, every other unit would be zero."""
    values = np.random.default_rng(0).standard_normal((1, 64, 32)).astype(np.float32)
    values[..., 7] *= 700_000
    found = encode(values, "int8")
    back = decoded(found.values[0], found.scale[0])
    others = np.arange(32) != 7
    error = np.linalg.norm(back[:, others] - values[0][:, others]) / np.linalg.norm(values[0][:, others])
    assert error < 0.01
    by_row = np.rint(values[0] / (np.abs(values[0]).max(axis=1, keepdims=True) / 127))
    assert (by_row[:, others] == 0).mean() > 0.9


@given(values=ANY)
def test_clipping_changes_what_does_not_fit_and_nothing_else(values):
    with np.errstate(over="ignore"):
        cast = values.astype(np.float16)
    found = encode(values, "float16")
    beyond = np.isinf(cast) & np.isfinite(values)
    np.testing.assert_array_equal(found.values[~beyond], cast[~beyond])
    np.testing.assert_array_equal(found.values[beyond], np.copysign(np.float16(65504), values[beyond]))
    np.testing.assert_array_equal(found.clipped, beyond.any(axis=(0, 2)))


def stored(tmp_path, dtype, change, positions=(LAST,), **changes):
    prompts = make_prompts(4, ("en",))
    plan = make_plan(prompts, "float32", positions=positions, block_items=4, **changes)
    plan = replace(plan, dtype=dtype, on_overflow="clip" if dtype == "float16" else "stop")
    block = make_block(replace(plan, dtype="float32", on_overflow="stop"), "en", 0)
    change(block)
    with StoreWriter.create(tmp_path / f"{dtype}.acts", plan, prompts, {}) as writer:
        writer.put(block)
    return ActivationStore.open(tmp_path / f"{dtype}.acts"), block


@pytest.mark.parametrize("dtype", ["int8", "float16"])
def test_a_lossy_store_says_so_marks_its_rows_and_gives_its_numbers(tmp_path, dtype):
    def harm(block):
        block.rows["resid.post", LAST].values[1, 2, 0] = 1e6
        block.rows["embed", LAST].values[0, 3, 1] = np.nan
        block.rows["embed", ALL].values[0, -1, 1] = np.inf  # a token of item 3
        block.rows["embed", ALL].values[0, 1, 1] = np.inf  # the first of the two tokens of item 1

    store, block = stored(tmp_path, dtype, harm, positions=(LAST, ALL))
    marks = {"item/1": "non-finite", "item/3": "non-finite"} | ({"item/2": "clipped"} if dtype == "float16" else {})
    assert dict(zip(store.marked["item"], store.marked["status"], strict=True)) == marks
    assert "2 non-finite" in repr(store)
    want = encode(block.rows["resid.post", LAST].values, dtype)
    got = store.select("resid.post", position="last").numpy()[:, 0]
    for layer in range(2):
        expected = want.values[layer] if want.scale is None else decoded(want.values[layer], want.scale[layer])
        np.testing.assert_array_equal(got[layer], expected)
    tokens = store.select("embed", position="all").ragged()[0]
    assert np.isnan(tokens[3][-1, 1]) if dtype == "int8" else np.isinf(tokens[3][-1, 1])
    with h5py.File(next(store.path.glob("shards/*/*.h5"))) as file:
        value = file["resid.post.last/value"]
        assert (value.attrs["lossy"], value.attrs["dtype"], value.attrs["compute_dtype"]) == (
            1,
            dtype.encode(),
            b"float32",
        )
        assert list(file["rows/status"]) == [0, 2, 1 if dtype == "float16" else 0, 2]
        assert file["rows/status"].attrs["flag_meanings"] == b"ok clipped non-finite"
        assert file["resid.post.last/absmax"][1, 2] == 1e6
        assert ("scale" in file["resid.post.last"]) == (dtype == "int8")


def test_what_does_not_apply_is_no_mark(tmp_path):
    def harm(block):
        block.rows["attn.pattern", LAST].values[:] = np.nan
        block.rows["attn.mass", LAST].values[:] = np.nan

    sites = {"sites": (Site("attn.mass", 1), Site("attn.pattern", 1)), "n_keys": 4, "segments": ("cue", "two")}
    store, _ = stored(tmp_path, "float32", harm, **sites)
    assert store.marked.empty


@pytest.mark.parametrize(("dtype", "computed", "lossy"), [
    ("float32", "bfloat16", False), ("float16", "float16", False), ("bfloat16", "float32", True),
    ("float16", "bfloat16", True), ("int8", "float16", True), ("bfloat16", "float16", True),
])  # fmt: skip
def test_lossy_is_what_holds_less_than_the_model_computed(dtype, computed, lossy):
    plan = make_plan(make_prompts(1, ("en",)), computed)
    assert replace(plan, dtype=dtype).lossy is lossy


def test_rows_of_another_type_than_the_plan_asks_for_are_refused(tmp_path):
    prompts = make_prompts(2, ("en",))
    plan = replace(make_plan(prompts, "float16"), dtype="int8")
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        block = make_block(replace(plan, dtype="float16"), "en", 0)
        with pytest.raises(BabelScopeError, match="is float16, the plan says float32"):
            writer.put(block)


def test_a_segment_of_an_int8_store_is_read_by_item_and_block(tmp_path):
    prompts = make_prompts(5, ("en", "sw"))
    plan = replace(make_plan(prompts, "float32", positions=(Position("segment", "cue"),)), dtype="int8")
    rows = {}
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending():
            block = make_block(replace(plan, dtype="float32"), language, index)
            rows[language, index] = block.rows["attn.heads", plan.positions[0]].values
            writer.put(block)
    store = ActivationStore.open(tmp_path / "s.acts")
    got = store.select("attn.heads@1", items=["item/4", "item/1", "item/0"], languages=["sw", "en"]).numpy()
    for a, language in enumerate(("sw", "en")):
        for b, (index, row) in enumerate(((2, 0), (0, 1), (0, 0))):
            scale = np.abs(rows[language, index]).max(axis=1)[0] / 127
            np.testing.assert_allclose(got[a, b], rows[language, index][0, row], atol=scale.max() / 2 * 1.001)
