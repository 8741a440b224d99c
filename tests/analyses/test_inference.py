import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from babelscope.analyses.inference import (
    benjamini_yekutieli,
    equivalence,
    jackknife_interval,
    pair_correlation,
    pair_weights,
    pearson,
    pigeonhole_means,
    spearman,
)
from babelscope.analyses.pairs import language_pairs
from babelscope.analyses.statistics import bootstrap_weights, interval
from babelscope.errors import BabelScopeError


def within_chance(hits, trials, rate):
    """Whether a count is one that the rate gives in 999 of 1000 experiments."""
    low, high = stats.binom.interval(0.999, trials, rate)
    return low <= hits <= high


def test_equivalence_is_the_larger_p_of_two_one_sided_t_tests():
    rng = np.random.default_rng(0)
    a = rng.normal(0.1, 1, size=(3, 30))
    found = equivalence(a, 0.5)
    for k in range(3):
        above = stats.ttest_1samp(a[k], -0.5, alternative="greater").pvalue
        below = stats.ttest_1samp(a[k], 0.5, alternative="less").pvalue
        assert found.p[k] == pytest.approx(max(above, below))
        bounds = stats.ttest_1samp(a[k], 0).confidence_interval(0.9)
        np.testing.assert_allclose([found.low[k], found.high[k]], bounds)


def test_equivalence_of_two_groups_is_that_of_welch():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 25), rng.normal(0, 3, 40)
    above = stats.ttest_ind(a + 1, b, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(a - 1, b, equal_var=False, alternative="less").pvalue
    found = equivalence(a, 1.0, b)
    assert found.p == pytest.approx(max(above, below))
    bounds = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], bounds)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=12), st.floats(0.01, 3))
def test_equivalence_is_claimed_exactly_where_the_interval_is_within_the_bounds(values, smallest):
    found = equivalence(np.array(values), smallest)
    if min(abs(found.low + smallest), abs(found.high - smallest)) > 1e-9:
        assert (found.p < 0.05) == (found.low > -smallest and found.high < smallest)


def test_equivalence_ignores_what_is_undefined_and_is_undefined_for_one_value():
    found = equivalence(np.array([[0.1, np.nan, 0.2, 0.3], [0.1, np.nan, np.nan, np.nan]]), 1.0)
    assert found.p[0] == pytest.approx(float(equivalence(np.array([0.1, 0.2, 0.3]), 1.0).p))
    assert np.isnan([found.p[1], found.low[1]]).all()
    assert list(found.n) == [3, 1]
    assert equivalence(np.zeros(5), 0.1).p == 0
    with pytest.raises(BabelScopeError, match="smallest"):
        equivalence(np.zeros(5), 0.0)


def test_equivalence_is_claimed_falsely_as_often_as_alpha_says_where_the_effect_just_matters():
    a = np.random.default_rng(2).normal(0.4, 1, size=(2000, 30))
    assert within_chance(int((equivalence(a, 0.4).p < 0.05).sum()), 2000, 0.05)


def test_pigeonhole_means_equal_a_loop_over_drawn_items_and_languages():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 6, 4))
    values[1, 2, 3] = np.nan
    items, languages = bootstrap_weights(6, 15, rng), bootstrap_weights(4, 15, rng)
    found = pigeonhole_means(values, items, languages)
    for k in range(2):
        for b in range(15):
            drawn_items = np.repeat(np.arange(6), items[b].astype(int))
            drawn = np.repeat(np.arange(4), languages[b].astype(int))
            assert found[k, b] == pytest.approx(np.nanmean([[values[k, i, j] for j in drawn] for i in drawn_items]))


def test_a_language_drawn_twice_makes_no_pair_with_itself():
    pairs = language_pairs(3)
    weights = pair_weights(np.array([[3.0, 0.0, 0.0], [2.0, 1.0, 0.0]]), pairs)
    np.testing.assert_array_equal(weights, [[0, 0, 0], [2, 0, 0]])
    found = pigeonhole_means(np.ones((4, 3)), np.ones((2, 4)), weights)
    np.testing.assert_array_equal(found, [np.nan, 1.0])


def test_the_pigeonhole_bootstrap_covers_where_that_of_items_alone_does_not():
    rng = np.random.default_rng(3)
    covered = {"both": 0, "items": 0}
    for _ in range(200):
        x = rng.normal(size=(20, 1)) + rng.normal(size=(1, 10)) + rng.normal(size=(20, 10))
        items, languages = bootstrap_weights(20, 300, rng), bootstrap_weights(10, 300, rng)
        for name, drawn in (("both", languages), ("items", np.ones_like(languages))):
            low, high = interval(pigeonhole_means(x, items, drawn), 0.95)
            covered[name] += int(low < 0 < high)
    # Percentile intervals of ten languages are somewhat narrow.
    assert covered["both"] >= 175
    assert covered["items"] < 170


def test_correlations_are_those_of_scipy_over_what_is_defined():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12)), np.round(rng.normal(size=(2, 12)))
    x[0, 3] = y[0, 5] = np.nan
    for k in range(2):
        kept = ~np.isnan(x[k]) & ~np.isnan(y[k])
        assert pearson(x, y)[k] == pytest.approx(stats.pearsonr(x[k, kept], y[k, kept]).statistic)
        assert spearman(x, y)[k] == pytest.approx(stats.spearmanr(x[k, kept], y[k, kept]).statistic)


