import numpy as np
import pandas as pd
import pytest
from scipy import stats

from babelscope.analyses.pairs import pair_scores, permuted_means
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.similarities.cosine_centered import CenteredCosine
from babelscope.analyses.similarities.overlap import Overlap
from babelscope.analyses.statistics import (
    benjamini_hochberg,
    bootstrap_weights,
    contrast,
    interval,
    permutation_p,
    resample,
    resampled_means,
    verdicts,
)
from tests.analyses.planted import activations


def test_p_follows_the_add_one_rule():
    permuted = np.array([0.1, 0.2, 0.3, 0.4])
    p = permutation_p(np.array([0.5, 0.3, 0.0, np.nan]), np.tile(permuted, (4, 1)))
    np.testing.assert_allclose(p, [1 / 5, 3 / 5, 1.0, np.nan])


def test_a_shuffle_without_a_value_counts_against_the_effect():
    assert permutation_p(np.array(1.0), np.array([np.nan, 0.0, 0.0])) == pytest.approx(2 / 4)


def test_benjamini_hochberg_worked_by_hand():
    p = pd.Series([0.01, np.nan, 0.04, 0.03])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.03, np.nan, 0.04, 0.04])
    assert benjamini_hochberg(pd.Series([np.nan, np.nan])).isna().all()


def test_every_language_is_shuffled_and_names_alone_decide_how():
    found = resample(6, ["en", "sw"], seed=3, group="g", n_boot=10, n_perm=50)
    assert (np.sort(found.permutations, axis=-1) == np.arange(6)).all()
    assert (found.weights.sum(axis=1) == 6).all()
    more = resample(6, ["de", "sw", "en"], seed=3, group="g", n_boot=10, n_perm=50)
    assert (more.permutations[:, [2, 1]] == found.permutations).all()
    assert (found.permutations[:, 0] != found.permutations[:, 1]).any()
    other = resample(6, ["en", "sw"], seed=3, group="h", n_boot=10, n_perm=50)
    assert (other.weights != found.weights).any()


def test_resampled_means_equal_a_loop_over_the_drawn_items():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 5))
    values[1, 3] = np.nan
    weights = bootstrap_weights(5, 20, rng)
    slow = [[np.nanmean(np.repeat(v, w.astype(int))) for w in weights] for v in values]
    np.testing.assert_allclose(resampled_means(values, weights), slow, atol=1e-12)


def test_interval_is_undefined_where_most_resamples_are():
    low, high = interval(np.array([[1.0, np.nan, np.nan], [1.0, 2.0, np.nan], [1.0, 2.0, 3.0]]), 0.9)
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] == pytest.approx(1.05)
    assert high[2] == pytest.approx(2.9)


def planted_p(similarity, rng, shared, simulations, *, n_items=12, n_units=24):
    found = []
    for k in range(simulations):
        x = activations(rng, 2, n_items, n_units, shared=shared)
        permutations = resample(n_items, ["a", "b"], seed=k, group="g", n_boot=1, n_perm=99).permutations
        S = similarity(x[0], x[1])
        observed = pair_scores(S).matched.mean()
        found.append(permutation_p(observed, permuted_means(S[None], permutations[:, 0], permutations[:, 1])[0]))
    return np.array(found)


@pytest.mark.parametrize("similarity", [Cosine(), CenteredCosine(), Overlap(0.8)], ids=repr)
def test_false_positives_stay_at_the_level_when_nothing_is_shared(similarity):
    p = planted_p(similarity, np.random.default_rng(11), 0.0, 400)
    for alpha in (0.05, 0.2):
        # Central 99.99 % of a binomial: the seed is fixed, and the bound says what luck could do.
        low, high = stats.binom.interval(0.9999, 400, alpha)
        assert low <= (p <= alpha + 1e-9).sum() <= high


def test_a_shared_part_is_found():
    assert (planted_p(CenteredCosine(), np.random.default_rng(12), 1.0, 20) == 0.01).all()


def test_contrast_has_the_sign_of_the_difference_and_a_small_p():
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, size=(2, 40)), rng.normal(0.0, 2.0, size=(2, 60))
    a[1, 3] = np.nan
    weights = bootstrap_weights(40, 500, rng), bootstrap_weights(60, 500, rng)
    found = contrast(a, b, *weights, n_perm=499, level=0.95, rng=rng)
    np.testing.assert_allclose(found.estimate, np.nanmean(a, axis=1) - b.mean(axis=1), atol=1e-12)
    assert (found.low > 0).all()
    assert (found.low < found.estimate).all()
    assert (found.estimate < found.high).all()
    assert (found.p < 0.05).all()
    assert found.n_a.tolist() == [40, 39]
    assert found.n_b.tolist() == [60, 60]


def test_contrast_keeps_its_level_when_groups_differ_in_spread_and_size():
    rng = np.random.default_rng(7)
    # 300 cells at once: the labels are shared between them, the values are independent.
    a, b = rng.normal(0, 3.0, size=(300, 12)), rng.normal(0, 1.0, size=(300, 48))
    found = contrast(
        a, b, bootstrap_weights(12, 20, rng), bootstrap_weights(48, 20, rng), n_perm=399, level=0.95, rng=rng
    )
    low, high = stats.binom.interval(0.9999, 300, 0.05)
    assert low <= (found.p <= 0.05).sum() <= high


def test_a_contrast_of_groups_in_which_hardly_an_item_differs_is_undefined():
    weights = np.ones((50, 20))
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(40):
        a, b = np.full((1, 20), -0.0170), np.full((1, 20), -0.0168)
        b[0, rng.choice(20, 1)] += 0.17
        p = contrast(a, b, weights, weights, n_perm=99, level=0.95, rng=rng).p[0]
        reached += p <= 0.05
        assert np.isnan(p)
    assert reached == 0
    a, b = np.full((1, 20), -0.0170), np.full((1, 20), -0.0168)
    b[0, :9] += 0.17
    assert contrast(a, b, weights, weights, n_perm=199, level=0.95, rng=rng).p[0] <= 0.05


def test_two_constants_that_differ_are_no_evidence_of_a_difference():
    weights = np.ones((50, 12))
    a, b = np.full((1, 12), 0.3), np.full((1, 12), 0.1)
    found = contrast(a, b, weights, weights, n_perm=99, level=0.95, rng=np.random.default_rng(0))
    assert np.isnan(found.p[0])
    assert found.estimate[0] == pytest.approx(0.2)


def test_contrast_of_constant_groups_is_undefined_rather_than_significant():
    weights = bootstrap_weights(5, 20, np.random.default_rng(0))
    same = np.full((1, 5), 0.25)
    found = contrast(same, same, weights, weights, n_perm=99, level=0.95, rng=np.random.default_rng(0))
    assert found.estimate[0] == 0
    assert np.isnan(found.p[0])


def test_verdicts_use_the_fixed_words():
    table = pd.DataFrame(
        {
            "gap": [0.1, 0.1, 0.1, np.nan, 0.1],
            "low": [0.05, 0.05, -0.1, np.nan, 0.05],
            "high": [0.2, 0.2, 0.2, np.nan, 0.2],
            "q": [0.01, 0.2, 0.01, np.nan, 0.01],
            "n": [9, 9, 9, 9, 3],
        }
    )
    words = verdicts(table["gap"], table["low"], table["high"], table["q"], table["n"])
    assert words.tolist() == [
        "supported", "not distinguishable from the null", "not distinguishable from the null",
        "not testable with this data", "not testable with this data",
    ]  # fmt: skip
