"""Languages relabeled as a whole: by hand, against slow references, calibrated on nulls, recovered where planted."""

from itertools import combinations, permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression
from sklearn.metrics import cohen_kappa_score

from babelscope.analyses.pairs import language_pairs
from babelscope.analyses.recipes.typology import Typology, pair_behavior
from babelscope.analyses.statistics import NOT_TESTABLE, SUPPORTED
from babelscope.analyses.study import make_study
from babelscope.analyses.typology import complete, dyad_correlation, relabelings
from babelscope.datasets.typology import FEWEST_SHARED, language_types, typological_distance
from babelscope.datasets.words import LANGUAGES
from babelscope.errors import BabelScopeError
from tests.analyses.planted import write_store

TYPES = language_types()


def with_language_effects(rng, n):
    """Values of pairs that are sums of what their languages have, and noise: dependent, and related to nothing."""
    level = rng.normal(size=n)
    return np.array([level[a] + level[b] + 0.3 * rng.normal() for a, b in language_pairs(n)])


def correlate(values, predictor, n, rng, given=None, n_perm=199):
    return dyad_correlation(values[None], predictor, language_pairs(n), n_perm=n_perm, rng=rng, given=given)


def test_the_table_has_our_languages_and_known_values_alone():
    assert set(LANGUAGES) <= set(TYPES)
    assert len(TYPES) >= 40
    for one in TYPES.values():
        assert len(one.features) >= FEWEST_SHARED, one
        assert len(one.script) == 4
    assert TYPES["en"].genus == TYPES["de"].genus != TYPES["fr"].genus
    assert TYPES["fi"].family == TYPES["hu"].family != TYPES["tr"].family
    assert TYPES["ur"].script == TYPES["fa"].script != TYPES["hi"].script


def test_distance_is_the_share_of_known_features_that_differ():
    def made(**features):
        return type(TYPES["en"])("x", "f", "g", "Latn", features)

    a, b = made(a="1", b="1", c="1", d="1", e="1", f="1", g="1"), made(a="1", b="2", c="1", d="1", e="1", f="2", h="1")
    assert typological_distance(a, b) == 2 / 6
    assert np.isnan(typological_distance(a, made(a="1", b="1", c="1", d="1", e="1")))
    for one, other in combinations(TYPES.values(), 2):
        np.testing.assert_equal(typological_distance(one, other), typological_distance(other, one))
    assert typological_distance(TYPES["es"], TYPES["it"]) == 0
    assert typological_distance(TYPES["hi"], TYPES["ur"]) < typological_distance(TYPES["hi"], TYPES["fa"])
    assert typological_distance(TYPES["en"], TYPES["ja"]) > 0.5


def test_p_counts_all_relabelings_of_few_languages():
    rng = np.random.default_rng(0)
    n, pairs = 5, language_pairs(5)
    y, x = with_language_effects(rng, n), with_language_effects(rng, n)
    found = correlate(y, x, n, rng)
    assert found.exact
    square = np.zeros((n, n))
    for (a, b), v in zip(pairs, x, strict=True):
        square[a, b] = square[b, a] = v
    drawn = [abs(stats.spearmanr(y, [square[o[a], o[b]] for a, b in pairs]).statistic) for o in permutations(range(n))]
    observed = abs(stats.spearmanr(y, x).statistic)
    assert found.estimate[0] == pytest.approx(stats.spearmanr(y, x).statistic)
    assert found.p[0] == pytest.approx(np.mean([d >= observed - 1e-12 for d in drawn]))
    assert found.p_naive[0] == pytest.approx(stats.spearmanr(y, x).pvalue)
    assert len(relabelings(7, 9, rng)[0]) == 5040
    assert not relabelings(8, 9, rng)[1]


def test_the_partial_correlation_is_that_of_residuals_of_ranks():
    rng = np.random.default_rng(1)
    n = 7
    y, x, z = (with_language_effects(rng, n) for _ in range(3))
    ranks = [stats.rankdata(v) for v in (y, x, z)]
    away = [v - LinearRegression().fit(ranks[2][:, None], v).predict(ranks[2][:, None]) for v in ranks[:2]]
    assert correlate(y, x, n, rng, given=z).estimate[0] == pytest.approx(np.corrcoef(*away)[0, 1])


@pytest.mark.parametrize("given", [False, True])
def test_language_effects_alone_are_no_relation_and_independent_pairs_would_make_them_one(given):
    hits = naive = 0
    trials, n = 300, 8
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        y, x, z = (with_language_effects(rng, n) for _ in range(3))
        found = correlate(y, x, n, rng, given=z if given else None, n_perm=99)
        hits += found.p[0] <= 0.05
        naive += found.p_naive[0] <= 0.05
    assert 4 <= hits <= 28  # 0.999 interval of 300 at a rate of 0.05
    assert naive > 3 * hits


def test_a_relation_that_script_explains_is_none_given_script():
    rng = np.random.default_rng(3)
    n, pairs = 14, language_pairs(14)
    script = rng.integers(0, 3, n)
    same = np.array([float(script[a] == script[b]) for a, b in pairs])
    distance = 1 - same + 0.5 * rng.normal(size=len(pairs))
    gap = same + 0.3 * rng.normal(size=len(pairs))
    plain, partial = correlate(gap, distance, n, rng), correlate(gap, distance, n, rng, given=same)
    assert plain.p[0] < 0.05 < partial.p[0]
    assert plain.high[0] < 0
    both = correlate(gap - distance, distance, n, rng, given=same)
    assert both.p[0] < 0.05


