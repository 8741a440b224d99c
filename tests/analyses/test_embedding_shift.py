"""Shifts of embeddings are found where they were planted, in the direction they were planted in, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, mannwhitneyu

from babelscope.analyses import make_study
from babelscope.analyses.distributions import exceedance, largest_distance, standardized_difference
from babelscope.analyses.recipes.embedding_shift import EmbeddingShift
from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, SUPPORTED, bootstrap_weights
from babelscope.datasets.perturbed import CONTROLS, DROPPED, MIXED, VARIANTS, WRONG
from babelscope.errors import BabelScopeError
from tests.analyses.planted import write_store

ITEMS, UNITS = 60, 40
CODES = ("en", *VARIANTS)


def planted(path, noise, *, offset=None, positions=("mean", "last"), codes=CODES, seed=0):
    """Two layers; a variant is the original with noise of its own size and a shift that all of its items share."""
    rng = np.random.default_rng(seed)
    layers = []
    for _ in range(2):
        meaning = rng.normal(size=(ITEMS, UNITS))
        rows = [meaning]
        for code in codes[1:]:
            shift = (offset or {}).get(code, 0.0) * rng.normal(size=UNITS)
            rows.append(meaning + noise.get(code, 1.0) * rng.normal(size=(ITEMS, UNITS)) + shift)
        layers.append(np.array(rows))
    values = np.array(layers, dtype=np.float32)
    return write_store(path, {"resid.post": values}, languages=codes, positions=positions)


def run(store, **options):
    study = make_study(store, n_boot=200, n_perm=199, **options)
    results = {r.name: r for r in EmbeddingShift().run(study)}
    return results["embedding_shift"].table.set_index("claim"), results


def test_a_mixed_text_that_stays_closer_is_found_to(tmp_path):
    claims, results = run(planted(tmp_path / "s.acts", {MIXED: 0.5}))
    assert (claims["verdict"] == SUPPORTED).all()
    assert len(claims) == 2 * 2 * (len(CONTROLS) + 1)  # positions, cosines, controls and all of them
    row = claims.loc["raw cosine at mean: mixed is closer than every control"]
    own = [claims.loc[f"raw cosine at mean: mixed is closer than {c}"] for c in CONTROLS]
    assert row["estimate"] == min(r["estimate"] for r in own)
    assert row["p"] == max(r["p"] for r in own)
    differences = results["embedding_shift_differences"].table
    assert (differences["auc_low"] > 0.5).all()
    assert (differences["d_low"] > 0).all()
    assert (differences["ks"] > differences["ks_null"]).all()
    # Cosine of a vector and itself plus noise of half its size, and of its own size.
    cosines = (
        results["embedding_shift_cosines"]
        .table.query("cosine == 'raw'")
        .groupby("variant")["cosine_with_original"]
        .mean()
    )
    assert cosines[MIXED] == pytest.approx(1 / np.sqrt(1.25), abs=0.02)
    assert cosines[DROPPED] == pytest.approx(1 / np.sqrt(2), abs=0.02)


def test_a_mixed_text_as_far_away_as_the_controls_is_not_closer(tmp_path):
    wrong = 0
    for seed in range(3):
        claims, _ = run(planted(tmp_path / f"{seed}.acts", {}, seed=seed, positions=("last",)))
        wrong += (claims["verdict"] == SUPPORTED).sum()
    assert wrong <= 1


def test_a_mixed_text_that_is_farther_supports_nothing(tmp_path):
    claims, results = run(planted(tmp_path / "s.acts", {MIXED: 2.0}))
    assert (claims["estimate"] < 0).all()
    assert (claims["q"] < 0.05).all()
    assert (claims["verdict"] == NOT_DISTINGUISHABLE).all()
    assert (results["embedding_shift_differences"].table["auc_high"] < 0.5).all()


def test_one_control_that_is_as_close_refutes_the_claim_about_every_control(tmp_path):
    claims, _ = run(planted(tmp_path / "s.acts", {MIXED: 0.5, WRONG: 0.5}, positions=("mean",)))
    for kind in ("raw", "centered"):
        named = f"{kind} cosine at mean: mixed is closer than"
        assert claims.loc[f"{named} every control", "verdict"] == NOT_DISTINGUISHABLE
        assert claims.loc[f"{named} {DROPPED}", "verdict"] == SUPPORTED


def test_a_shift_that_all_texts_of_a_variant_share_is_in_the_raw_cosine_alone(tmp_path):
    offset = dict.fromkeys(CONTROLS, 1.5)
    claims, _ = run(planted(tmp_path / "s.acts", {}, offset=offset, positions=("mean",)))
    assert claims.loc["raw cosine at mean: mixed is closer than dropped", "verdict"] == SUPPORTED
    assert claims.loc["raw cosine at mean: mixed is closer than every control", "verdict"] == SUPPORTED
    assert claims.loc["centered cosine at mean: mixed is closer than dropped", "verdict"] == NOT_DISTINGUISHABLE


def test_texts_of_nothing_in_common_are_at_the_null_of_shuffled_items(tmp_path):
    _, results = run(planted(tmp_path / "s.acts", {MIXED: 1e4}, positions=("mean",)))
    table = results["embedding_shift_cosines"].table
    mixed = table[table["variant"] == MIXED]
    assert (mixed["gap"].abs() < 0.06).all()
    assert not (mixed["verdict"] == SUPPORTED).any()
    assert (table.loc[table["variant"] != MIXED, "verdict"] == SUPPORTED).all()


def test_unchanged_texts_are_counted_and_have_no_difference(tmp_path):
    claims, results = run(planted(tmp_path / "s.acts", dict.fromkeys(VARIANTS, 0.0), positions=("mean",)))
    assert (results["embedding_shift_cosines"].table["n_same"] == ITEMS).all()
    assert (claims["estimate"].abs() < 1e-6).all()
    assert not (claims["verdict"] == SUPPORTED).any()
    assert results["embedding_shift_differences"].table["d"].isna().all()


def test_the_published_comparison_is_drawn_where_it_can_be_and_says_what_is_unknown(tmp_path):
    _, results = run(planted(tmp_path / "mean.acts", {MIXED: 0.5}))
    table = results["embedding_shift_paper"].table
    assert set(table["layer"]) == {1}
    assert list(table["control"]) == ["random-token", "dropped"]
    assert (table["p_welch"] < 0.05).all()
    assert any("pooling" in line for line in results["embedding_shift_paper"].provenance["unknown"])
    said = []
    _, results = run(planted(tmp_path / "last.acts", {}, positions=("last",)), note=said.append)
    assert "embedding_shift_paper" not in results
    assert any("position mean" in line for line in said)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(BabelScopeError, match="not all among the languages"):
        run(planted(tmp_path / "a.acts", {}, codes=("en", "de")))
    with pytest.raises(BabelScopeError, match="not all among the languages"):
        run(planted(tmp_path / "b.acts", {}, codes=("en", MIXED)))


values = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=5, max_size=12)


@given(values, st.integers(0, 99))
def test_effects_are_those_of_scipy_and_of_the_definition(a, seed):
    a = np.array(a)
    b = np.random.default_rng(seed).permutation(a) + np.round(np.random.default_rng(seed).normal(size=len(a)), 1)
    weights = bootstrap_weights(len(a), 20, np.random.default_rng(0))
    auc = exceedance(a, b, weights)
    assert auc.estimate == pytest.approx(mannwhitneyu(b, a).statistic / len(a) ** 2)
    ks = largest_distance(a, b, weights, n_perm=20, rng=np.random.default_rng(0))
    assert ks.estimate == pytest.approx(ks_2samp(a, b, method="asymp").statistic)
    d = standardized_difference(a, b, weights)
    if np.std(b - a) > 1e-9:
        assert d.estimate == pytest.approx((b - a).mean() / (b - a).std(ddof=1))
    else:
        assert np.isnan(d.estimate)


def test_intervals_of_effects_are_those_of_resampled_items():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=12), rng.normal(0.5, size=12)
    a[4] = np.nan
    weights = bootstrap_weights(12, 60, rng)
    kept = [i for i in range(12) if i != 4]
    drawn = [[i for i in kept for _ in range(int(w[i]))] for w in weights]
    slow = {
        "d": [(b - a)[r].mean() / (b - a)[r].std(ddof=1) for r in drawn],
        "auc": [mannwhitneyu(b[r], a[r]).statistic / len(r) ** 2 for r in drawn],
        "ks": [ks_2samp(a[r], b[r], method="asymp").statistic for r in drawn],
    }
    found = {
        "d": standardized_difference(a, b, weights), "auc": exceedance(a, b, weights),
        "ks": largest_distance(a, b, weights, n_perm=9, rng=rng),
    }  # fmt: skip
    for name, effect in found.items():
        np.testing.assert_allclose((effect.low, effect.high), np.quantile(slow[name], [0.025, 0.975]), atol=1e-12)


def test_the_distance_of_two_samples_of_one_distribution_is_at_its_null():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        a, b = rng.normal(size=(2, 30))
        weights = bootstrap_weights(30, 5, rng)
        found.append(largest_distance(a, b, weights, n_perm=60, rng=rng))
    assert np.mean([f.estimate - f.null for f in found]) == pytest.approx(0, abs=0.02)
    assert np.mean([f.null for f in found]) > 0.1  # far from zero
