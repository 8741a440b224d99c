import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from babelscope.analyses.metrics.neuron_states import NeuronStates
from babelscope.analyses.pairs import score_pairs
from babelscope.analyses.similarities.agreement import Agreement
from babelscope.analyses.similarities.ruzicka import Ruzicka
from babelscope.analyses.similarities.soft_state import SoftState
from babelscope.analyses.statistics import permutation_p, resample
from tests.analyses.planted import activations

BLOCK = arrays(np.float32, (3, 5), elements=st.floats(-4, 4, width=16))


def slow_ruzicka(x, y, scale, signed):
    def scaled(row):
        row = [float(v) if signed else abs(float(v)) for v in row]
        size = sum(map(abs, row)) if scale == "l1" else math.sqrt(sum(v * v for v in row) / len(row))
        return [v / size for v in row] if size else None

    a, b = scaled(x), scaled(y)
    if a is None or b is None:
        return math.nan
    parts = lambda row: [max(v, 0.0) for v in row] + [max(-v, 0.0) for v in row]  # noqa: E731
    pairs = list(zip(parts(a), parts(b), strict=True))
    return sum(min(p) for p in pairs) / sum(max(p) for p in pairs)


def slow_soft_state(x, y, scale):
    on = [[1 / (1 + math.exp(-float(v) / scale)) for v in row] for row in (x, y)]
    return sum(p * q + (1 - p) * (1 - q) for p, q in zip(*on, strict=True)) / len(x)


@pytest.mark.parametrize("scale", ["l1", "rms"])
@pytest.mark.parametrize("signed", [True, False])
@given(BLOCK, BLOCK)
def test_soft_overlap_equals_its_definition(scale, signed, a, b):
    expected = [[slow_ruzicka(x, y, scale, signed) for y in b] for x in a]
    np.testing.assert_allclose(Ruzicka(scale, signed)(a, b), expected, atol=1e-9)


@given(BLOCK, BLOCK)
def test_soft_states_equal_their_definition(a, b):
    scale = math.sqrt(sum(float(v) ** 2 for v in [*a.ravel(), *b.ravel()]) / (a.size + b.size))
    if scale == 0:
        assert np.isnan(SoftState()(a, b)).all()
        return
    expected = [[slow_soft_state(x, y, scale) for y in b] for x in a]
    np.testing.assert_allclose(SoftState()(a, b), expected, atol=1e-9)


def test_identical_rows_share_everything_and_scale_does_not_count():
    x = np.random.default_rng(0).normal(size=(4, 30))
    for ruzicka in (Ruzicka("l1"), Ruzicka("rms"), Ruzicka(signed=False)):
        np.testing.assert_allclose(np.diag(ruzicka(x, 7 * x)), 1.0, atol=1e-12)
    np.testing.assert_allclose(np.diag(Ruzicka()(x, -x)), 0.0, atol=1e-12)  # opposite signs share nothing
    np.testing.assert_allclose(np.diag(Ruzicka(signed=False)(x, -x)), 1.0, atol=1e-12)


def test_agreement_of_signs_is_the_limit_of_soft_states():
    rng = np.random.default_rng(1)
    x = rng.choice([-1.0, 1.0], size=(2, 4, 50))  # rows far from 0 on the scale of a quiet third language
    quiet = np.full((1, 4, 50), 1e-6)
    blocks = np.concatenate([x, np.repeat(quiet, 4000, axis=0)])
    S = SoftState().prepare(blocks)(0, slice(1, 2))[0]
    np.testing.assert_allclose(S, Agreement(0.0, "signed")(x[0], x[1]), atol=1e-6)


def test_independent_signs_agree_as_often_as_their_rates_say():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 40, 2000)) + np.array([0.5, -0.3])[:, None, None]
    p, q = (x > 0).mean(axis=(1, 2))
    assert Agreement(0.0, "signed")(x[0], x[1]).mean() == pytest.approx(p * q + (1 - p) * (1 - q), abs=2e-3)


def test_scale_of_soft_states_is_that_of_all_languages_in_the_engine():
    x = activations(np.random.default_rng(3), 3, 6, 20, shared=1.0)
    x[2] *= 10
    scale = math.sqrt(np.square(x.astype(float)).mean())
    S = SoftState().prepare(x)(0, slice(1, 3))
    expected = [[[slow_soft_state(a, b, scale) for b in other] for a in x[0]] for other in x[1:]]
    np.testing.assert_allclose(S, expected, atol=1e-9)


@pytest.mark.parametrize("similarity", [Ruzicka(), Ruzicka("rms"), SoftState(), Agreement(0.0, "signed")])
def test_rows_that_are_not_finite_are_undefined_and_touch_nothing_else(similarity):
    x = np.random.default_rng(4).normal(size=(3, 8)).astype(np.float32)
    broken = np.concatenate([x, x[:1]])
    broken[3, 2] = np.inf
    S = similarity(broken, x)
    assert np.isnan(S[3]).all()
    np.testing.assert_allclose(S[:3], similarity(x, x), atol=1e-12)


def test_silent_prompts_are_undefined_not_zero():
    quiet = np.zeros((2, 5), np.float32)
    assert np.isnan(Ruzicka()(quiet, quiet + 1)).all()
    assert np.isnan(SoftState()(quiet, quiet)).all()
    assert (Agreement(0.0, "signed")(quiet, quiet) == 1).all()  # zero is a state


@pytest.mark.parametrize(("shared", "found"), [(1.0, True), (0.0, False)])
def test_planted_meaning_is_found_in_every_variant_and_its_absence_is_not(shared, found):
    x = activations(np.random.default_rng(5), 2, 40, 200, shared=shared)
    resamples = resample(40, ["a", "b"], seed=0, group="g", n_perm=199)
    measures = NeuronStates().measures({})
    block = score_pairs(x, measures, resamples.permutations)
    for k, measure in enumerate(measures):
        p = permutation_p(block.scores.matched[k, 0].mean(), block.permuted[k, 0])
        assert (p < 0.02) == found, (measure.variant, p)