def test_of_several_layers_the_best_is_no_surer_than_by_itself():
    rng = np.random.default_rng(4)
    values = np.stack([with_language_effects(rng, 9) for _ in range(5)])
    found = dyad_correlation(values, with_language_effects(rng, 9), language_pairs(9), n_perm=499, rng=rng)
    assert (found.p_max >= found.p - 1e-9).all()


def test_a_predictor_that_does_not_vary_has_no_correlation():
    rng = np.random.default_rng(5)
    found = correlate(with_language_effects(rng, 6), np.ones(15), 6, rng)
    assert np.isnan([found.estimate[0], found.p[0], found.low[0]]).all()


def test_languages_with_undefined_pairs_go_until_none_is_left():
    made = np.zeros((2, 4, 4))
    made[0, 1, :] = made[0, :, 1] = np.nan
    assert list(complete(made)) == [0, 2, 3]
    made[1, 2, 3] = made[1, 3, 2] = np.nan
    assert len(complete(made)) == 2


def test_transfer_of_pairs_is_the_mean_of_both_directions():
    correct = np.array([[1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0.0]])
    found = pair_behavior(correct, language_pairs(3), 0.25)
    assert found["excess"][0] == pytest.approx(((2 / 3 - 1 / 2) + (2 / 3 - 1 / 2)) / 2 / 0.75)
    assert found["kappa"][0] == pytest.approx(cohen_kappa_score(correct[0], correct[1]))
    assert np.isnan(found["excess"][1])


SPOKEN = ("en", "de", "fr", "it", "es", "ru", "pl", "ja", "hi", "zh")


def store_near(path, rng, *, related, languages=SPOKEN):
    """States that share items' meanings the more, the less languages differ in grammar; or all alike."""
    n = len(languages)
    shared = np.full((n, n), 0.5) + 0.5 * np.eye(n)
    if related:
        shared = np.exp([[-2 * typological_distance(TYPES[a], TYPES[b]) for b in languages] for a in languages])
    values, vectors = np.linalg.eigh(shared)
    mix = vectors * np.sqrt(np.maximum(values, 0))
    meaning = np.einsum("lk,kiu->liu", mix, rng.normal(size=(n, 40, 32)))
    x = meaning[None] + 0.3 * rng.normal(size=(2, n, 40, 32))
    return write_store(path, {"resid.post": x.astype(np.float32)}, languages=languages)


def run(store, **settings):
    notes = []
    study = make_study(store, n_boot=20, n_perm=199, by=None, note=notes.append)
    return {r.name: r.table for r in Typology(metrics="cs", **settings).run(study)}, notes


def test_a_model_in_which_relatives_are_alike_is_found(tmp_path):
    tables, notes = run(store_near(tmp_path / "s.acts", np.random.default_rng(0), related=True))
    claims = tables["typology"].set_index("claim")
    row = claims.loc["cs raw: gap and typological distance"]
    assert row["verdict"] == SUPPORTED
    assert row["high"] < 0
    assert len(tables["typology_layers"].query("measure == 'cs raw: gap' and predictor == 'same family'")) == 3
    pairs = tables["typology_pairs"].query("measure == 'cs raw: gap'").set_index(["language_a", "language_b"])
    assert len(pairs) == 45
    assert pairs.loc[("fr", "it"), "value"] > pairs.loc[("fr", "ja"), "value"]
    assert pairs.loc[("fr", "it"), ["same_family", "same_genus", "same_script"]].tolist() == [1, 1, 1]
    assert any("leaves out behavior" in note for note in notes)


def test_a_model_that_knows_no_relatives_is_not(tmp_path):
    tables, _ = run(store_near(tmp_path / "s.acts", np.random.default_rng(1), related=False))
    assert not (tables["typology"]["verdict"] == SUPPORTED).any()


def test_four_languages_are_not_testable_and_it_is_said(tmp_path):
    tables, notes = run(store_near(tmp_path / "s.acts", np.random.default_rng(0), related=True, languages=SPOKEN[:4]))
    assert set(tables["typology"]["verdict"]) == {NOT_TESTABLE}
    assert tables["typology"]["estimate"].isna().all()
    assert any("not testable" in note for note in notes)


def test_languages_that_are_not_in_the_table_are_refused_or_left_out(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 20, 8)).astype(np.float32)
    with pytest.raises(BabelScopeError, match="typology knows 0"):
        run(write_store(tmp_path / "a.acts", {"resid.post": x}, languages=("qa", "qb", "qc")))
    tables, _ = run(write_store(tmp_path / "b.acts", {"resid.post": x}, languages=("en", "qb", "zh-Hant")))
    pairs = tables["typology_pairs"]
    assert pd.unique(pairs["language_b"]).tolist() == ["zh-Hant"]


def test_a_code_may_name_another_script(tmp_path):
    x = np.random.default_rng(0).normal(size=(1, 3, 20, 8)).astype(np.float32)
    tables, _ = run(write_store(tmp_path / "s.acts", {"resid.post": x}, languages=("zh", "zh-Hant", "zh_CN")))
    same = tables["typology_pairs"].drop_duplicates(["language_a", "language_b"])
    assert same.set_index(["language_a", "language_b"])["same_script"].to_dict() == {
        ("zh", "zh-Hant"): 0, ("zh", "zh_CN"): 1, ("zh-Hant", "zh_CN"): 0,
    }  # fmt: skip
