"""Features of attention against loops over patterns, and their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from babelscope.analyses import attention
from babelscope.analyses.similarities.attended_segments import AttendedSegments
from tests.analyses.attending import planted, summaries

MASSES = st.lists(st.floats(0, 1), min_size=6, max_size=6).map(np.array)


def slow_summaries(pattern, spans, query):
    """Own and even summaries of one query by loops over keys."""
    seen = [j for j in range(pattern.shape[1]) if j <= query]
    found = []
    for weight in (lambda j: pattern[query, j], lambda j: 1 / len(seen)):
        entropy = -sum(weight(j) * np.log(weight(j)) for j in seen if weight(j) > 0)
        masses = [sum(weight(j) for j in range(a, b) if j in seen) for a, b in spans]
        found += [entropy, weight(0), sum(weight(j) * (query - j) for j in seen), *masses]
    return np.array(found)


def causal_pattern(rng, n):
    scores = np.where(np.tri(n, dtype=bool), np.exp(rng.normal(size=(n, n))), 0)
    return scores / scores.sum(1, keepdims=True)


def test_the_features_of_a_head_are_those_of_its_pattern():
    rng = np.random.default_rng(0)
    pattern, spans = causal_pattern(rng, 12), [(1, 4), (4, 9), (9, 12)]
    x = slow_summaries(pattern, spans, 11)
    features = attention.head_features(x)
    row = pattern[11]
    assert features[0] == pytest.approx(row[0])
    assert features[1] == pytest.approx(-(row * np.log(row)).sum() / np.log(12))
    assert features[2] == pytest.approx((row * (11 - np.arange(12))).sum() / 12)
    per_token = np.array([row[a:b].sum() / (b - a) for a, b in spans])
    np.testing.assert_allclose(features[3:], np.log2(per_token / per_token.mean()))
    assert len(attention.feature_names(("a", "b", "c"))) == len(features)


@pytest.mark.parametrize("causal", [True, False])
def test_even_mass_is_the_mean_share_of_the_keys_that_each_query_sees(causal):
    rng = np.random.default_rng(1)
    inside = rng.random((15, 3)) < 0.4
    queries = np.array([3, 7, 14])
    found = attention.even_mass(inside, queries, causal=causal)
    for s in range(3):
        expected = []
        for i in queries:
            seen = [j for j in range(15) if j <= i or not causal]
            expected.append(sum(inside[j, s] for j in seen) / len(seen))
        assert found[s] == pytest.approx(np.mean(expected))
    window = np.tri(15, dtype=bool) & ~np.tri(15, k=-4, dtype=bool)
    near = attention.even_mass(inside, np.array([14]), causal=True, seen=window)
    np.testing.assert_allclose(near, inside[11:].mean(0))


def test_the_divergence_is_that_of_scipy_squared():
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(4), (2, 5)), rng.dirichlet(np.ones(4), (2, 6))
    found = attention.jensen_shannon(p, q)
    for g, i, j in np.ndindex(2, 5, 6):
        assert found[g, i, j] == pytest.approx(jensenshannon(p[g, i], q[g, j], base=2) ** 2, abs=1e-12)


@given(MASSES, MASSES)
def test_the_similarity_is_symmetric_bounded_and_one_for_equals(a, b):
    similarity = AttendedSegments(over_even=False)
    x, y = (np.concatenate([[0.5, 0.1, 1], m, [1, 0.1, 2], np.full(6, 1 / 7)])[None] for m in (a, b))
    there, back, same = similarity(x, y), similarity(y, x), similarity(x, x)
    np.testing.assert_array_equal(there, back.T)
    assert np.isnan(there).all() or (0 <= there.item() <= 1)
    assert np.isnan(same).all() == (a.sum() == 0)
    if a.sum() > 0:
        assert same.item() == 1.0


def test_even_attention_is_enriched_nowhere_and_the_same_in_prompts_of_every_length():
    rng = np.random.default_rng(3)
    lengths = rng.integers(2, 40, size=(9, 3))
    x = summaries(lengths, np.ones((9, 3)), 1 / (1 + lengths.sum(-1)))
    features = attention.head_features(x)
    np.testing.assert_allclose(features[:, 3:], 0, atol=1e-5)
    np.testing.assert_allclose(features[:, 1], 1, atol=1e-5)
    np.testing.assert_allclose(AttendedSegments()(x, x), 1, atol=1e-9)
    assert AttendedSegments(over_even=False)(x, x).min() < 0.9


def test_constant_weights_of_segments_have_constant_features_whatever_their_lengths():
    rng = np.random.default_rng(10)
    lengths, weights = rng.integers(2, 40, size=(9, 3)), np.array([0.5, 1.0, 4.0])
    x = summaries(lengths, np.broadcast_to(weights, (9, 3)), rng.uniform(0.1, 0.9, 9))
    expected = np.broadcast_to(np.log2(weights / weights.mean()), (9, 3))
    np.testing.assert_allclose(attention.segment_enrichment(x), expected, atol=1e-5)


def test_segments_that_a_prompt_lacks_are_undefined_and_compared_with_their_like_alone():
    x = planted(np.random.default_rng(4), "c", 2, 6)[:, :, 0].astype(np.float64)
    x[:, 3:, [4, 10]] = np.nan  # the cue
    S = AttendedSegments()(x[0], x[1])
    assert np.isfinite(S[:3, :3]).all()
    assert np.isfinite(S[3:, 3:]).all()
    assert np.isnan(S[:3, 3:]).all()
    assert np.isnan(S[3:, :3]).all()
    x[:, 5, [5, 11]] = np.nan  # one segment is left
    assert np.isnan(AttendedSegments()(x[0], x[1])[5]).all()
    assert np.isnan(attention.head_features(x)[:, 3:, 4]).all()


def test_a_segment_that_the_token_cannot_see_takes_no_part():
    x = np.array([[0.5, 0.1, 1, 0.6, 0.0, 0.3, 1, 0.1, 2, 0.5, 0.0, 0.4]])
    np.testing.assert_allclose(attention.segment_distribution(x, over_even=False), [[2 / 3, np.nan, 1 / 3]])
    features = attention.head_features(x)
    assert np.isnan(features[0, 4])


def test_no_mass_on_any_segment_is_undefined_not_zero():
    x = np.array([[0.0, 1.0, 5, 0, 0, 0, 1.5, 0.2, 2, 0.3, 0.2, 0.3]])
    assert np.isnan(attention.segment_distribution(x, over_even=True)).all()
    assert np.isnan(attention.head_features(x)[0, 3:]).all()
    one_token = np.array([0.0, 1, 0, 1, 1, 0.0, 1, 0, 1, 1])
    assert np.isnan(attention.head_features(one_token)[1])  # a token that sees itself alone has no choice


def slow_icc(x):
    n_languages, n = x.shape
    grand = np.mean(x)
    between = n_languages * sum((x[:, i].mean() - grand) ** 2 for i in range(n)) / (n - 1)
    rest = 0.0
    for g, i in np.ndindex(n_languages, n):
        rest += (x[g, i] - x[:, i].mean() - x[g].mean() + grand) ** 2
    rest /= (n - 1) * (n_languages - 1)
    return (between - rest) / (between + (n_languages - 1) * rest)


def test_the_intraclass_correlation_is_that_of_the_analysis_of_variance():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 12, 2)) + rng.normal(size=(1, 12, 2)) + rng.normal(size=(3, 1, 2))
    found = attention.intraclass_correlation(x)
    for k in range(2):
        assert found[k] == pytest.approx(slow_icc(x[..., k]))
    gaps = x.copy()
    gaps[1, 4, 0] = np.nan
    kept = [i for i in range(12) if i != 4]
    assert attention.intraclass_correlation(gaps)[0] == pytest.approx(slow_icc(x[:, kept, 0]))


def test_the_intraclass_correlation_knows_its_ends():
    items = np.arange(8.0)[None]
    shifted = np.concatenate([items, items + 3, items - 1])
    assert attention.intraclass_correlation(shifted) == pytest.approx(1)
    assert attention.intraclass_correlation(np.concatenate([items, -items])) == pytest.approx(-1)
    assert np.isnan(attention.intraclass_correlation(np.ones((2, 5))))
    assert np.isnan(attention.intraclass_correlation(shifted[:1]))
    assert np.isnan(attention.intraclass_correlation(shifted[:, :1]))
    assert np.isnan(attention.intraclass_correlation(np.full((2, 5), np.nan)))


def slow_profile_similarity(f, a, b):
    languages, heads, features = f.shape
    x, y = [], []
    for k in range(features):
        deviations = np.array([[f[g, h, k] - np.mean(f[:, h, k]) for h in range(heads)] for g in range(languages)])
        scale = np.sqrt((deviations**2).sum() / heads)
        x += list(deviations[a] / scale)
        y += list(deviations[b] / scale)
    return np.corrcoef(x, y)[0, 1]


def test_profiles_are_correlated_without_what_all_languages_share():
    rng = np.random.default_rng(6)
    common = 5 * rng.normal(size=(1, 40, 4))
    f = common + rng.normal(size=(4, 40, 4))
    found = attention.profile_similarity(f)
    for a, b in np.ndindex(4, 4):
        assert found[a, b] == pytest.approx(slow_profile_similarity(f, a, b))
    raw = np.corrcoef(f.reshape(4, -1))
    assert raw[0, 1] > 0.9  # for the heads alone
    off = found[np.triu_indices(4, 1)]
    assert off.mean() == pytest.approx(-1 / 3, abs=0.05)


def test_two_languages_that_share_a_way_are_found_among_four():
    rng = np.random.default_rng(7)
    f = rng.normal(size=(4, 60, 3))
    f[1] = f[0] + 0.3 * rng.normal(size=(60, 3))
    found = attention.profile_similarity(f)
    assert found[0, 1] > 0.8
    assert found[2, 3] < 0.4
    np.testing.assert_allclose(np.diag(found), 1)


def test_profiles_without_a_difference_have_no_similarity():
    f = np.broadcast_to(np.random.default_rng(8).normal(size=(1, 10, 3)), (3, 10, 3))
    assert np.isnan(attention.profile_similarity(f)).all()
    two = attention.profile_similarity(np.random.default_rng(9).normal(size=(2, 10, 3)))
    assert two[0, 1] == pytest.approx(-1)  # by construction: the page says so
    gone = np.full((3, 4, 2), np.nan)
    assert np.isnan(attention.profile_similarity(gone)).all()
