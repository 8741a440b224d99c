import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from babelscope import plugins
from babelscope.analyses.active import active_neurons, check_thresholds, float32_floor
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.similarities.cosine_centered import CenteredCosine
from babelscope.analyses.similarities.jaccard import Jaccard
from babelscope.analyses.similarities.overlap import Overlap
from babelscope.errors import BabelScopeError

BLOCK = arrays(np.float32, (4, 6), elements=st.floats(-2, 2, width=32))
ALL = [Cosine(), CenteredCosine(), Overlap(), Jaccard(), Overlap(0.3, "top"), Jaccard(0.6, "language_quantile")]


def slow_overlap(x, y, threshold):
    a = {k for k, v in enumerate(x) if abs(float(v)) > threshold}
    b = {k for k, v in enumerate(y) if abs(float(v)) > threshold}
    dice = 2 * len(a & b) / (len(a) + len(b)) if a or b else math.nan
    return dice, len(a & b) / len(a | b) if a or b else math.nan


def slow_cosine(x, y):
    dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
    lengths = math.sqrt(sum(float(p) ** 2 for p in x)) * math.sqrt(sum(float(q) ** 2 for q in y))
    return dot / lengths if lengths else math.nan


def test_every_file_is_a_similarity_of_item_blocks():
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    for name in plugins.names("similarity"):
        similarity = plugins.load("similarity", name)
        S = similarity(x[0], x)
        assert S.shape == (2, 3, 3)
        assert S.dtype == np.float64
        assert isinstance(similarity.centered_in_sample, bool)
        assert similarity.highest == 1.0 or name == "lift"


@given(BLOCK, BLOCK, st.sampled_from([0.0, 0.1, 0.4, 1.0]))
def test_overlap_and_jaccard_equal_their_definitions(a, b, threshold):
    dice, jaccard = Overlap(threshold)(a, b), Jaccard(threshold)(a, b)
    for i in range(4):
        for j in range(4):
            np.testing.assert_allclose((dice[i, j], jaccard[i, j]), slow_overlap(a[i], b[j], threshold), atol=1e-12)


@given(BLOCK, BLOCK)
def test_cosine_equals_its_definition(a, b):
    found = Cosine()(a, b)
    slow = [[slow_cosine(x, y) for y in b] for x in a]
    # Subnormal entries lose digits when squared one by one; everything else agrees to rounding.
    big = np.abs(a).max(1)[:, None] * np.abs(b).max(1)[None, :] > 1e-30
    np.testing.assert_allclose(found[big], np.array(slow)[big], atol=1e-6)


@pytest.mark.parametrize("similarity", ALL, ids=repr)
@given(BLOCK, BLOCK, st.permutations(range(6)))
def test_order_of_units_changes_nothing(similarity, a, b, order):
    np.testing.assert_allclose(similarity(a[:, order], b[:, order]), similarity(a, b), atol=1e-7)


@pytest.mark.parametrize("similarity", ALL, ids=repr)
@given(BLOCK)
def test_identical_languages_reach_the_highest_value_and_nothing_exceeds_it(similarity, a):
    S = similarity(a, a)
    diagonal = np.diagonal(S)
    np.testing.assert_allclose(diagonal[~np.isnan(diagonal)], 1.0, atol=1e-9)
    assert np.all(np.isnan(S) | (np.abs(S) <= 1 + 1e-9))


def test_is_undefined_not_zero_when_nothing_fires():
    quiet, loud = np.zeros((2, 5), np.float32), np.ones((2, 5), np.float32)
    for similarity in (Overlap(), Jaccard(), Cosine(), CenteredCosine()):
        assert np.isnan(similarity(quiet, quiet)).all(), similarity
    assert (Overlap()(quiet, loud) == 0).all()  # something fires, and nothing is shared
    assert np.isnan(Cosine()(quiet, loud)).all()


def test_rows_that_are_not_finite_are_undefined():
    x = np.ones((3, 4), np.float32)
    x[0] += np.arange(4)
    broken = x.copy()
    broken[1, 2], broken[2, 0] = np.inf, np.nan
    for similarity in (Overlap(), Jaccard(), Cosine()):
        S = similarity(broken, x)
        assert not np.isnan(S[0]).any(), similarity
        assert np.isnan(S[1:]).all(), similarity


@given(BLOCK, BLOCK)
def test_jaccard_and_overlap_rank_alike(a, b):
    dice = Overlap()(a, b)
    np.testing.assert_allclose(Jaccard()(a, b), dice / (2 - dice), atol=1e-12)


def test_threshold_is_strict_and_exact_for_float32():
    at = np.float32(0.4)  # 0.4000000059604645: above the real 0.4
    below = np.nextafter(at, np.float32(0))
    assert active_neurons(np.array([[at, below, -at, 0]], np.float32), 0.4).tolist() == [[True, False, True, False]]
    assert not active_neurons(np.array([[0.5]], np.float32), 0.5).any()
    assert float(float32_floor(0.4)) <= 0.4 < float(np.nextafter(float32_floor(0.4), np.float32(1)))


def test_top_keeps_the_share_asked_for_in_every_prompt():
    x = np.random.default_rng(0).normal(size=(7, 40)) * np.arange(1, 8)[:, None]
    active = active_neurons(x, 0.25, "top")
    assert active.sum(axis=1).tolist() == [10] * 7
    assert np.abs(x)[active].min() > 0
    assert not active_neurons(np.zeros((2, 40)), 0.25, "top").any()


def test_quantile_adapts_to_the_scale_of_a_language():
    x = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    active = active_neurons(x, 0.9, "language_quantile")
    assert active.mean() == pytest.approx(0.1, abs=1e-3)
    assert (active == active_neurons(8 * x, 0.9, "language_quantile")).all()


def test_quantile_is_that_of_the_finite_rows():
    x = np.random.default_rng(0).normal(size=(3, 50, 40)).astype(np.float32)
    broken = x.copy()
    broken[1, 7, 3], broken[1, 9, 0] = np.nan, np.inf
    kept = [i for i in range(50) if i not in (7, 9)]
    found = active_neurons(broken, 0.9, "language_quantile")
    assert (found[1, kept] == active_neurons(x[1, kept], 0.9, "language_quantile")).all()
    assert (found[[0, 2]] == active_neurons(x[[0, 2]], 0.9, "language_quantile")).all()
    S = Overlap(0.9, "language_quantile")(broken[1], x[0])
    assert np.isnan(S[[7, 9]]).all()
    assert (S[kept] > 0).any()
    assert not active_neurons(np.full((4, 5), np.nan, np.float32), 0.9, "language_quantile").any()  # no row is finite


@pytest.mark.parametrize(
    ("value", "rule"), [(-0.1, "absolute"), (float("nan"), "absolute"), (1.0, "top"), (0.0, "top")]
)
def test_thresholds_without_meaning_are_refused(value, rule):
    with pytest.raises(BabelScopeError) as caught:
        check_thresholds([value], rule)
    assert caught.value.hint
