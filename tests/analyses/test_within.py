"""The null restricted to items that share covariates."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from babelscope import workflows
from babelscope.analyses import analyze
from babelscope.analyses.metric import PairMeasure
from babelscope.analyses.pairs import PairScores, pair_scores, permuted_means, score_pairs, scores_within
from babelscope.analyses.similarities.cosine import Cosine
from babelscope.analyses.similarities.cosine_centered import CenteredCosine
from babelscope.analyses.similarities.overlap import Overlap
from babelscope.analyses.statistics import permutation_p, resample
from babelscope.errors import BabelScopeError
from babelscope.reports import figures, null_items
from tests.analyses.planted import activations, write_store
from tests.analyses.test_pairs import slow_scores

NUMBERS = ("deviation", "effect_size", "auc", "retrieval_ab", "retrieval_ba", "mexa")
CELLS = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])
FEW = {"n_boot": 200, "n_perm": 99}


def strata_of(labels):
    return [np.flatnonzero(np.array(list(labels)) == label) for label in dict.fromkeys(labels)]


def slow_within(S, strata):
    """The definitions, one stratum and one cell at a time."""
    n = len(S)
    matched, gap, parts = [float("nan")] * n, [float("nan")] * n, []
    for rows in strata:
        if len(rows) < 3:
            continue
        sub = [[S[i][j] for j in rows] for i in rows]
        found = slow_scores(sub)
        if found is None:
            continue
        for place, value in found["gap"].items():
            matched[rows[place]], gap[rows[place]] = sub[place][place], value
        off = [sub[i][j] for i in range(len(rows)) for j in range(len(rows)) if i != j and not np.isnan(sub[i][j])]
        mean = sum(off) / len(off)
        parts.append((len(found["gap"]), {**found, "variance": sum((v - mean) ** 2 for v in off) / len(off)}))
    if not parts:
        return matched, gap, None
    items = sum(count for count, _ in parts)
    average = {
        name: sum(count * part[name] for count, part in parts) / items
        for name in ("auc", "retrieval_ab", "retrieval_ba", "mexa", "variance")
    }
    average["deviation"] = average.pop("variance") ** 0.5
    return matched, gap, average


@given(arrays(np.float64, (8, 8), elements=CELLS), st.lists(st.sampled_from("abc"), min_size=8, max_size=8))
def test_scores_within_strata_equal_the_definitions_one_cell_at_a_time(S, labels):
    strata = strata_of([*labels[:7], labels[7] if len(set(labels)) > 1 else "z"])  # two at least
    found = scores_within(S, strata)
    matched, gap, numbers = slow_within(S.tolist(), [list(map(int, rows)) for rows in strata])
    np.testing.assert_allclose(found.matched, matched, atol=1e-12)
    np.testing.assert_allclose(found.gap, gap, atol=1e-12)
    for name in ("deviation", "auc", "retrieval_ab", "retrieval_ba", "mexa"):
        expected = float("nan") if numbers is None else numbers[name]
        assert getattr(found, name) == pytest.approx(expected, abs=1e-12, nan_ok=True), name


@given(arrays(np.float64, (2, 6, 6), elements=CELLS), st.booleans())
def test_one_stratum_gives_the_plain_scores(S, centered):
    plain, within = (
        pair_scores(S, centered_in_sample=centered),
        scores_within(S, [np.arange(6)], centered_in_sample=centered),
    )
    for name in ("matched", "gap", *NUMBERS):
        np.testing.assert_array_equal(getattr(plain, name), getattr(within, name))


@given(
    arrays(np.float64, (2, 9, 9), elements=CELLS),
    st.lists(st.sampled_from("abc"), min_size=9, max_size=9),
    st.permutations("abc"),
    st.permutations(range(9)),
)
def test_neither_names_of_strata_nor_order_of_items_matter(S, labels, names, order):
    renamed = [dict(zip("abc", names, strict=True))[label] for label in labels]
    first, again = scores_within(S, strata_of(labels)), scores_within(S, strata_of(renamed))
    moved = scores_within(S[:, order][:, :, order], strata_of([labels[i] for i in order]))
    for name in ("matched", "gap", *NUMBERS):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        expected = getattr(first, name)
        # A spread of rounding noise alone (1e-17) makes any quotient of it.
        if name != "effect_size":
            at = expected[:, list(order)] if name in ("matched", "gap") else expected
            np.testing.assert_allclose(getattr(moved, name), at, atol=1e-12)


def test_stacks_of_matrices_are_scored_as_one_at_a_time():
    rng = np.random.default_rng(0)
    S, strata = rng.normal(size=(2, 3, 11, 11)), strata_of("aaabbbbcccd")
    S[1, 2, 0, 0] = S[0, 1, 4, 5] = np.nan
    stacked = scores_within(S, strata, centered_in_sample=np.array([[False], [True]]))
    for v, k in np.ndindex(2, 3):
        single = scores_within(S[v, k], strata, centered_in_sample=v == 1)
        for name in ("matched", "gap", *NUMBERS):
            np.testing.assert_allclose(getattr(stacked, name)[v, k], getattr(single, name), atol=1e-12)


def test_items_of_small_strata_have_no_null_and_leave_the_others_alone():
    S = np.random.default_rng(1).normal(size=(9, 9))
    found = scores_within(S, strata_of("aaaabbbcc"))
    assert np.isnan(found.gap).tolist() == np.isnan(found.matched).tolist() == [False] * 7 + [True] * 2
    np.testing.assert_allclose(found.gap[:7], scores_within(S[:7, :7], strata_of("aaaabbb")).gap)
    nothing = scores_within(S, [np.array([i]) for i in range(9)])
    assert all(np.isnan(getattr(nothing, name)).all() for name in ("matched", "gap", *NUMBERS))


def test_shuffles_stay_within_strata_and_reach_everything_there():
    strata = strata_of("abacbabca")
    found = resample(9, ["en", "sw"], seed=0, group="g", n_boot=5, n_perm=400, strata=strata).permutations
    for rows in strata:
        assert (np.sort(found[:, :, rows], axis=-1) == rows).all()
        assert set(found[:, 0, rows[0]]) == set(rows)
    free = resample(9, ["en", "sw"], seed=0, group="g", n_boot=5, n_perm=400)
    one = resample(9, ["en", "sw"], seed=0, group="g", n_boot=5, n_perm=400, strata=[np.arange(9)])
    np.testing.assert_array_equal(free.permutations, one.permutations)
    np.testing.assert_array_equal(free.weights, one.weights)


def test_observed_and_shuffled_means_hold_the_same_items():
    x = activations(np.random.default_rng(2), 2, 8, 16, shared=1.0)
    strata = strata_of("aaaabbcc")  # four items have a null
    permutations = resample(8, ["a", "b"], seed=0, group="g", n_perm=50, strata=strata).permutations
    block = score_pairs(x, [PairMeasure("raw", Cosine())], permutations, strata)
    S = Cosine()(x[0], x[1])
    of_a, of_b = permutations[:, 0, :4], permutations[:, 1, :4]
    np.testing.assert_allclose(block.permuted[0, 0], permuted_means(S[None, :4, :4], of_a, of_b)[0], atol=1e-12)
    assert np.nanmean(block.scores.matched) == pytest.approx(np.diag(S)[:4].mean())
    assert isinstance(block.scores, PairScores)


def stratified(rng, n_languages, labels, n_units, *, stratum, item=0.0):
    """(language, item, unit): a part that all items of a stratum share, and a part of each item."""
    kinds = rng.normal(size=(len(set(labels)), n_units))
    codes = np.unique(labels, return_inverse=True)[1]
    x = activations(rng, n_languages, len(labels), n_units, shared=item)
    return (x + stratum * kinds[codes]).astype(np.float32)


KINDS = list("abcd") * 10


@pytest.mark.parametrize("similarity", [Cosine(), CenteredCosine(), Overlap(1.0)], ids=repr)
def test_what_the_stratum_explains_is_a_gap_without_it_and_none_within(similarity):
    rng = np.random.default_rng(3)
    centered = similarity.centered_in_sample
    plain, within = [], []
    for _ in range(60):
        x = stratified(rng, 2, KINDS, 48, stratum=1.5)
        S = similarity(x[0], x[1])
        plain.append(pair_scores(S, centered_in_sample=centered).gap.mean())
        within.append(scores_within(S, strata_of(KINDS), centered_in_sample=centered).gap.mean())
    error = np.std(within) / np.sqrt(60)
    assert np.mean(plain) > 20 * error
    assert abs(np.mean(within)) < 4 * error
    # A correction by S_ii / (n - 1), as for the plain null, would have pushed the centered gap below zero.
    if centered:
        assert np.diag(S).mean() / 39 > 4 * error


@pytest.mark.parametrize("stratum", [0.0, 1.0, 3.0])
def test_the_centered_gap_within_strata_misses_that_of_known_means_by_less_than_its_share_of_the_items(stratum):
    rng = np.random.default_rng(4)
    strata, n, units = strata_of("abcd" * 3), 12, 200
    plain, corrected, known = [], [], []
    for _ in range(200):
        kinds = stratum * rng.normal(size=(4, units))
        parts = np.tile(kinds, (3, 1)) - kinds.mean(axis=0) + rng.normal(size=(n, units))
        deviations = parts + rng.normal(size=(2, n, units))  # from the mean of each language, were it known
        S = CenteredCosine()(deviations[0] + 5, deviations[1] - 3)
        plain.append(scores_within(S, strata).gap.mean())
        corrected.append(scores_within(S, strata, centered_in_sample=True).gap.mean())
        known.append(scores_within(Cosine()(deviations[0], deviations[1]), strata).gap.mean())
    error = 4 * np.std(np.subtract(corrected, known)) / np.sqrt(200)
    assert abs(np.mean(corrected) - np.mean(known)) < np.mean(known) / n + error
    if stratum == 0:
        assert abs(np.mean(corrected) - np.mean(known)) < np.mean(known) / n**2 + error
        assert np.mean(plain) - np.mean(known) > 0.8 * np.mean(known) / n


def p_within(rng, simulations, *, restricted, item=0.0):
    found = []
    for k in range(simulations):
        x = stratified(rng, 2, KINDS[:16], 24, stratum=1.0, item=item)
        strata = strata_of(KINDS[:16]) if restricted else None
        permutations = resample(16, ["a", "b"], seed=k, group="g", n_boot=1, n_perm=99, strata=strata).permutations
        block = score_pairs(x, [PairMeasure("centered", CenteredCosine())], permutations, strata)
        found.append(permutation_p(block.scores.matched.mean(), block.permuted[0, 0]))
    return np.array(found)


def test_false_positives_of_the_restricted_p_stay_at_the_level_where_only_strata_are_shared():
    p = p_within(np.random.default_rng(5), 400, restricted=True)
    for alpha in (0.05, 0.2):
        # Central 99.99 % of a binomial: the seed is fixed, and the bound says what luck could do.
        low, high = stats.binom.interval(0.9999, 400, alpha)
        assert low <= (p <= alpha + 1e-9).sum() <= high
    assert (p_within(np.random.default_rng(6), 20, restricted=False) <= 0.05).all()
    assert (p_within(np.random.default_rng(7), 20, restricted=True, item=1.0) <= 0.05).all()


RULES = ["add", "sort", "add", "shift"] * 6
ABOUT = [
    {"rule": rule, "depth": i % 2, "serial": i, **({"shade": "red"} if i % 4 == 0 else {})}
    for i, rule in enumerate(RULES)
]
DEMAND = ["knowledge", "knowledge-free", "knowledge-free", "knowledge"] * 6


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(8)
    values = {
        "resid.post": np.stack([stratified(rng, 3, RULES, 96, stratum=3.0) for _ in range(2)]),
        "mlp.act": np.stack([0.2 * stratified(rng, 3, RULES, 96, stratum=3.0) for _ in range(2)]),
    }
    return write_store(tmp_path_factory.mktemp("within") / "run.acts", values, covariates=ABOUT)


def results(store, metrics=("cs", "nao"), **options):
    return {r.name: r for r in analyze(store, metrics, **{**FEW, "by": None, **options})}


def overall(result, variant):
    table = result.table
    return table[(table["variant"] == variant) & table["layer"].isna() & (table["language_a"] == "*")].iloc[0]


def test_an_analysis_within_the_rule_leaves_a_tenth_of_the_gap_at_most_where_the_rule_is_all(store):
    plain, within = results(store, mode="corrected"), results(store, within=["rule"])
    for name, variant in (("cs", "raw"), ("cs", "centered"), ("nao", "overlap")):
        without, restricted = overall(plain[name], variant), overall(within[name], variant)
        assert without["verdict"] == "supported"
        assert restricted["matched"] == pytest.approx(without["matched"])
        assert restricted["gap"] == pytest.approx(restricted["matched"] - restricted["null"])
        assert abs(restricted["gap"]) < 0.1 * without["gap"]
    table = within["cs"].table
    assert (table["n_undefined"] == 0).all()
    assert set(table["mode"]) == {"corrected"}


def test_tables_within_strata_equal_each_stratum_scored_alone(store):
    table = results(store, ["nao"], within=["rule"])["nao"].table
    x = store.select("mlp.act@1", languages=["en", "sw"]).numpy()
    gaps = []
    for rows in strata_of(RULES):
        S = Overlap(0.4)(x[0][rows], x[1][rows])
        gaps += pair_scores(S).gap.tolist()
    row = table[(table["layer"] == 1) & (table["language_a"] == "en") & (table["language_b"] == "sw")]
    assert row["gap"].item() == pytest.approx(np.mean(gaps), abs=1e-9)


def test_a_covariate_that_is_the_same_everywhere_restricts_nothing(store, tmp_path):
    plain = results(store, mode="corrected")
    alike = [dict(about, alike=1) for about in ABOUT]
    again = write_store(
        tmp_path / "alike.acts",
        {s: np.stack([store.select(f"{s}@{k}").numpy() for k in range(2)]) for s in ("resid.post", "mlp.act")},
        covariates=alike,
    )
    for name, result in results(again, within=["alike"]).items():
        pd.testing.assert_frame_equal(result.table, plain[name].table, check_exact=True)


def test_names_of_values_and_order_of_covariates_change_no_number(store, tmp_path):
    blocks = {s: np.stack([store.select(f"{s}@{k}").numpy() for k in range(2)]) for s in ("resid.post",)}
    renamed = [
        dict(about, rule={"add": "z", "sort": "b", "shift": "a"}[rule])
        for about, rule in zip(ABOUT, RULES, strict=True)
    ]
    again = write_store(tmp_path / "renamed.acts", blocks, covariates=renamed)
    expected = results(store, ["cs"], within=["rule", "depth"])["cs"].table
    for within in (["rule", "depth"], ["depth", "rule", "depth"]):
        found = results(again, ["cs"], within=within)["cs"].table
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_items_without_a_null_are_undefined_counted_and_told(store, tmp_path):
    told = []
    analysis = workflows.analyze(store, "cs", by=None, within="shade", note=told.append)
    table = analysis["cs"].table
    assert (table["n"] == 6).all()
    assert (table["n_undefined"] == 18).all()
    assert analysis["cs"].provenance["items_without_null"] == 18
    assert told == ["18 items without a null: too few share their shade"]
    assert f"<dd>{told[0]}</dd>" in analysis.report(tmp_path / "report.html").read_text("utf-8")


def test_strata_are_those_of_each_group(tmp_path):
    rng = np.random.default_rng(9)
    values = {"resid.post": stratified(rng, 3, RULES, 16, stratum=1.5)[None]}
    store = write_store(tmp_path / "two.acts", values, covariates=ABOUT, demand=DEMAND)
    found = results(store, ["cs"], by="auto", within=["rule"])
    assert found["cs"].provenance["groups"] == {"knowledge-free": 12, "knowledge": 12}
    assert list(found) == ["cs", "contrast"]
    assert (found["cs"].table["n"] == 12).all()


def test_provenance_captions_and_report_say_to_what_the_null_was_restricted(store, tmp_path):
    analysis = workflows.analyze(store, ["cs", "nao"], by=None, within=["rule", "depth"], sweep={"threshold": [0.2, 1]})
    about = analysis["cs"].provenance
    assert about["within"] == ("rule", "depth")
    assert about["mode"] == "corrected"
    assert about["null"] == "mismatched items of the same group and rule and depth, in the same two languages"
    assert "shuffled among items of the same rule and depth" in about["p"]
    analysis.save(tmp_path / "tables")
    loaded = workflows.load_analysis(store.path, tmp_path / "tables")
    for one in (analysis, loaded):
        assert one.null == "different items of the same group, rule and depth"
        drawn = figures(one.results)
        assert {f.kind for f in drawn} == {"layers", "threshold", "thresholds by layer", "pairs"}
        assert all("mismatched items of the same group, rule and depth" in f.caption for f in drawn)
        text = one.report(tmp_path / "report.html").read_text("utf-8")
        assert "Null: different items of the same group, rule and depth." in text
    plain = results(store, ["cs"])["cs"]
    assert plain.provenance["within"] == ()
    assert plain.provenance["null"] == "mismatched items of the same group, in the same two languages"
    assert null_items([plain]) == "items of the same group"
    assert null_items(results(store, ["cs"], within=["rule"]).values()) == "items of the same group and rule"


@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ({"within": ["ruel"]}, "no covariate of the items in", "rule"),
        ({"within": ["serial"]}, "no 3 items of group 'all' share serial", "--within"),
        ({"within": ["rule"], "mode": "paper"}, "no null within rule", "--mode corrected"),
    ],
)
def test_a_null_that_cannot_be_restricted_so_is_refused(store, options, problem, hint):
    with pytest.raises(BabelScopeError) as caught:
        results(store, ["cs"], **options)
    assert problem in caught.value.problem
    assert hint in caught.value.hint
