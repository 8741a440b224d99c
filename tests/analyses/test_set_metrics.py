import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from babelscope import plugins
from babelscope.analyses.arrangements import sums_of_products
from babelscope.analyses.metrics.anc import UnitCorrelation
from babelscope.analyses.metrics.cka import DebiasedCka
from babelscope.analyses.metrics.mutual_knn import SharedNeighbors
from babelscope.analyses.metrics.neuronxa import states
from babelscope.analyses.metrics.rsa import RankedDistances
from babelscope.analyses.retrieval import Found, first_of_row_and_column, first_of_row_or_column
from babelscope.analyses.similarities.cosine import unit_rows
from babelscope.analyses.similarities.cosine_zscored import ZscoredCosine, standardized

N = 9


def hsic(K, L):
    """Song et al. (2012), equation 5, as printed."""
    n = len(K)
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    one = np.ones(n)
    parts = (
        np.trace(K @ L) + (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ K @ L @ one)
    )
    return parts / (n * (n - 3))


def cka(x, y):
    K, L = x @ x.T, y @ y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def rsa(x, y):
    def distances(z):
        return [1 - np.corrcoef(z[i], z[j])[0, 1] for i in range(len(z)) for j in range(i + 1, len(z))]

    return stats.spearmanr(distances(x), distances(y)).statistic


def anc(x, y, size=abs):
    return np.mean([size(np.corrcoef(x[:, k], y[:, k])[0, 1]) for k in range(x.shape[1])])


def mutual_knn(x, y, k=3):
    def neighbors(z, i):
        cosines = {j: z[i] @ z[j] / np.linalg.norm(z[i]) / np.linalg.norm(z[j]) for j in range(len(z)) if j != i}
        return set(sorted(cosines, key=cosines.get)[-k:])

    return np.mean([len(neighbors(x, i) & neighbors(y, i)) / k for i in range(len(x))])


def cosines(x, y):
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in y] for a in x])


def mexa(x, y):
    S = cosines(x, y)
    hits = 0
    for i in range(len(S)):
        others = [S[i, j] for j in range(len(S)) if j != i] + [S[j, i] for j in range(len(S)) if j != i]
        hits += S[i, i] > max(others)
    return hits / len(S)


def retrieval(x, y, csls=0):
    S = cosines(x, y)
    if csls:
        near = [np.mean(sorted(row)[-csls:]) for row in S], [np.mean(sorted(row)[-csls:]) for row in S.T]
        S = np.array([[2 * S[i, j] - near[0][i] - near[1][j] for j in range(len(S))] for i in range(len(S))])
    there = [S[i].argmax() == i for i in range(len(S))]
    back = [S[:, i].argmax() == i for i in range(len(S))]
    return (np.mean(there) + np.mean(back)) / 2


CASES = {
    "cka": (DebiasedCka(), cka, True),
    "rsa": (RankedDistances(), rsa, False),
    "anc": (UnitCorrelation(), anc, True),
    "anc signed": (UnitCorrelation(absolute=False), lambda x, y: anc(x, y, float), True),
    "mutual knn": (SharedNeighbors(3), mutual_knn, True),
    "mexa": (Found(unit_rows, first_of_row_and_column), mexa, False),
    "retrieval": (Found(unit_rows, first_of_row_or_column), retrieval, False),
    "csls": (Found(unit_rows, first_of_row_or_column, 4), lambda x, y: retrieval(x, y, 4), False),
    "neuronxa": (Found(states, first_of_row_and_column), lambda x, y: mexa((x > 0) * 1.0, (y > 0) * 1.0), False),
}


def pair(seed, shared=0.7, n=N):
    rng = np.random.default_rng(seed)
    item = rng.normal(size=(n, 6))
    x, y = (item * shared + rng.normal(size=(n, 6)) for _ in range(2))
    # No item is off altogether.
    x[:, 0], y[:, 0] = np.abs(x[:, 0]), np.abs(y[:, 0])
    return [x, y]


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_the_definition_written_out(name):
    similarity, slow, _ = CASES[name]
    for seed in range(5):
        x, y = pair(seed)
        value, _ = similarity.compare(similarity.prepare(x), similarity.prepare(y))
        assert value == pytest.approx(slow(x, y), abs=1e-6)


