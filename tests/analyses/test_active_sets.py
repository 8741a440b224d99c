import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from babelscope.analyses.active import RULES, active_neurons
from babelscope.analyses.active_sets import ActiveSets, Counts, in_order
from babelscope.analyses.metric import PairMeasure
from babelscope.analyses.pairs import pair_scores, score_pairs
from babelscope.analyses.similarities.agreement import Agreement
from babelscope.analyses.similarities.kappa import Kappa
from babelscope.analyses.similarities.lift import Lift
from babelscope.analyses.similarities.overlap import Overlap
from babelscope.analyses.similarities.phi import Phi
from babelscope.analyses.stacks import similarity_stack
from babelscope.analyses.statistics import resample
from tests.analyses.planted import activations

SETS = arrays(np.bool_, (2, 5, 7))


def slow_values(active):
    """Kappa, phi, lift and agreement of sets (2, item, unit), from Python sets and loops."""
    a, b = ([{k for k, on in enumerate(row) if on} for row in side] for side in active.tolist())
    units, items = active.shape[-1], range(active.shape[1])
    mismatched = [(i, j) for i in items for j in items if i != j]
    shared = sum(len(a[i] & b[j]) for i, j in mismatched) / len(mismatched)
    most = sum(min(len(a[i]), len(b[j])) for i, j in mismatched) / len(mismatched)
    e = shared / most if most else math.nan
    values = {name: np.full((len(a), len(b)), math.nan) for name in ("kappa", "phi", "lift", "agreement")}
    for i in items:
        for j in items:
            both, largest = len(a[i] & b[j]), min(len(a[i]), len(b[j]))
            if largest and e < 1:
                values["kappa"][i, j] = (both - e * largest) / (largest - e * largest)
            if largest and not math.isnan(e):
                values["lift"][i, j] = math.log2((both + 0.5) / (e * largest + 0.5))
            on_a, on_b = ([float(k in side) for k in range(units)] for side in (a[i], b[j]))
            if len(set(on_a)) == len(set(on_b)) == 2:
                values["phi"][i, j] = np.corrcoef(on_a, on_b)[0, 1]
            values["agreement"][i, j] = sum(p == q for p, q in zip(on_a, on_b, strict=True)) / units
    return values


@given(SETS)
def test_coefficients_equal_their_definitions(active):
    x = active.astype(np.float32)
    slow = slow_values(active)
    for similarity in (Kappa(0.5), Phi(0.5), Lift(0.5), Agreement(0.5)):
        found, expected = similarity(x[0], x[1]), slow[type(similarity).__name__.lower()]
        np.testing.assert_allclose(found, expected, atol=1e-9, err_msg=repr(similarity))


@given(SETS)
def test_expected_intersection_follows_from_firing_rates_without_a_shuffle(active):
    a, b = active.astype(float)
    n = len(a)
    closed = (n**2 * (a.mean(0) @ b.mean(0)) - np.sum(a * b)) / (n * (n - 1))
    counts = Counts(a @ b.T, a.sum(1), b.sum(1), a.shape[1])
    off = ~np.eye(n, dtype=bool)
    assert (counts.expected_share * counts.smaller[off].mean()).item() == pytest.approx(closed, nan_ok=True) or (
        counts.smaller[off].sum() == 0
    )


def test_kappa_of_sets_of_one_size_is_the_printed_formula():
    x = activations(np.random.default_rng(0), 2, 12, 60, shared=1.0)
    active = active_neurons(x, 0.2, "top").astype(float)
    shared = active[0] @ active[1].T
    expected = shared[~np.eye(12, dtype=bool)].mean()
    np.testing.assert_allclose(Kappa(0.2, "top")(x[0], x[1]), (shared - expected) / (12 - expected), atol=1e-12)


def test_kappa_is_zero_on_average_without_an_effect_and_one_for_identical_languages():
    x = activations(np.random.default_rng(1), 2, 60, 300, shared=0.0, language=2.0)
    S = Kappa(1.0)(x[0], x[1])
    assert abs(np.diag(S).mean()) < 0.01
    assert np.diag(Overlap(1.0)(x[0], x[1])).mean() > 0.3  # what is shared without any effect
    np.testing.assert_allclose(np.diag(Kappa(1.0)(x[0], x[0])), 1.0, atol=1e-12)


