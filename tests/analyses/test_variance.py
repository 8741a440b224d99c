import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from numpy.testing import assert_allclose
from statsmodels.stats.anova import anova_lm

from babelscope.analyses.recipes.variance_budget import VarianceBudget
from babelscope.analyses.statistics import SUPPORTED
from babelscope.analyses.study import make_study
from babelscope.analyses.variance import explained, of_shuffled_items, of_shuffled_languages, squares
from babelscope.errors import BabelScopeError

from .planted import write_store


def grid(seed=0, item=1.0, language=1.0, shape=(3, 8, 4)):
    rng = np.random.default_rng(seed)
    n_languages, n_items, n_units = shape
    parts = item * rng.normal(size=(1, n_items, n_units)) + language * rng.normal(size=(n_languages, 1, n_units))
    return parts + rng.normal(size=shape)


def by_loops(x):
    """Sums of squares from the cells, one by one."""
    n_languages, n_items, n_units = x.shape
    item = language = rest = 0.0
    for k in range(n_units):
        mean = x[:, :, k].mean()
        for a in range(n_languages):
            for q in range(n_items):
                of_item, of_language = x[:, q, k].mean(), x[a, :, k].mean()
                item += (of_item - mean) ** 2
                language += (of_language - mean) ** 2
                rest += (x[a, q, k] - of_item - of_language + mean) ** 2
    return item, language, rest


def test_sums_of_squares_are_those_of_the_cells():
    x = grid()
    whole, _ = squares(x)
    assert_allclose([whole.item, whole.language, whole.rest], by_loops(x))


def test_sums_without_an_item_are_those_of_the_other_items():
    x = grid()
    _, without = squares(x)
    for q in range(x.shape[1]):
        expected = by_loops(np.delete(x, q, axis=1))
        assert_allclose([without.item[q], without.language[q], without.rest[q]], expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_shuffled_sums_are_those_of_the_reordered_cells(axis):
    x = grid() + 100 * np.arange(3)[:, None, None]  # means of languages far from 0 cost no digits
    rng = np.random.default_rng(1)
    places = np.indices(x.shape[:2])[axis]
    orders = np.array([rng.permuted(places, axis=axis) for _ in range(18)])  # more than one chunk
    found = (of_shuffled_languages, of_shuffled_items)[axis](x, orders)
    for p, order in enumerate(orders):
        item, language, rest = by_loops(np.take_along_axis(x, order[..., None], axis=axis))
        sums = np.broadcast_arrays(found.item, found.language, found.rest)
        assert_allclose([v[p] for v in sums[:2]], [item, language], rtol=1e-9)
        assert found.rest[p] == pytest.approx(rest, rel=1e-7)


def test_components_are_unbiased():
    found = np.mean([squares(grid(s, 1.0, 2.0, (6, 12, 40)))[0].shares() for s in range(60)], axis=0)
    assert_allclose(found, [1 / 6, 4 / 6, 1 / 6], atol=0.02)
    nothing = np.mean([squares(grid(s, 0.0, 0.0, (6, 12, 40)))[0].shares() for s in range(60)], axis=0)
    assert_allclose(nothing, [0, 0, 1], atol=0.003)


def test_nothing_that_varies_is_undefined():
    assert np.isnan(squares(np.ones((2, 4, 3)))[0].shares()).all()


def test_neurons_are_explained_as_in_an_analysis_of_variance():
    x = grid(shape=(3, 6, 2))
    found = explained(x)
    for k in range(2):
        cells = [(x[a, q, k], a, q) for a in range(3) for q in range(6)]
        data = pd.DataFrame(cells, columns=["y", "a", "q"])
        table = anova_lm(smf.ols("y ~ C(q) + C(a)", data).fit())
        total = table["sum_sq"].sum()
        assert found.meaning[k] == pytest.approx(table.loc["C(q)", "sum_sq"] / total)
        assert found.language[k] == pytest.approx(table.loc["C(a)", "sum_sq"] / total)
        assert found.f[k] == pytest.approx(table.loc["C(a)", "F"])


def test_constant_neurons_are_undefined():
    x = grid()
    x[..., 1] = 0.3
    assert np.isnan(explained(x).meaning[1])
    assert not np.isnan(explained(x).meaning[0])


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    layers = [grid(0, 2.0, 0.0, (3, 20, 16)), grid(1, 0.0, 2.0, (3, 20, 16))]
    neurons = rng.normal(size=(2, 3, 20, 30))
    neurons[:, 1, :, 4] += 5  # a neuron of one language
    values = {"resid.post": np.stack(layers).astype(np.float32), "mlp.act": neurons.astype(np.float32)}
    return write_store(tmp_path / "run.acts", values)


def run(store, **options):
    return {r.name: r.table for r in VarianceBudget().run(make_study(store, n_boot=200, **options))}


def test_planted_parts_are_found_in_their_layers_and_nowhere_else(store):
    table = run(store)["variance_budget_layers"].set_index(["site", "claim", "layer"])
    for scale in ("summed", "standardized"):
        assert table.loc[("resid.post", f"meaning, {scale}", 0), "verdict"] == SUPPORTED
        assert table.loc[("resid.post", f"meaning, {scale}", 1), "verdict"] != SUPPORTED
        assert table.loc[("resid.post", f"language, {scale}", 1), "verdict"] == SUPPORTED
        assert table.loc[("resid.post", f"language, {scale}", 0), "verdict"] != SUPPORTED
        share = table.loc[("resid.post", f"meaning, {scale}", 0)]
        assert share["estimate"] == pytest.approx(4 / (4 + 1), abs=0.06)
        assert share["low"] < share["estimate"] < share["high"]


def test_a_neuron_of_one_language_stands_out(store):
    table = run(store)["variance_budget_neurons"]
    best = table[table["layer"] == 0].nlargest(1, "eta2_language").iloc[0]
    assert best["neuron"] == 4
    assert best["q"] < 1e-6
    others = table[table["neuron"] != 4]
    # 58 neurons: three standard errors.
    assert others["eta2_language"].mean() == pytest.approx(others["null_language"].iloc[0], rel=0.4)


def test_means_over_layers_are_means_of_the_layers(store):
    found = run(store)
    layers = found["variance_budget_layers"].groupby(["claim", "site"])["estimate"].mean()
    overall = found["variance_budget"].set_index(["claim", "site"])["estimate"]
    assert_allclose(overall.sort_index(), layers.sort_index())


def test_one_language_and_sites_without_vectors_are_refused(store):
    with pytest.raises(BabelScopeError, match="one language has no variance"):
        run(store, languages=["en"])
    with pytest.raises(BabelScopeError, match="holds no site of vectors"):
        run(store, sites=["attn.mass"])


def test_items_that_are_not_finite_are_left_out_and_counted(tmp_path):
    x = grid(shape=(3, 12, 4))[None].astype(np.float32)
    x[0, 1, 3, 2] = np.nan
    store = write_store(tmp_path / "run.acts", {"resid.post": x})
    table = run(store, marked="keep")["variance_budget"]
    assert (table["n"] == 11).all()