@pytest.mark.parametrize("name", [n for n, (_, _, exact) in CASES.items() if exact])
def test_values_without_an_item_are_those_of_the_other_items(name):
    similarity, slow, _ = CASES[name]
    x, y = pair(0)
    _, without = similarity.compare(similarity.prepare(x), similarity.prepare(y))
    assert_allclose(without, [slow(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(N)], atol=1e-6)


def test_rsa_without_an_item_keeps_the_ranks_of_the_other_pairs():
    x, y = pair(0)
    similarity = RankedDistances()
    a, b = similarity.prepare(x), similarity.prepare(y)
    _, without = similarity.compare(a, b)
    for i in range(N):
        kept = [j for j in range(N) if j != i]
        upper = np.triu_indices(N - 1, 1)
        ranks = [z.matrix[np.ix_(kept, kept)][upper] for z in (a, b)]
        assert without[i] == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("name", CASES)
def test_shuffled_values_are_those_of_items_put_in_that_order(name):
    similarity, slow, _ = CASES[name]
    x, y = pair(1)
    order = np.random.default_rng(0).permuted(np.tile(np.arange(N, dtype=np.int32), (6, 1)), axis=1)
    found = similarity.shuffled(similarity.prepare(x), similarity.prepare(y), order)
    if name in ("mexa", "retrieval", "csls", "neuronxa"):  # an item is found where its new partner is the nearest
        cells = similarity._cells(similarity.prepare(x), similarity.prepare(y))
        assert_allclose(found, [np.mean([cells[i, j] for i, j in enumerate(row)]) for row in order])
    else:
        assert_allclose(found, [slow(x, y[row]) for row in order], atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_identical_languages_reach_the_highest_value(name):
    similarity, _, _ = CASES[name]
    x = np.abs(pair(2)[0]) * np.where(np.random.default_rng(0).random((N, 6)) < 0.5, 1, -1)
    x[:, 0] = np.arange(1, N + 1) * np.where(np.arange(N) % 2, 1, -1)
    if name == "neuronxa":
        x = np.where([[i + 1 >> k & 1 for k in range(6)] for i in range(N)], 1.0, -1.0)
    prepared = similarity.prepare(x)
    assert similarity.compare(prepared, prepared)[0] == pytest.approx(similarity.highest)


@given(st.integers(0, 10_000), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=25, deadline=None)
def test_cka_and_rsa_see_neither_scale_nor_rotation_and_anc_sees_no_affine_change(seed, scale, shift):
    x, y = pair(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
    value = DebiasedCka().compare(DebiasedCka().prepare(x), DebiasedCka().prepare(y))[0]
    turned = DebiasedCka().compare(DebiasedCka().prepare(scale * x @ rotation + shift), DebiasedCka().prepare(y))[0]
    assert turned == pytest.approx(value, abs=1e-6)
    anc_ = UnitCorrelation()
    value = anc_.compare(anc_.prepare(x), anc_.prepare(y))[0]
    assert anc_.compare(anc_.prepare(scale * x + shift), anc_.prepare(y))[0] == pytest.approx(value, abs=1e-5)


def test_the_biased_cka_of_random_matrices_is_near_one_and_the_debiased_one_near_zero():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20):
        x, y = rng.normal(size=(2, 20, 2000))
        K, L = (z - z.mean(0) for z in (x, y))
        K, L = K @ K.T, L @ L.T
        assert (K * L).sum() / np.sqrt((K * K).sum() * (L * L).sum()) > 0.9
        found.append(DebiasedCka().compare(DebiasedCka().prepare(x), DebiasedCka().prepare(y))[0])
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(20) + 0.01


def test_constant_units_and_items_are_left_out_or_undefined():
    x, y = pair(0)
    x[:, 2] = 1.0
    anc_ = UnitCorrelation()
    expected = anc(np.delete(x, 2, 1), np.delete(y, 2, 1))
    assert anc_.compare(anc_.prepare(x), anc_.prepare(y))[0] == pytest.approx(expected, abs=1e-6)
    nothing = np.ones((N, 6))
    for name, (similarity, _, _) in CASES.items():
        value, _ = similarity.compare(similarity.prepare(nothing), similarity.prepare(y))
        # All items alike: neighbors by chance, and none is found.
        assert np.isnan(value) or name in ("mutual knn", "mexa", "retrieval", "csls", "neuronxa"), name
    zero = np.zeros((N, 6))
    for name, (similarity, _, _) in CASES.items():
        assert np.isnan(similarity.compare(similarity.prepare(zero), similarity.prepare(y))[0]), name


def test_sums_of_products_are_double_loops():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 5))
    order = np.array([[3, 1, 4, 0, 2]], dtype=np.int32)
    slow = sum(a[i, j] * b[order[0, i], order[0, j]] for i in range(5) for j in range(5))
    assert sums_of_products(a, b, order)[0] == pytest.approx(slow)


def test_a_zscored_cosine_is_not_carried_by_a_dimension_of_huge_variance():
    rng = np.random.default_rng(0)
    item = rng.normal(size=(30, 20))
    x, y = (item + 0.3 * rng.normal(size=(30, 20)) for _ in range(2))
    rogue = 1000 * rng.normal(size=(2, 30))
    x[:, 3], y[:, 3] = rogue
    S = ZscoredCosine()(x, y)
    assert np.diag(S).mean() > 0.8
    slow = cosines((x - x.mean(0)) / x.std(0), (y - y.mean(0)) / y.std(0))
    assert_allclose(S, slow, atol=1e-12)
    assert_allclose(ZscoredCosine().prepare(np.stack([x, y]))(0, slice(1, 2))[0], S, atol=1e-12)


def test_standardizing_leaves_constant_units_at_zero_and_undefined_rows_undefined():
    x = np.random.default_rng(0).normal(size=(6, 3))
    x[:, 1] = 0.1
    x[2, 0] = np.inf
    z = standardized(x)
    assert np.isnan(z[2]).all()
    kept = [0, 1, 3, 4, 5]
    assert_allclose(z[kept, 0], (x[kept, 0] - x[kept, 0].mean()) / x[kept, 0].std())
    assert (z[kept, 1] == 0).all()


@pytest.mark.parametrize("name", ["cka", "rsa", "anc", "mutual-knn", "mexa", "neuronxa", "retrieval"])
def test_set_metrics_declare_what_they_measure(name):
    metric = plugins.load("metric", name)
    measures = metric.measures({})
    assert len({m.variant for m in measures}) == len(measures)
    assert metric.paper({}) is None