def test_a_correlation_without_spread_or_with_two_values_is_undefined_not_zero():
    rising = np.arange(5.0)
    assert np.isnan(pearson(rising, np.full(5, 0.1)))
    assert np.isnan(spearman(rising, np.full(5, 0.1)))
    assert np.isnan(pearson(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert np.isnan(pearson(np.full(5, np.nan), rising))


def test_a_pair_correlation_leaves_out_all_pairs_of_one_language_at_a_time():
    rng = np.random.default_rng(0)
    pairs = language_pairs(5)
    x, y = rng.normal(size=10), rng.normal(size=10)
    found = pair_correlation(x, y, pairs, n_perm=99, rng=rng)
    slow = []
    for language in range(5):
        kept = [k for k, pair in enumerate(pairs) if language not in pair]
        slow.append(stats.pearsonr(x[kept], y[kept]).statistic)
    np.testing.assert_allclose(found.without, slow)
    error = np.sqrt(4 / 5 * sum((r - np.mean(slow)) ** 2 for r in slow))
    half = stats.t.ppf(0.975, 4) * error
    assert found.low == pytest.approx(max(found.estimate - half, -1))
    assert found.high == pytest.approx(min(found.estimate + half, 1))
    assert (found.n_pairs, found.n_languages) == (10, 5)


def test_a_pair_correlation_of_three_languages_is_undefined():
    pairs = language_pairs(3)
    found = pair_correlation(
        np.array([1.0, 2, 3]), np.array([1.0, 3, 2]), pairs, n_perm=9, rng=np.random.default_rng(0)
    )
    assert np.isnan([found.estimate, found.low, found.high, found.p]).all()
    assert (found.n_pairs, found.n_languages) == (3, 3)


def test_pairs_without_a_value_do_not_count():
    rng = np.random.default_rng(0)
    pairs = language_pairs(6)
    x, y = rng.normal(size=15), rng.normal(size=15)
    last = np.array([5 in pair for pair in pairs])
    y[last] = np.nan
    found = pair_correlation(x, y, pairs, n_perm=99, rng=np.random.default_rng(1))
    fewer = pair_correlation(x[~last], y[~last], language_pairs(5), n_perm=99, rng=np.random.default_rng(1))
    assert found.n_languages == 5
    np.testing.assert_allclose([found.estimate, found.low, found.p], [fewer.estimate, fewer.low, fewer.p])


def of_languages(rng, n_languages):
    """Values of pairs that depend on each other through their languages alone."""
    own = rng.normal(size=n_languages)
    return np.array([own[a] + own[b] for a, b in language_pairs(n_languages)]) + 0.3 * rng.normal(
        size=n_languages * (n_languages - 1) // 2
    )


def test_relabeling_languages_keeps_the_level_where_pairs_as_data_do_not():
    rng = np.random.default_rng(4)
    pairs, trials = language_pairs(8), 300
    relabeled = naive = covered = 0
    for _ in range(trials):
        x, y = of_languages(rng, 8), of_languages(rng, 8)
        found = pair_correlation(x, y, pairs, n_perm=99, rng=rng)
        relabeled += found.p <= 0.05
        covered += found.low < 0 < found.high
        naive += stats.pearsonr(x, y).pvalue <= 0.05
    assert within_chance(relabeled, trials, 0.05)
    assert naive > 3 * relabeled
    # Eight languages are few for a jackknife: it covers somewhat less than it says.
    assert covered / trials > 0.88


def test_a_jackknife_is_undefined_where_the_estimate_depends_on_one_language():
    assert np.isnan(jackknife_interval(0.5, np.array([0.4, 0.5, np.nan, 0.6]), 0.95)).all()
    assert jackknife_interval(1.0, np.ones(5), 0.95) == (1.0, 1.0)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20))
def test_benjamini_yekutieli_is_benjamini_hochberg_times_a_harmonic_sum(p):
    m = len(p)
    order = np.argsort(p)
    slow, highest = np.empty(m), 1.0
    for rank in range(m, 0, -1):
        highest = min(highest, p[order[rank - 1]] * m * sum(1 / k for k in range(1, m + 1)) / rank)
        slow[order[rank - 1]] = highest
    np.testing.assert_allclose(benjamini_yekutieli(pd.Series(p)), slow)


def test_benjamini_yekutieli_leaves_out_what_is_undefined():
    q = benjamini_yekutieli(pd.Series([0.01, np.nan, 0.04]))
    np.testing.assert_allclose(q, [0.03, np.nan, 0.06])
    assert benjamini_yekutieli(pd.Series([np.nan])).isna().all()


def test_benjamini_yekutieli_holds_the_false_discovery_rate_of_p_values_that_exclude_each_other():
    rng = np.random.default_rng(5)
    # Two-sided p of contrasts of few groups depend on each other negatively, which Benjamini-Hochberg does not cover.
    false = 0
    for _ in range(1000):
        group = rng.normal(size=4)
        t = [(group[a] - group[b]) / np.sqrt(2) for a, b in language_pairs(4)]
        false += (benjamini_yekutieli(pd.Series(2 * stats.norm.sf(np.abs(t)))) <= 0.05).any()
    assert false <= stats.binom.ppf(0.999, 1000, 0.05)
