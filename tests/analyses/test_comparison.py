import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import babelscope as bs
from babelscope.analyses import analyze, compare
from babelscope.analyses.statistics import bootstrap_weights, paired
from babelscope.errors import BabelScopeError
from tests.analyses.planted import activations, write_store

FEW = {"n_boot": 200, "n_perm": 199}
N = 40


def values(shared, seed=0, n=N):
    rng = np.random.default_rng(seed)
    return {"resid.post": np.stack([activations(rng, 3, n, 12, shared=s) for s in (shared, shared)])}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("before") / "before.acts", values(1.0))


def changes(*stores, **options):
    named = {f"s{i}": store for i, store in enumerate(stores)}
    return {r.name: r for r in compare(named, ["cs"], **{**FEW, **options})}["change"]


def test_what_was_planted_is_found_and_the_rows_are_those_of_single_analyses(before, tmp_path):
    after = write_store(tmp_path / "after.acts", values(2.0, seed=1))
    found = changes(before, after, mode="corrected").table
    overall = found[found["layer"].isna()].set_index("variant")
    assert (overall.loc[["raw", "centered"], "change"] > 0.15).all()
    assert (overall["verdict"] == "supported").all()
    assert (overall["n"] == N).all()
    for name, store in (("before", before), ("after", after)):
        alone = analyze(store, ["cs"], mode="corrected", **FEW)[0].table
        alone = alone[alone["layer"].isna() & (alone["language_a"] == "*")].set_index("variant")
        np.testing.assert_allclose(overall[f"gap_{name}"], alone.loc[overall.index, "gap"], atol=1e-12)
    np.testing.assert_allclose(overall["change"], overall["gap_after"] - overall["gap_before"], atol=1e-12)


def test_a_store_beside_itself_has_not_changed(before):
    table = changes(before, before).table
    assert (table["change"] == 0).all()
    assert (table["p"] == 1).all()
    assert (table["verdict"] != "supported").all()


def test_items_are_matched_by_name_and_only_common_ones_count(before, tmp_path):
    order = np.random.default_rng(2).permutation(N)[: N - 5]
    parts = {"resid.post": values(1.0)["resid.post"][:, :, order]}
    shuffled = write_store(tmp_path / "b.acts", parts, items=[f"q{i:03d}" for i in order], missing={"sw": [0]})
    found = changes(before, shuffled)
    assert set(found.table["n"]) == {N - 6}
    # The same numbers for the same items.
    np.testing.assert_allclose(found.table["change"], 0, atol=1e-12)
    assert not found.provenance["same_prompts"]


def test_layers_of_models_of_another_depth_are_not_compared(before, tmp_path):
    deeper = values(1.0)["resid.post"][[0, 1, 1]]
    found = changes(before, write_store(tmp_path / "deep.acts", {"resid.post": deeper})).table
    assert found["layer"].isna().all()


def test_what_cannot_be_compared_is_refused(before, tmp_path):
    with pytest.raises(BabelScopeError, match="one store cannot be compared"):
        changes(before)
    other = write_store(tmp_path / "o.acts", values(1.0, n=6), items=list("uvwxyz"))
    with pytest.raises(BabelScopeError, match="no item is in all of s0, s1") as caught:
        changes(before, other)
    assert "same prompts" in caught.value.hint
    with pytest.raises(BabelScopeError, match="a store is named twice"):
        bs.compare([before.path, before.path])


@settings(max_examples=25)
@given(st.integers(5, 12), st.integers(0, 10_000), st.booleans())
def test_the_paired_test_agrees_with_scipy_and_a_slow_bootstrap(n, seed, gaps):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n))
    if gaps:
        a[0] = np.nan
    weights = bootstrap_weights(n, 50, rng)
    found = paired(a[None], b[None], weights, n_perm=4000, level=0.9, rng=np.random.default_rng(0))
    d = (b - a)[~np.isnan(a)]
    exact = stats.permutation_test((d,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    # Four standard errors of 4,000 draws.
    assert abs(found.p[0] - exact) < 4 * np.sqrt(0.25 / 4000)
    assert found.estimate[0] == pytest.approx(d.mean())
    assert found.n_a[0] == len(d)
    means = [np.repeat(d, w[~np.isnan(a)].astype(int)).mean() for w in weights if w[~np.isnan(a)].sum()]
    np.testing.assert_allclose([found.low[0], found.high[0]], np.quantile(means, [0.05, 0.95]), atol=1e-12)


def test_without_a_change_p_is_uniform():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 15)) + rng.normal(size=(400, 15))
    found = paired(a, b, bootstrap_weights(15, 10, rng), n_perm=499, level=0.95, rng=rng)
    assert stats.kstest(found.p, "uniform").pvalue > 0.01
