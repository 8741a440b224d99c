import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from babelscope.analyses.active import POOLED, RULES, active_neurons, check_thresholds, strictness
from babelscope.errors import BabelScopeError

BLOCK = arrays(np.float32, (2, 5, 6), elements=st.floats(-2, 2, width=16))
GRIDS = {
    "absolute": (0.2, 0.5), "quantile": (0.3, 0.9), "language_quantile": (0.3, 0.9), "top": (0.2, 0.5),
    "z": (0.53, 1.47), "language_z": (0.53, 1.47), "signed": (0.0, 0.3),
}  # fmt: skip


def slow_quantile(values, share):
    """The smallest value with at least the share of all values at or below it."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered) - 1e-12), 1) - 1]


def slow_z(values, v):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((w - mean) ** 2 for w in values) / len(values))
    return abs(v - mean) / deviation if min(values) < max(values) else math.nan


def slow_active(x, threshold, rule):
    """The definitions, one neuron of one prompt at a time."""
    languages, items, units = x.shape
    x = x.astype(float).tolist()
    active = np.zeros((languages, items, units), dtype=bool)
    everything = [abs(v) for block in x for row in block for v in row]
    for g in range(languages):
        own = [abs(v) for row in x[g] for v in row]
        for i in range(items):
            strongest = sorted((abs(v) for v in x[g][i]), reverse=True)
            for k in range(units):
                v = x[g][i][k]
                pooled = [x[h][j][k] for h in range(languages) for j in range(items)]
                active[g, i, k] = {
                    "absolute": lambda v=v: abs(v) > threshold,
                    "signed": lambda v=v: v > threshold,
                    "quantile": lambda v=v: abs(v) > slow_quantile(everything, threshold),
                    "language_quantile": lambda v=v, own=own: abs(v) > slow_quantile(own, threshold),
                    "top": lambda v=v, s=strongest: abs(v) > s[max(1, round(threshold * units))],
                    "z": lambda v=v, pooled=pooled: slow_z(pooled, v) > threshold,
                    "language_z": lambda v=v, g=g, k=k: slow_z([x[g][j][k] for j in range(items)], v) > threshold,
                }[rule]()
    return active


@pytest.mark.parametrize("rule", RULES)
@given(BLOCK)
def test_every_rule_equals_its_definition(rule, x):
    for threshold in GRIDS[rule]:
        np.testing.assert_array_equal(active_neurons(x, threshold, rule), slow_active(x, threshold, rule))


@pytest.mark.parametrize("rule", RULES)
@given(BLOCK)
def test_stricter_thresholds_leave_subsets(rule, x):
    ordered = [GRIDS[rule][k] for k in strictness(GRIDS[rule], rule)]
    loose, strict = (active_neurons(x, t, rule) for t in ordered)
    assert not (strict & ~loose).any()


def test_one_cut_for_all_languages_lets_loud_languages_have_more_neurons():
    x = np.random.default_rng(0).normal(size=(2, 30, 40))
    x[1] *= 3
    pooled, own = (active_neurons(x, 0.8, rule).mean(axis=(1, 2)) for rule in ("quantile", "language_quantile"))
    assert pooled.mean() == pytest.approx(0.2, abs=1e-3)
    assert pooled[1] > 2 * pooled[0]
    np.testing.assert_allclose(own, 0.2, atol=1e-3)


def test_z_takes_away_neurons_that_are_always_on_and_language_z_offsets_of_languages():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 200, 3))
    x[:, :, 0] += 50  # loud, whatever is asked
    x[1, :, 1] += 50  # loud in one language
    assert active_neurons(x, 2.0)[:, :, 0].all()
    assert active_neurons(x, 2.0, "z")[:, :, 0].mean() < 0.1
    assert active_neurons(x, 0.9, "z")[:, :, 1].mean() > 0.9  # both languages lie one deviation from their mean
    assert active_neurons(x, 2.0, "language_z")[:, :, 1].mean() < 0.1


@pytest.mark.parametrize("rule", ["z", "language_z"])
def test_neurons_that_never_change_are_inactive(rule):
    x = np.random.default_rng(0).normal(size=(2, 7, 4)).astype(np.float32)
    x[..., 1] = 0.1  # seven times 0.1 in float32 has a mean that is not 0.1
    x[..., 2] = 0.0
    active = active_neurons(x, 0.0, rule)
    assert not active[..., 1:3].any()
    assert active[..., [0, 3]].all()


@pytest.mark.parametrize("rule", RULES)
def test_rows_that_are_not_finite_move_no_bound(rule):
    x = np.random.default_rng(1).normal(size=(2, 9, 8)).astype(np.float32)
    broken = np.concatenate([x, x[:, :2]], axis=1)
    broken[0, 9, 3], broken[0, 10, 0], broken[1, 9, 1] = np.nan, np.inf, -np.inf
    broken[1, 10] = np.nan
    for threshold in GRIDS[rule]:
        found = active_neurons(broken, threshold, rule)
        np.testing.assert_array_equal(found[:, :9], active_neurons(x, threshold, rule))


@pytest.mark.parametrize("rule", RULES)
def test_nothing_is_active_where_no_row_is_finite_or_there_is_one_silent_item(rule):
    assert not active_neurons(np.full((2, 3, 4), np.nan, np.float32), GRIDS[rule][1], rule).any()
    assert not active_neurons(np.zeros((2, 1, 4), np.float32), GRIDS[rule][1], rule).any()


@pytest.mark.parametrize(("value", "rule"), [(-1.0, "z"), (math.nan, "language_z"), (1.0, "quantile"), (0.0, "top")])
def test_thresholds_that_a_rule_cannot_mean_are_refused(value, rule):
    with pytest.raises(BabelScopeError) as caught:
        check_thresholds([value], rule)
    assert caught.value.hint


def test_pooled_rules_are_those_whose_bounds_change_with_another_language():
    x = np.random.default_rng(2).normal(size=(2, 12, 10)) * np.array([1.0, 4.0])[:, None, None]
    for rule in RULES:
        alone, together = active_neurons(x[0], GRIDS[rule][0], rule), active_neurons(x, GRIDS[rule][0], rule)[0]
        assert (alone != together).any() == (rule in POOLED), rule
