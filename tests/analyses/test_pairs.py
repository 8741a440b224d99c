import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from babelscope.analyses import pairs
from babelscope.analyses.metric import PairMeasure
from babelscope.analyses.pairs import language_pairs, pair_scores, permuted_means, score_pairs
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.similarities.cosine_centered import CenteredCosine
from babelscope.analyses.similarities.overlap import Overlap
from babelscope.analyses.statistics import resample
from tests.analyses.planted import activations

SMALL = arrays(np.float64, (5, 5), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")]))


def slow_scores(S):
    """The definitions, one cell at a time."""
    n = len(S)
    others = lambda i: [j for j in range(n) if j != i]  # noqa: E731
    kept, rows, columns = [], {}, {}
    for i in range(n):
        rows[i] = [S[i][j] for j in others(i) if not np.isnan(S[i][j])]
        columns[i] = [S[j][i] for j in others(i) if not np.isnan(S[j][i])]
        if not np.isnan(S[i][i]) and (rows[i] or columns[i]):
            kept.append(i)
    if not kept:
        return None
    mean = lambda v: sum(v) / len(v)  # noqa: E731
    half = {i: mean([mean(v) for v in (rows[i], columns[i]) if v]) for i in kept}
    auc, ab, ba = [], [], []
    for i in kept:
        sides = [mean([(S[i][i] > v) + 0.5 * (S[i][i] == v) for v in side]) for side in (rows[i], columns[i]) if side]
        auc.append(mean(sides))
        ab.append(all(S[i][i] > v for v in rows[i]))
        ba.append(all(S[i][i] > v for v in columns[i]))
    null = mean(list(half.values()))
    return {
        "gap": {i: S[i][i] - null - 2 * (half[i] - null) * (n - 1) / (n - 2) for i in kept},
        "m": mean([S[i][i] for i in kept]),
        "n": null,
        "auc": mean(auc),
        "retrieval_ab": mean(ab),
        "retrieval_ba": mean(ba),
        "mexa": mean([x and y for x, y in zip(ab, ba, strict=True)]),
    }


def test_scores_of_three_items_worked_by_hand():
    S = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4], [0.5, 0.6, 0.4]])
    scores = pair_scores(S)
    assert scores.matched.mean() == pytest.approx(0.7)
    assert scores.gap.mean() == pytest.approx(0.7 - 2.1 / 6)
    assert scores.retrieval_ab == pytest.approx(2 / 3)  # 0.4 loses its row to 0.6
    assert scores.retrieval_ba == pytest.approx(2 / 3)  # and ties in its column
    assert scores.mexa == pytest.approx(2 / 3)
    assert scores.auc == pytest.approx((1 + 1 + (0 + 0.75) / 2) / 3)
    off = np.array([0.1, 0.3, 0.2, 0.4, 0.5, 0.6])
    assert scores.effect_size == pytest.approx(0.35 / off.std())


@given(SMALL)
def test_scores_equal_their_definitions_also_where_cells_are_undefined(S):
    found, expected = pair_scores(S), slow_scores(S.tolist())
    if expected is None:
        assert np.isnan(found.gap).all()
        assert np.isnan(found.auc)
        return
    kept = sorted(expected["gap"])
    assert np.flatnonzero(~np.isnan(found.gap)).tolist() == kept
    np.testing.assert_allclose(found.gap[kept], [expected["gap"][i] for i in kept], atol=1e-12)
    assert np.nanmean(found.gap) == pytest.approx(expected["m"] - expected["n"], abs=1e-12)
    for name in ("auc", "retrieval_ab", "retrieval_ba", "mexa"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-12), name


def test_mean_gap_is_the_diagonal_minus_the_rest():
    S = np.random.default_rng(0).normal(size=(3, 7, 7))
    off = ~np.eye(7, dtype=bool)
    gap = pair_scores(S).gap.mean(axis=-1)
    np.testing.assert_allclose(gap, [np.diag(s).mean() - s[off].mean() for s in S], atol=1e-12)


def test_items_that_resemble_everything_have_no_gap():
    r, c = np.random.default_rng(0).normal(size=(2, 9))
    np.testing.assert_allclose(pair_scores(r[:, None] + c[None, :]).gap, 0, atol=1e-12)


def test_spread_of_item_gaps_is_the_sampling_error_of_the_mean_gap():
    rng = np.random.default_rng(2)
    # Large common directions make some items similar to everything: there half a row and half a column mislead.
    tongue = 2 * rng.normal(size=(2, 1, 6))
    means, errors, halved = [], [], []
    for _ in range(600):
        x = tongue + rng.normal(size=(1, 40, 6)) + rng.normal(size=(2, 40, 6))
        S = Cosine()(x[0], x[1])
        gap = pair_scores(S).gap
        half = (S.sum(0) + S.sum(1) - 2 * np.diag(S)) / (2 * 39)
        means.append(gap.mean())
        errors.append(gap.var(ddof=1) / 40)
        halved.append((np.diag(S) - half).var(ddof=1) / 40)
    truth = np.std(means)
    # 600 draws know a standard deviation to 3 %; four of those.
    assert np.sqrt(np.mean(errors)) == pytest.approx(truth, rel=0.12)
    assert np.sqrt(np.mean(halved)) > 1.15 * truth


@pytest.mark.parametrize("undefined", [False, True])
def test_permuted_means_look_up_the_shuffled_pairs(undefined):
    rng = np.random.default_rng(4)
    S = rng.normal(size=(2, 6, 6))
    if undefined:
        S[0, 1, 2] = S[1, 3, 3] = np.nan
    a, b = (resample(6, ["x", "y"], seed=0, group="g", n_perm=20).permutations[:, k] for k in (0, 1))
    slow = [[np.nanmean([s[a[p, i], b[p, i]] for i in range(6)]) for p in range(20)] for s in S]
    np.testing.assert_allclose(permuted_means(S, a, b), slow, atol=1e-12)


def test_centering_correction_removes_the_bias_of_the_null():
    rng = np.random.default_rng(5)
    n = 10
    x = rng.normal(size=(1, n, 4000)) + np.zeros((2, 1, 1))  # identical languages, nearly orthogonal items
    S = CenteredCosine()(x[0], x[1])
    off = S[~np.eye(n, dtype=bool)]
    assert off.mean() == pytest.approx(-1 / (n - 1), abs=1e-3)  # the sunken null
    scores = pair_scores(S, centered_in_sample=True)
    # 10 items of 4,000 units are orthogonal to 1 / sqrt(4000) = 0.016 each, less on average over 90 cells.
    assert scores.gap.mean() == pytest.approx(1.0, abs=5e-3)


def test_all_pairs_and_variants_equal_one_at_a_time(monkeypatch):
    x = activations(np.random.default_rng(6), 4, 8, 16, shared=1.0)
    measures = [PairMeasure("cosine", Cosine()), PairMeasure("overlap", Overlap(0.5), 0.5)]
    permutations = resample(8, list("abcd"), seed=0, group="g", n_perm=30).permutations
    monkeypatch.setattr(pairs, "STACK_BYTES", 8 * 2 * 8 * 8 * 2)  # two pairs at a time
    block = score_pairs(x, measures, permutations)
    for k, (a, b) in enumerate(language_pairs(4)):
        for v, m in enumerate(measures):
            S = m.similarity(x[a], x[b])
            np.testing.assert_allclose(block.scores.gap[v, k], pair_scores(S).gap, atol=1e-12)
            shuffled = permuted_means(S[None], permutations[:, a], permutations[:, b])[0]
            np.testing.assert_allclose(block.permuted[v, k], shuffled, atol=1e-12)
