"""How large stored numbers are: what is planted is found where it was planted, also in a packed store."""

from dataclasses import replace

import numpy as np
import pytest

from babelscope import workflows
from babelscope.activations_store import ActivationStore, StoreWriter, magnitudes
from tests.store.stores import ALL, LAST, make_block, make_plan, make_prompts

RESID = {"site": "resid.post", "position": "last", "layer": 2}


def planted(path, dtype="float32", positions=(LAST,)):
    """Unit 4 of resid.post@2 leads every row, massive for item 3 in sw; two infinities and a clipped value.

    All other magnitudes are 1.
    """
    prompts = make_prompts(5)
    computed = "float32" if dtype in ("int8", "float16") else dtype
    plan = make_plan(prompts, computed, positions=positions)
    stored = replace(plan, dtype=dtype, on_overflow="clip" if dtype == "float16" else "stop")
    with StoreWriter.create(path, stored, prompts, {}) as writer:
        for language, index in writer.pending():
            block = make_block(plan, language, index)
            for rows in block.rows.values():
                rows.values[:] = np.copysign(1, rows.values.astype(np.float32))
            values = block.rows["resid.post", LAST].values
            values[1, :, 4] = -8
            if language == "sw" and index == 1:
                values[1, 1, 4] = -5000
                block.rows["embed", LAST].values[0, 0, 1:3] = np.inf
                if dtype == "float16":
                    block.rows["embed", LAST].values[0, 1, 0] = 1e6
            writer.put(block)
    return ActivationStore.open(path)


def row(table, **where):
    chosen = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])]
    return chosen.iloc[0].to_dict()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_what_is_planted_is_found_beside_the_rows(tmp_path, dtype):
    table = planted(tmp_path / "a.acts", dtype).extremes
    found = row(table, **RESID)
    assert (found["rows"], found["nonfinite"], found["far_rows"]) == (10, 0, 1)
    assert (found["item"], found["language"]) == ("item/3", "sw")
    assert found["largest"] == pytest.approx(5000, rel=1e-2)  # bfloat16
    assert found["median"] == pytest.approx(8, rel=8e-3)
    assert found["ratio"] == pytest.approx(625, rel=1e-2)
    of_embed = row(table, site="embed")
    assert of_embed["nonfinite"] == 2
    assert of_embed["clipped_rows"] == (1 if dtype == "float16" else 0)
    assert table["rows"].eq(10).all()
    assert table["clipped_rows"].sum() == of_embed["clipped_rows"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_value_is_read_a_few_at_a_time(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(magnitudes, "AT_ONCE", 6)  # one row
    seen = []
    table = planted(tmp_path / "a.acts", dtype).magnitudes(lambda *told: seen.append(told))
    found = row(table, **RESID)
    assert (found["n"], found["rows"], found["nonfinite"], found["massive"]) == (60, 10, 0, 1)
    assert (found["unit"], found["leads"]) == ("4", 1.0)
    assert (found["item"], found["language"]) == ("item/3", "sw")
    assert found["median"] == pytest.approx(1, rel=8e-3)
    assert found["ratio"] == pytest.approx(5000, rel=1e-2)
    of_embed = row(table, site="embed")
    assert (of_embed["n"], of_embed["nonfinite"]) == (58, 2)
    assert row(table, site="attn.heads")["unit"].count(",") == 1  # head, dim
    assert seen[-1] == (6, 6, "read values")


def test_tokens_belong_to_the_items_of_their_rows(tmp_path):
    store = planted(tmp_path / "a.acts", positions=(LAST, ALL))
    for table in (store.extremes, store.magnitudes()):
        assert row(table, site="embed", position="all")["rows"] == 2 * (1 + 2 + 3 + 1 + 2)


def test_a_packed_store_gives_the_same(tmp_path):
    store = planted(tmp_path / "a.acts", "float16")
    packed = workflows.pack(tmp_path / "a.acts", tmp_path / "a.h5")
    for mine, theirs in ((store.extremes, packed.extremes), (store.magnitudes(), packed.magnitudes())):
        assert mine.equals(theirs)


def test_a_median_is_that_of_numpy_to_within_a_step():
    rng = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        values = np.float32(rng.standard_normal((101, 7)) * scale)
        one = magnitudes._Magnitudes()
        one.add(values)
        assert one.median == pytest.approx(np.median(np.abs(values)), rel=4e-3)
        assert one.above(float(scale)) == pytest.approx((np.abs(values) > scale).sum(), abs=5)


def test_nothing_has_no_median(tmp_path):
    prompts = make_prompts(2)
    with StoreWriter.create(tmp_path / "a.acts", make_plan(prompts), prompts, {}):
        pass
    store = ActivationStore.open(tmp_path / "a.acts")
    assert store.extremes.empty
    assert store.magnitudes().empty
    assert np.isnan(magnitudes._Magnitudes().median)
