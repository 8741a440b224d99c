import numpy as np
import pytest

from babelscope.analyses.joint import JointOverlap, exceedances, gap_by_item, mismatched_draws, threshold_codes

GRID = (0.1, 0.25, 0.4, 0.9)


def published_overlap(layers, threshold):
    """The authors' script on one item: layers of (language, neuron). Zero where nothing is active."""
    ratios, shared, sizes = [], 0, 0.0
    for x in layers:
        sets = [{k for k, v in enumerate(row) if abs(float(v)) > threshold} for row in x]
        overlap, mean = len(set.intersection(*sets)), sum(map(len, sets)) / len(sets)
        ratios.append(overlap / mean if mean else 0.0)
        shared, sizes = shared + overlap, sizes + mean
    return sum(ratios) / len(ratios), shared / sizes if sizes else float("nan")


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 5, 12)).astype(np.float32) * 0.5  # layer, language, item, neuron
    x[1, :, 2] = 0.0  # an item that activates nothing in layer 1
    x[:, :, 4] = 0.0  # and one that activates nothing anywhere
    return x


def test_both_forms_equal_the_published_definitions(layers):
    joint = JointOverlap(GRID)
    true = np.broadcast_to(np.arange(5, dtype=np.int32), (1, 4, 5))
    parts = [joint.parts(x, true) for x in layers]
    macro = sum(joint.per_layer(p) for p in parts) / 3
    pooled = joint.pooled(sum(p.shared for p in parts), sum(p.size for p in parts))
    for item in range(5):
        for k, threshold in enumerate(GRID):
            expected = published_overlap(layers[:, :, item], threshold)
            np.testing.assert_allclose((macro[0, item, k], pooled[0, item, k]), expected, atol=1e-12)
    assert macro[0, 4, 0] == 0.0  # as the script has it
    assert np.isnan(pooled[0, 4, 0])  # the formula has no value there


def test_a_draw_joins_the_items_that_it_names(layers):
    joint = JointOverlap(GRID)
    draw = np.array([[[1, 0, 3, 2, 4], [0, 1, 2, 3, 4], [3, 2, 0, 1, 4], [2, 3, 1, 0, 4]]], dtype=np.int32)
    value = joint.per_layer(joint.parts(layers[0], draw))
    rearranged = np.stack([layers[0][g, draw[0, g]] for g in range(4)])
    true = np.broadcast_to(np.arange(5, dtype=np.int32), (1, 4, 5))
    np.testing.assert_array_equal(value, joint.per_layer(joint.parts(rearranged, true)))


@pytest.mark.parametrize("count", [1, 17, 40, 300])
def test_one_pass_equals_one_threshold_at_a_time(count):
    x = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32)
    grid = tuple(np.linspace(0, 2, count).tolist())
    above = exceedances(threshold_codes(x, grid), count)
    for k, threshold in enumerate(grid):
        assert above[:, k].tolist() == [sum(abs(float(v)) > threshold for v in row) for row in x]


def test_overlap_is_one_for_identical_languages_and_undefined_for_broken_rows():
    x = np.tile(np.random.default_rng(2).normal(size=(1, 3, 20)), (4, 1, 1)).astype(np.float32)
    x[2, 1, 5] = np.nan
    joint = JointOverlap((0.3,))
    value = joint.per_layer(joint.parts(x, np.broadcast_to(np.arange(3, dtype=np.int32), (1, 4, 3))))[0, :, 0]
    assert value[[0, 2]].tolist() == [1.0, 1.0]
    assert np.isnan(value[1])


def test_mismatched_joins_never_repeat_an_item():
    draws = mismatched_draws(9, 5, 30, np.random.default_rng(0))
    assert (np.sort(draws, axis=2) == np.arange(9)).all()
    assert all(len(set(draws[r, :, i])) == 5 for r in range(30) for i in range(9))
    assert mismatched_draws(3, 5, 2, np.random.default_rng(0)).shape == (2, 5, 3)


def test_mean_gap_is_the_true_joins_minus_the_mismatched_ones():
    rng = np.random.default_rng(3)
    draws = mismatched_draws(8, 3, 20, rng)
    values, matched = rng.random((20, 8, 2)), rng.random((8, 2))
    gap = gap_by_item(matched, values, draws)
    np.testing.assert_allclose(gap.mean(axis=1), matched.mean(axis=0) - values.mean(axis=(0, 1)), atol=1e-12)


def test_gap_of_two_languages_is_that_of_the_pair_engine():
    from babelscope.analyses.pairs import pair_scores

    S = np.random.default_rng(4).random((6, 6))
    # Every join of two different items once: item i of the first language with item i + s of the second.
    draws = np.array([[np.arange(6), (np.arange(6) + s) % 6] for s in range(1, 6)], dtype=np.int32)
    values = np.array([[[S[a, b]] for a, b in zip(*draw, strict=True)] for draw in draws])
    np.testing.assert_allclose(gap_by_item(np.diag(S)[:, None], values, draws)[0], pair_scores(S).gap, atol=1e-12)
