import numpy as np
import pytest
from numpy.testing import assert_allclose

from babelscope.analyses.estimates import columns
from babelscope.analyses.sets import set_cells
from babelscope.analyses.statistics import max_t, resample

from .planted import activations


class MeanProduct:
    """Mean dot product of matched items: its pseudo-value of an item is the item's own dot product."""

    highest = 1.0

    def prepare(self, x):
        return x.astype(float)

    def compare(self, a, b):
        dots = (a * b).sum(axis=1)
        n = len(dots)
        return dots.mean(), (dots.sum() - dots) / (n - 1)

    def shuffled(self, a, b, order):
        return np.array([(a * b[row]).sum(axis=1).mean() for row in order])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(3, 12, 5))


def shuffles(n_items, strata=None):
    return resample(n_items, ["a", "b", "c"], seed=0, group="all", n_boot=50, n_perm=60, strata=strata)


def test_pseudo_values_of_a_mean_are_the_values_it_is_the_mean_of(x):
    cells = set_cells(x, [MeanProduct()], shuffles(12).permutations)
    assert_allclose(cells.matched[0, 0], (x[0] * x[1]).sum(axis=1))
    assert_allclose(cells.matched.mean(axis=-1), cells.observed)


def test_the_null_is_the_mean_over_shuffled_pairings(x):
    resamples = shuffles(12)
    cells = set_cells(x, [MeanProduct()], resamples.permutations)
    for pair, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)]):
        means = []
        for permutation in resamples.permutations:
            means.append(np.mean([x[a, i] @ x[b, j] for i, j in zip(permutation[a], permutation[b], strict=True)]))
        assert_allclose(cells.permuted[0, pair], means)
        assert_allclose(cells.gap[0, pair].mean(), cells.observed[0, pair] - np.mean(means))


def test_items_that_are_not_finite_are_left_out_of_every_pair_and_counted(x):
    x[1, 3, 0] = np.nan
    x[2, 5, 1] = np.inf
    resamples = shuffles(12)
    cells = set_cells(x, [MeanProduct()], resamples.permutations)
    kept = [i for i in range(12) if i not in (3, 5)]
    assert np.isnan(cells.gap[..., [3, 5]]).all()
    assert_allclose(cells.observed[0, 0], np.mean([x[0, i] @ x[1, i] for i in kept]))
    table = columns(cells, resamples.weights, 0.95)
    assert (table["n"] == 10).all()
    assert (table["n_undefined"] == 2).all()


def test_shuffles_stay_within_strata_and_small_strata_have_no_null(x):
    strata = (np.array([0, 1, 2, 3]), np.array([5, 6, 7, 8, 9]), np.array([4, 10]), np.array([11]))
    x[0, 6, 0] = np.nan
    resamples = shuffles(12, strata)
    seen = []

    class Spy(MeanProduct):
        def shuffled(self, a, b, order):
            seen.append(order)
            return super().shuffled(a, b, order)

    cells = set_cells(x, [Spy()], resamples.permutations, strata)
    kept = np.array([0, 1, 2, 3, 5, 7, 8, 9])
    assert (~np.isnan(cells.gap[0, 0])).nonzero()[0].tolist() == kept.tolist()
    for order in seen:
        assert {frozenset(row[:4]) for row in kept[order]} == {frozenset([0, 1, 2, 3])}
        assert {frozenset(row[4:]) for row in kept[order]} == {frozenset([5, 7, 8, 9])}
        assert len({tuple(row) for row in order}) > 20


def test_with_fewer_than_four_usable_items_nothing_is_defined(x):
    x[0, :9] = np.nan
    cells = set_cells(x, [MeanProduct()], shuffles(12).permutations)
    assert np.isnan(cells.observed).all()
    assert np.isnan(cells.gap).all()


def test_a_planted_effect_is_found_and_its_absence_is_not():
    resamples = shuffles(30)
    for shared, found in ((1.0, True), (0.0, False)):
        x = activations(np.random.default_rng(1), 3, 30, 16, shared=shared, language=0.0)
        cells = set_cells(x, [MeanProduct()], resamples.permutations)
        assert (columns(cells, resamples.weights, 0.95)["p"] < 0.05).all() == found


def test_max_t_is_the_share_of_shuffles_whose_highest_standardized_cell_reaches_the_cell():
    rng = np.random.default_rng(0)
    observed = rng.normal(size=4) + np.array([0, 1, 3, 9])
    permuted = rng.normal(size=(4, 99)) * np.array([[1], [2], [3], [1]])
    scaled = [(permuted[c] - permuted[c].mean()) / permuted[c].std() for c in range(4)]
    highest = [max(scaled[c][k] for c in range(4)) for k in range(99)]
    for c, p in enumerate(max_t(observed, permuted)):
        t = (observed[c] - permuted[c].mean()) / permuted[c].std()
        assert p == pytest.approx((1 + sum(h >= t for h in highest)) / 100)


def test_max_t_holds_the_family_wise_error_rate_over_dependent_cells():
    rng = np.random.default_rng(3)
    reached = 0
    for _ in range(400):
        common = rng.normal(size=(1, 100))
        draws = 0.7 * common + rng.normal(size=(20, 100)) * rng.uniform(0.1, 5, size=(20, 1))
        reached += (max_t(draws[:, 0], draws[:, 1:]) <= 0.05).any()
    assert 0.02 <= reached / 400 <= 0.085  # binomial, 400 draws at 0.05: 99.9 % within


def test_max_t_leaves_out_cells_without_a_value_or_without_spread():
    permuted = np.array([np.arange(9.0), np.full(9, 2.0), np.arange(9.0)])
    p = max_t(np.array([20.0, 2.0, np.nan]), permuted)
    assert p[0] == pytest.approx(0.1)
    assert np.isnan(p[1:]).all()
