import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import average_precision_score, roc_auc_score

from babelscope.analyses.language_specific import (
    detectors,
    expected_counts,
    lape,
    script_contrast,
    shared_counts,
)
from babelscope.analyses.recipes.language_neurons import LanguageNeurons
from babelscope.analyses.statistics import NOT_TESTABLE, SUPPORTED
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError

from .planted import write_store


def lape_by_loops(rates, top_rate, percentile):
    """Section 2.2 of arXiv:2402.16438, neuron by neuron."""
    bound = np.percentile(rates, percentile)
    entropies = {}
    for k, row in enumerate(rates):
        if row.sum() > 0 and row.max() >= bound:
            entropies[k] = -sum(p / row.sum() * np.log(p / row.sum()) for p in row if p > 0)
    chosen = sorted(entropies, key=lambda k: (entropies[k], k))[: max(1, round(top_rate * len(rates)))]
    return {(k, l) for k in chosen for l in range(rates.shape[1]) if rates[k, l] >= bound and rates[k, l] > 0}  # noqa: E741


@given(st.integers(0, 10_000), st.floats(0.01, 0.5), st.floats(50, 99))
@settings(max_examples=30, deadline=None)
def test_lape_is_its_definition_neuron_by_neuron(seed, top_rate, percentile):
    rates = np.random.default_rng(seed).integers(0, 11, size=(40, 3)) / 10
    found = lape(rates, top_rate, percentile)
    assert {(int(k), int(g)) for k, g in np.argwhere(found)} == lape_by_loops(rates, top_rate, percentile)


def test_neurons_that_never_fire_are_of_no_language():
    rates = np.zeros((50, 3))
    rates[:3] = [[0.9, 0, 0], [0, 0.9, 0], [0.5, 0.5, 0.5]]
    assert lape(rates, 0.1, 95).sum(axis=1).nonzero()[0].tolist() == [0, 1, 2]
    assert not lape(np.zeros((50, 3)), 0.1, 95).any()


def test_detectors_are_those_of_scikit_learn():
    x = np.random.default_rng(0).normal(size=(3, 10, 4)).round(1)
    found = detectors(x)
    for own in range(3):
        label = np.repeat(np.arange(3) == own, 10)
        for k in range(4):
            scores = x[:, :, k].ravel()
            assert found.auroc[own, k] == pytest.approx(roc_auc_score(label, scores))
            assert found.average_precision[own, k] == pytest.approx(average_precision_score(label, scores))


def test_average_precision_of_silent_rows_does_not_depend_on_the_order_of_languages():
    x = np.random.default_rng(0).normal(size=(3, 20, 50)).clip(0)
    found, turned = detectors(x).average_precision, detectors(x[::-1]).average_precision
    assert_allclose(found, turned[::-1])
    assert_allclose(detectors(np.zeros((3, 8, 1))).average_precision, 1 / 3)


def test_ranks_within_items_hold_their_level_where_items_differ_and_languages_do_not():
    rng = np.random.default_rng(0)
    x = 5 * rng.normal(size=(1, 30, 2000)) + rng.normal(size=(4, 30, 2000))
    assert 0.04 < (detectors(x).p < 0.05).mean() < 0.06


def test_constant_neurons_have_no_p_and_no_preference():
    found = detectors(np.zeros((3, 8, 2)))
    assert np.isnan(found.p).all()
    assert_allclose(found.auroc, 0.5)


def test_kinds_of_sharing_are_counted_and_expected_as_written_out():
    rng = np.random.default_rng(0)
    firing = rng.random((3, 5, 20)) < 0.4
    counts = shared_counts(firing)
    for q in range(5):
        numbers = [int(firing[:, q, k].sum()) for k in range(20)]
        assert counts[:, q].tolist() == [numbers.count(0), numbers.count(1), numbers.count(2), numbers.count(3)]
    rates = rng.random((3, 6))
    expected = np.zeros(4)
    for k in range(6):
        for a in (0, 1):
            for b in (0, 1):
                for c in (0, 1):
                    p = np.prod([r if on else 1 - r for r, on in zip(rates[:, k], (a, b, c), strict=True)])
                    expected[a + b + c] += p
    assert_allclose(expected_counts(rates), expected)


