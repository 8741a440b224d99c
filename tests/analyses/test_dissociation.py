import numpy as np
import pytest
import statsmodels.api as sm
from numpy.testing import assert_allclose
from scipy import stats

from babelscope.analyses.dissociation import (
    N_FOLDS,
    corrected_correlation,
    folds,
    jackknifed,
    matched_neurons,
    relative_attribution,
    selectivity,
)
from babelscope.analyses.dissociation_ablation import damage, interaction


class Small:
    seed, n_boot, n_perm = 0, 500, 499


def test_attribution_is_the_first_order_loss_at_the_mean_as_a_share_of_all_sizes():
    rng = np.random.default_rng(0)
    activation, gradient = rng.normal(size=(2, 5, 2, 3))
    found = relative_attribution(activation, gradient)
    for i in range(5):
        parts = [
            gradient[i, layer, k] * (activation[i, layer, k] - activation[:, layer, k].mean())
            for layer in range(2)
            for k in range(3)
        ]
        assert_allclose(found[i], np.array(parts) / sum(map(abs, parts)), rtol=1e-5)


def test_prompts_that_depend_on_no_neuron_are_undefined():
    assert np.isnan(relative_attribution(np.ones((3, 1, 2)), np.zeros((3, 1, 2)))).all()


def test_selectivity_is_that_of_ordinary_least_squares():
    rng = np.random.default_rng(0)
    kind, covariates = np.arange(30) % 3 == 0, rng.normal(size=(30, 2))
    y = rng.normal(size=(30, 4)) + np.outer(kind, [0.0, 1.0, -1.0, 3.0]) + covariates @ rng.normal(size=(2, 4))
    found = selectivity(y, kind, covariates)
    for k in range(4):
        fit = sm.OLS(y[:, k], sm.add_constant(np.column_stack([kind, covariates]).astype(float))).fit()
        assert found.t[k] == pytest.approx(fit.tvalues[1])
        assert found.p[k] == pytest.approx(fit.pvalues[1])


def test_covariates_that_others_determine_change_nothing_and_silent_neurons_are_undefined():
    rng = np.random.default_rng(0)
    kind, length = np.arange(20) % 2 == 0, rng.normal(size=20)
    y = np.column_stack([rng.normal(size=20), np.zeros(20)])
    alone = selectivity(y, kind, length[:, None])
    again = selectivity(y, kind, np.column_stack([length, 2 * length + 1, kind, np.ones(20)]))
    assert_allclose(again.t, alone.t)
    assert np.isnan(alone.t[1])


def test_selectivity_holds_its_level_without_an_effect():
    rng = np.random.default_rng(0)
    found = selectivity(rng.normal(size=(24, 4000)), np.arange(24) % 2 == 0, rng.normal(size=(24, 2)))
    assert 0.043 < (found.p < 0.05).mean() < 0.058  # binomial, 4,000 neurons: 97 % within


def importances(rng, shared, n_items=40, n_neurons=400):
    """Summed by fold: each language's own profile of neurons, a shared one, and the noise of items."""
    common = rng.normal(size=n_neurons)
    sums = []
    for _ in range(3):
        own = shared * common + np.sqrt(1 - shared**2) * rng.normal(size=n_neurons)
        items = (3 + 0.5 * own + 2 * rng.normal(size=(n_items, n_neurons)).clip(-1, 1)) ** 2
        sums.append(np.stack([items[np.arange(n_items) % N_FOLDS == f].sum(axis=0) for f in range(N_FOLDS)]))
    return np.stack(sums), np.full(N_FOLDS, n_items // N_FOLDS)


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_correlations_between_languages_are_recovered_from_noisy_items(shared):
    rng = np.random.default_rng(0)
    found = [corrected_correlation(*importances(rng, shared)) for _ in range(20)]
    assert np.mean(found) == pytest.approx(shared**2, abs=0.04)


def test_the_correction_is_that_of_two_halves_written_out():
    sums, counts = importances(np.random.default_rng(1), 0.7)
    first = [np.sqrt(s[:5].sum(axis=0) / counts[:5].sum()) for s in sums]
    second = [np.sqrt(s[5:].sum(axis=0) / counts[5:].sum()) for s in sums]
    r = np.corrcoef
    values = []
    for a in range(3):
        for b in range(a + 1, 3):
            across = (r(first[a], second[b])[0, 1] + r(first[b], second[a])[0, 1]) / 2
            values.append(across / np.sqrt(r(first[a], second[a])[0, 1] * r(first[b], second[b])[0, 1]))
    assert corrected_correlation(sums, counts) == pytest.approx(np.mean(values))


def test_languages_without_reliable_importances_have_no_corrected_correlation():
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(2, N_FOLDS, 50)) ** 2
    sums[0, 5:] = sums[0, :5].max() - sums[0, :5]
    assert np.isnan(corrected_correlation(np.abs(sums), np.ones(N_FOLDS, dtype=int)))


def test_the_jackknife_of_a_mean_has_the_error_of_a_mean():
    x = np.random.default_rng(0).normal(size=10)
    found = jackknifed(x.mean(), [np.delete(x, i).mean() for i in range(10)])
    low, high = stats.t.interval(0.95, 9, loc=x.mean(), scale=stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(stats.ttest_1samp(x, 0).pvalue)
    assert np.isnan(jackknifed(1.0, [1.0, np.nan]).low)


def test_folds_are_as_equal_as_can_be():
    counts = np.bincount(folds(27, np.random.default_rng(0)), minlength=N_FOLDS)
    assert sorted(counts) == [2, 2, 2, 3, 3, 3, 3, 3, 3, 3]


def test_matched_neurons_are_others_of_the_same_layer_about_as_active():
    rng = np.random.default_rng(0)
    size, width = rng.exponential(size=300), 100
    chosen = rng.choice(300, 30, replace=False)
    found = matched_neurons(chosen, size, width, chosen, rng)
    assert len(set(found)) == 30
    assert not set(found) & set(chosen)
    assert (found // width == chosen // width).all()
    assert np.corrcoef(size[found], size[chosen])[0, 1] > 0.9


def test_an_interaction_is_found_where_sets_carry_their_kind_and_not_where_they_carry_both():
    rng = np.random.default_rng(0)
    retrieval = np.arange(40) < 20
    noise = 0.3 * rng.normal(size=(2, 3, 40))
    own = interaction(retrieval + noise[0], ~retrieval + noise[1], retrieval, Small())
    assert own.low > 1.5
    assert own.estimate == pytest.approx(2, abs=0.3)
    assert own.p <= 0.01
    both = interaction(1 + noise[0], 1 + noise[1], retrieval, Small())
    assert both.low < 0 < both.high


def test_damage_elsewhere_is_a_share_of_the_own_and_undefined_where_the_own_do_none():
    rng = np.random.default_rng(0)
    own = 1 + 0.1 * rng.normal(size=30)
    found = damage(0.5 * own, own, Small(), "x")
    assert found.estimate == pytest.approx(0.5)
    assert found.bounds() == pytest.approx((0.5, 0.5))
    nothing = damage(own, own - own.mean(), Small(), "x")
    assert np.isnan(nothing.estimate)
    assert np.isnan(nothing.p())