def test_one_expectation_for_all_sizes_would_have_poles_where_kappa_has_none():
    rng = np.random.default_rng(2)
    loudness = np.exp(rng.normal(size=(1, 40, 1)))  # items differ in size, as prompts do
    x = np.abs(activations(rng, 2, 40, 200, shared=1.0)) * loudness
    active = (x > 1.5).astype(float)
    shared, sizes = active[0] @ active[1].T, active.sum(axis=-1)
    smaller = np.minimum(sizes[0][:, None], sizes[1][None, :])
    E = shared[~np.eye(40, dtype=bool)].mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        literal = (shared - E) / (smaller - E)
    found = Kappa(1.5)(x[0], x[1])
    e = E / smaller[~np.eye(40, dtype=bool)].mean()
    assert np.nanmin(found) >= -e / (1 - e) - 1e-12  # where nothing is shared
    assert np.nanmin(literal) < -20


def test_coefficients_of_empty_and_full_sets_are_undefined_not_zero():
    quiet, loud = np.zeros((3, 5), np.float32), np.ones((3, 5), np.float32)
    for similarity in (Kappa(), Phi(), Lift()):
        assert np.isnan(similarity(quiet, loud)).all(), similarity
    assert np.isnan(Kappa()(loud, loud)).all()  # mismatched items share all they could: no room
    assert np.isnan(Phi()(loud, loud)).all()
    np.testing.assert_allclose(Lift()(loud, loud), 0.0, atol=1e-12)
    broken = np.eye(5, dtype=np.float32)
    broken[2, 2] = np.nan
    for similarity in (Kappa(), Phi(), Lift(), Agreement()):
        S = similarity(broken, np.eye(5, dtype=np.float32))
        assert np.isnan(S[2]).all(), similarity
        assert not np.isnan(S[[0, 1, 3, 4]]).any() or isinstance(similarity, (Kappa, Lift)), similarity


@pytest.mark.parametrize("rule", RULES)
def test_counts_of_a_grid_equal_those_of_one_threshold_at_a_time(rule):
    x = activations(np.random.default_rng(3), 3, 6, 40, shared=1.0)
    x[1, 2, 3] = np.inf
    grid = (0.1, 0.3, 0.8)
    order = in_order([Overlap(t, rule) for t in grid])
    sets = ActiveSets.of(x, order, rule)
    for k, threshold in enumerate(order):
        active = active_neurons(x, threshold, rule).astype(float)
        counts = sets.counts(0, slice(1, 3), k)
        for place, language in enumerate((1, 2)):
            np.testing.assert_array_equal(counts.shared[place], active[0] @ active[language].T)
            kept = [i for i in range(6) if (language, i) != (1, 2)]
            np.testing.assert_array_equal(counts.b[place, kept], active[language].sum(axis=1)[kept])
    assert np.isnan(sets.sizes[1, 2]).all()


def test_a_stack_equals_its_similarities_one_by_one():
    x = activations(np.random.default_rng(4), 3, 6, 40, shared=1.0)
    similarities = [Overlap(0.5), Kappa(0.2, "top"), Phi(0.5), Overlap(0.1, "top"), Phi(0.0, "signed"), Overlap(0.2)]
    S = similarity_stack(x, similarities)(0, slice(1, 3))
    assert S.shape == (6, 2, 6, 6)
    for k, similarity in enumerate(similarities):
        np.testing.assert_allclose(S[k], [similarity(x[0], x[1]), similarity(x[0], x[2])], atol=1e-12)


@pytest.mark.parametrize("rule", ["quantile", "z"])
def test_pooled_bounds_rest_on_all_languages_of_the_block_in_the_engine(rule):
    x = activations(np.random.default_rng(5), 3, 8, 30, shared=1.0)
    x[2] *= 5
    threshold = 0.7 if rule == "quantile" else 1.0
    permutations = resample(8, list("abc"), seed=0, group="g", n_perm=5).permutations
    block = score_pairs(x, [PairMeasure("overlap", Overlap(threshold, rule), threshold)], permutations)
    active = active_neurons(x, threshold, rule).astype(np.float32)
    expected = pair_scores(Overlap(0.5)(active[0], active[1])).matched
    np.testing.assert_allclose(block.scores.matched[0, 0], expected, atol=1e-12)
    two = Overlap(threshold, rule)(x[0], x[1])  # by itself it knows of these two alone
    assert not np.allclose(np.diag(two), expected)


@pytest.mark.parametrize("similarity", [Kappa(1.0), Phi(1.0), Lift(1.0), Kappa(0.1, "top"), Phi(1.0, "language_z")])
def test_planted_meaning_is_found_and_its_absence_is_not(similarity):
    rng = np.random.default_rng(6)
    for shared, found in ((1.0, True), (0.0, False)):
        x = activations(rng, 2, 40, 200, shared=shared)
        resamples = resample(40, ["a", "b"], seed=0, group="g", n_perm=199)
        block = score_pairs(x, [PairMeasure("v", similarity)], resamples.permutations)
        higher = (block.permuted[0, 0] >= np.nanmean(block.scores.matched[0, 0])).mean()
        assert (higher < 0.02) == found, (similarity, higher)