def test_scripts_are_contrasted_by_relabeling_languages():
    chosen = np.zeros((60, 6), dtype=bool)
    for own, start in enumerate((0, 0, 0, 30, 30, 30)):
        chosen[start : start + 20, own] = True
        chosen[50 + own, own] = True
    scripts = ["Latin"] * 3 + ["Han"] * 3
    observed, null, p = script_contrast(chosen, scripts, 499, np.random.default_rng(0))
    assert observed == pytest.approx(20 / 22)
    assert abs(null) < 0.2
    assert p < 0.15  # of 20 ways to halve six languages 2 are as extreme
    assert script_contrast(chosen, ["Latin"] * 6, 99, np.random.default_rng(0)) is None
    assert script_contrast(chosen, list("abcdef"), 99, np.random.default_rng(0)) is None


def store_of(path, *, planted):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 40, 200)) - 0.8 + rng.normal(size=(2, 1, 40, 200))
    if planted:
        x[0, 1, :, :20] += 4  # twenty neurons of German in the first layer
        x[0, [0, 2], :, :20] -= 4
    return write_store(path / "run.acts", {"mlp.act": x.astype(np.float32)})


def run(store, **options):
    results = LanguageNeurons(top_rate=0.05).run(make_study(store, n_boot=200, n_perm=99, **options))
    return {r.name: r.table for r in results}


def test_planted_neurons_are_found_in_their_language_and_layer(tmp_path):
    found = run(store_of(tmp_path, planted=True))
    table = found["language_neurons"].set_index(["claim", "language_a"])
    assert table.loc[("specificity of LAPE neurons (nats)", "de"), "verdict"] == SUPPORTED
    assert table.loc[("LAPE neurons (paper)", "de"), "estimate"] >= 20
    stability = table.loc["LAPE neurons (paper)", "stability"]
    assert stability["de"] > 0.8
    found_in = table.loc["LAPE neurons (paper)", "estimate"] > 0
    assert (stability.notna() == found_in).all()
    for other in ("en", "sw"):
        assert table.loc[("specificity of LAPE neurons (nats)", other), "verdict"] != SUPPORTED
    listed = found["language_neurons_detectors"]
    best = listed[(listed["language"] == "de") & (listed["end"] == "positive")].head(20)
    assert set(best["neuron"]) == set(range(20))
    assert (best["layer"] == 0).all()
    assert (best["q"] < 1e-6).all()
    layers = found["language_neurons_layers"]
    german = layers[layers["language"] == "de"].set_index("layer")["neurons"]
    assert german[0] >= 20 > german[1]


def test_without_planted_neurons_the_count_is_that_of_permuted_labels(tmp_path):
    table = run(store_of(tmp_path, planted=False))["language_neurons"]
    lape_rows = table[table["claim"].isin(["LAPE neurons (paper)", "specificity of LAPE neurons (nats)"])]
    assert (lape_rows["verdict"] != SUPPORTED).all()
    assert (lape_rows["null"] > 0).all()
    detected = table[table["claim"].str.startswith("share of neurons that detect")]
    assert (detected["estimate"] < 0.02).all()


def test_scripts_that_coincide_with_languages_are_not_testable_and_bad_requests_are_named(tmp_path):
    store = store_of(tmp_path, planted=False)
    table = run(store)["language_neurons"].set_index("claim")
    assert table.loc["overlap of LAPE neurons: same script minus other scripts", "verdict"] == NOT_TESTABLE
    with pytest.raises(BabelScopeError, match="one language has no neurons of its own"):
        run(store, languages=["en"])
    with pytest.raises(BabelScopeError, match=r"holds no mlp\.neurons"):
        LanguageNeurons(site="mlp.neurons").run(make_study(store))
