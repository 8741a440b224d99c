import numpy as np
import pytest
from scipy import stats

from babelscope.analyses.rankings import (
    against_shuffles,
    neuron_table,
    probe_weights,
    probeless,
    rank_correlation,
    shuffled_within_layers,
    top_overlap,
)


def test_overlap_and_correlation_are_means_over_pairs_of_languages():
    scores = np.random.default_rng(0).random((3, 20))
    tops = [set(np.argsort(-row)[:5]) for row in scores]
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert top_overlap(scores, 5) == pytest.approx(np.mean([len(tops[a] & tops[b]) / 5 for a, b in pairs]))
    expected = np.mean([stats.spearmanr(scores[a], scores[b]).statistic for a, b in pairs])
    assert rank_correlation(scores) == pytest.approx(expected)


def test_ties_share_the_last_places():
    scores = np.zeros((3, 40))
    assert top_overlap(scores, 10) == pytest.approx(10 / 40)
    scores[:, 5] = 1.0
    assert top_overlap(scores, 1) == 1
    assert np.isnan(top_overlap(np.full((2, 5), np.nan), 2))


def test_one_class_has_no_weights():
    assert np.isnan(probe_weights(np.ones((6, 3)), np.zeros(6, dtype=int))).all()


def test_shuffles_keep_every_neuron_in_its_layer():
    scores = np.arange(24.0).reshape(2, 12)
    shuffled = shuffled_within_layers(scores, 4, np.random.default_rng(0))
    for before, after in zip(scores.reshape(2, 3, 4), shuffled.reshape(2, 3, 4), strict=True):
        for layer, again in zip(before, after, strict=True):
            assert sorted(layer) == sorted(again)
    assert not np.array_equal(shuffled, scores)


def test_layers_alone_establish_nothing():
    rng = np.random.default_rng(0)
    layers = np.repeat(np.arange(4.0), 50)
    independent = layers + 0.1 * rng.random((3, 200))
    found = against_shuffles(rank_correlation, independent, 50, 199, rng)
    assert found.value > 0.8
    assert found.p > 0.05
    common = layers + 0.1 * rng.random(200) + 0.02 * rng.random((3, 200))
    assert against_shuffles(rank_correlation, common, 50, 199, rng).p == pytest.approx(1 / 200)


def test_listed_neurons_have_the_t_test_of_their_items():
    x = np.random.default_rng(0).normal(size=(12, 2, 3))
    x[:, 1, 2] += 5
    x[3] = np.nan
    table = neuron_table(x, 2)
    first = table.iloc[0]
    values = np.delete(x[:, 1, 2], 3)
    assert (first["layer"], first["neuron"], first["n"]) == (1, 2, 11)
    assert first["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    low, high = stats.t.interval(0.95, 10, loc=values.mean(), scale=stats.sem(values))
    assert (first["low"], first["high"]) == pytest.approx((low, high))
    assert first["q"] == pytest.approx(min(1, 6 * first["p"]), rel=1e-6)


@pytest.mark.parametrize("method", [probeless, probe_weights])
def test_a_planted_unit_is_first_whatever_its_scale(method):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = 100 * rng.normal(size=(60, 10))
    x[:, 4] = 0.01 * (labels + 0.3 * rng.normal(size=60))
    x[:, 7] = 1.0
    scores = method(x, labels)
    assert scores.argmax() == 4
    assert scores[7] == 0


def test_probeless_is_the_sum_over_pairs_of_class_means():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(30, 2)), np.arange(30) % 3
    z = (x - x.mean(0)) / x.std(0)
    means = [z[labels == c].mean(0) for c in range(3)]
    expected = abs(means[0] - means[1]) + abs(means[0] - means[2]) + abs(means[1] - means[2])
    np.testing.assert_allclose(probeless(x, labels), expected)
