"""The latent language is found where it was planted, and nowhere else; the organism speaks its own languages."""

from dataclasses import replace

import numpy as np
import pytest

import babelscope as bs
from babelscope import workflows
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.bands import MIDDLE, layer_thirds
from babelscope.analyses.latent import AnswerTokens, answer_scores, mass_rows, mean_scores
from babelscope.analyses.recipes.latent_language import LatentLanguage
from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, NOT_TESTABLE, SUPPORTED, bootstrap_weights
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model
from babelscope.hooks.vocabulary import first_tokens
from babelscope.schema import Block, PromptSet, Rows, expand_sites

LANGUAGES = ("en", "zh", "ru")
N = 30


def test_the_matrix_holds_the_summed_probability_of_every_answer_in_every_distribution():
    rng = np.random.default_rng(0)
    sets = [[frozenset(rng.choice(9, size=k % 3, replace=False).tolist()) for k in range(6)] for _ in range(2)]
    answers = AnswerTokens.of(sets)
    p = rng.random((6, len(answers.tokens)))
    counts = answers.answered(1)
    found = answers.matrix(p, 1, counts)
    for i in range(6):
        for j in range(6):
            slow = sum(p[i, answers.tokens.index(token)] for token in sets[1][j])
            assert np.isnan(found[i, j]) if not (sets[1][i] and sets[1][j]) else found[i, j] == pytest.approx(slow)


def test_an_item_without_a_finite_row_is_in_nobodys_null():
    answers = AnswerTokens.of([[frozenset({k}) for k in range(5)]])
    p = np.random.default_rng(0).random((5, 5))
    p[2] = np.nan
    found = answers.matrix(p, 0, answers.answered(0))
    assert np.isnan(found[2]).all()
    assert np.isnan(found[:, 2]).all()
    assert np.isnan(found).sum() == 9


def test_answers_are_apart_where_both_exist_and_share_no_token():
    sets = [[frozenset({1, 2}), frozenset({3}), frozenset(), frozenset({4})],
            [frozenset({2}), frozenset({5}), frozenset({6}), frozenset()]]  # fmt: skip
    assert list(AnswerTokens.of(sets).apart(0, 1)) == [False, True, False, False]


def test_answer_scores_equal_loops_over_cells_and_shuffles():
    rng = np.random.default_rng(0)
    S = rng.random((2, 7, 7))
    S[1, 3] = S[1, :, 3] = np.nan
    order = rng.permuted(np.tile(np.arange(7, dtype=np.int32), (20, 1)), axis=1)
    for k, found in enumerate(answer_scores(S, order)):
        kept = [i for i in range(7) if not np.isnan(S[k, i, i])]
        matched = np.mean([S[k, i, i] for i in kept])
        null = np.mean([S[k, i, j] for i in kept for j in kept if i != j])
        assert np.nanmean(found.gap) == pytest.approx(matched - null)
        assert found.observed == pytest.approx(matched)
        slow = [np.nanmean([S[k, o[i], i] for i in range(7)]) for o in order]
        np.testing.assert_allclose(found.permuted, slow)


def test_three_items_are_undefined_not_zero():
    order = np.tile(np.arange(3, dtype=np.int32), (9, 1))
    (found,) = answer_scores(np.ones((1, 3, 3)), order)
    columns = found.columns(np.ones((5, 3)))
    assert columns["n"] == 0
    assert np.isnan([columns["estimate"], columns["low"], columns["p"]]).all()


def test_an_answer_that_is_likely_everywhere_is_no_answer_of_its_item():
    rng = np.random.default_rng(1)
    hits, trials = 0, 300
    for _ in range(trials):
        # Eight of ten items have one answer, which every distribution favors; nothing ties a row to its own item.
        popular = np.where(rng.random(20) < 0.8, 0.6, 0.02)
        S = rng.random((1, 20, 1)) * popular * np.ones((1, 20, 20)) + 0.05 * rng.random((1, 20, 20))
        order = rng.permuted(np.tile(np.arange(20, dtype=np.int32), (99, 1)), axis=1)
        (found,) = answer_scores(S, order)
        hits += found.columns(np.ones((1, 20)))["p"] <= 0.05
    assert 5 <= hits <= 29  # 0.999 interval of a rate of 0.05


def test_the_mean_over_layers_is_taken_item_by_item():
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(6, dtype=np.int32), (9, 1)), axis=1)
    a, b = answer_scores(rng.random((2, 6, 6)), order)
    mean = mean_scores([a, b])
    np.testing.assert_allclose(mean.gap, (a.gap + b.gap) / 2)
    np.testing.assert_allclose(mean.permuted, (a.permuted + b.permuted) / 2)
    assert mean.observed == pytest.approx((a.observed + b.observed) / 2)


@pytest.mark.parametrize(
    ("n_layers", "middle"), [(1, [0]), (2, []), (3, [1]), (6, [2, 3]), (12, [4, 5, 6, 7]), (5, [2])]
)
def test_middle_layers_are_the_middle_third(n_layers, middle):
    assert layer_thirds(range(n_layers), n_layers)[MIDDLE] == middle


def test_the_mass_of_a_script_stands_beside_that_in_other_languages():
    rng = np.random.default_rng(0)
    masses = {g: rng.random((5, 2)) for g in "abc"}
    rows = mass_rows(masses, ["Latin", "Han"], bootstrap_weights(5, 50, rng))
    row = next(r for r in rows if r["language"] == "b" and r["script"] == "Han")
    assert row["mass"] == pytest.approx(masses["b"][:, 1].mean())
    assert row["null"] == pytest.approx(np.mean([masses["a"][:, 1], masses["c"][:, 1]]))
    assert row["low"] < row["mass"] < row["high"]
    alone = mass_rows({"a": masses["a"]}, ["Latin", "Han"], np.ones((3, 5)))
    assert np.isnan(alone[0]["null"])


@pytest.fixture(scope="module")
def model():
    return load_model(workflows.model_path("organism"), device="cpu")


@pytest.fixture(scope="module")
def prompts(model):
    """Facts whose answers have tokens of their own in the three languages."""
    whole = bs.generate("knowledge-bare", languages=LANGUAGES).parallel()

    def tokens(prompt):
        return first_tokens(model.tokenizer, prompt.options[prompt.gold] if prompt.options else prompt.answer)

    kept, seen = [], set()
    for item in whole.items:
        versions = [p for p in whole.prompts if p.item == item]
        sets = [tokens(p) for p in versions]
        if sum(map(len, sets)) == len(frozenset().union(*sets)) and not seen & frozenset().union(*sets):
            kept.append(item)
            seen |= frozenset().union(*sets)
    return PromptSet(whole.name, tuple(p for p in whole.prompts if p.item in kept[:N]), whole.source)


@pytest.fixture(scope="module")
def captured(prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("captured")
    return bs.capture(folder / "run.acts", model="organism", prompts=prompts, sites=["resid.post"], self_test=False)


def planted(path, captured, model, choose, *, layers="0:6"):
    """The captured store with rows that say the answer of choose(layer, language, item) -> (language, item)."""
    prompts = captured.prompts
    weight = model.anatomy.unembedding.weight.float().numpy()
    norm = model.anatomy.output_stack.final_norm.weight.float().numpy()
    by_key = {(p.language, p.item): p for p in prompts.prompts}
    rng, items = np.random.default_rng(0), captured.items
    sites = expand_sites([f"resid.post@{layers}"], 6)
    plan = replace(captured.plan, sites=sites)
    with StoreWriter.create(path, plan, prompts, {}) as writer:
        for language in captured.languages:
            rows = rng.normal(size=(len(sites), len(items), weight.shape[1]))
            for k, site in enumerate(sites):
                for i in range(len(items)):
                    said = choose(site.layer, language, i)
                    if said is not None:
                        prompt = by_key[said[0], items[said[1]]]
                        token = min(first_tokens(model.tokenizer, prompt.options[prompt.gold] if prompt.options
                                                 else prompt.answer))  # fmt: skip
                        rows[k, i] = 12 * weight[token] / norm + 0.1 * rows[k, i]
            n = np.arange(len(items))
            values = {(sites[0].name, plan.positions[0]): Rows(rows.astype(np.float32))}
            writer.put(Block(language, 0, n, values, np.ones(len(n), dtype=np.int64), ("x",) * len(n)))
    return ActivationStore.open(path)


def claims(store, **options):
    study = make_study(store, n_boot=300, n_perm=300, by=None, model=str(workflows.model_path("organism")), **options)
    results = LatentLanguage().run(study)
    assert [r.name for r in results] == [
        "latent_language", "latent_language_differences", "latent_language_layers", "latent_language_scripts",
        "latent_language_entropy",
    ]  # fmt: skip
    return results[0].table.set_index(["claim", "language_a"]), results


ABOVE = "en above the input language, middle layers"
BACK = "the input language above en, last layer"


def test_english_in_the_middle_and_the_own_language_at_the_end_are_found_where_they_are(tmp_path, captured, model):
    def choose(layer, language, item):
        return ("en" if layer in (2, 3) else language), item

    table, results = claims(planted(tmp_path / "run.acts", captured, model, choose))
    for language in ("zh", "ru", "*"):
        assert table.loc[(ABOVE, language), "verdict"] == SUPPORTED
        assert table.loc[(BACK, language), "verdict"] == SUPPORTED
        assert table.loc[("answer in en above other items, middle layers", language), "verdict"] == SUPPORTED
    assert table.loc[(ABOVE, "zh"), "stability"] == 1
    layers = results[2].table.set_index(["layer", "language", "answer_language"])
    differences = results[1].table.set_index(["layer", "language"])
    assert differences.loc[(2, "zh"), "difference"] == pytest.approx(
        layers.loc[(2, "zh", "en"), "gap"] - layers.loc[(2, "zh", "zh"), "gap"]
    )
    assert layers.loc[(2, "zh", "en"), "gap"] > 10 * abs(layers.loc[(2, "zh", "zh"), "gap"])
    assert layers.loc[(5, "zh", "zh"), "gap"] > 10 * abs(layers.loc[(5, "zh", "en"), "gap"])


def test_noise_in_the_middle_speaks_no_language(tmp_path, captured, model):
    table, _ = claims(planted(tmp_path / "run.acts", captured, model, lambda *_: None))
    assert not (table["verdict"] == SUPPORTED).any()


def test_english_words_of_other_items_are_no_english_answers(tmp_path, captured, model):
    def choose(layer, language, item):
        return "en", (item + 1) % len(captured.items)

    table, _ = claims(planted(tmp_path / "run.acts", captured, model, choose))
    assert table.loc[(ABOVE, "zh"), "verdict"] == NOT_DISTINGUISHABLE
    assert table.loc[("answer in en above other items, middle layers", "zh"), "verdict"] == NOT_DISTINGUISHABLE


def test_without_stored_middle_layers_the_claim_about_them_is_not_testable(tmp_path, captured, model):
    store = planted(tmp_path / "run.acts", captured, model, lambda layer, g, i: (g, i), layers="4:6")
    table, _ = claims(store)
    assert table.loc[(ABOVE, "zh"), "verdict"] == NOT_TESTABLE
    assert table.loc[(BACK, "zh"), "verdict"] == SUPPORTED


def test_the_organism_says_the_answer_in_the_language_of_the_prompt(captured):
    table, results = claims(captured)
    assert table.loc[(BACK, "*"), "verdict"] == SUPPORTED
    assert table.loc[("answer in the input language above other items, last layer", "ru"), "verdict"] == SUPPORTED
    # It was taught in fourteen languages at once, none of them before the others.
    assert table.loc[(ABOVE, "*"), "estimate"] < 0
    about, layers, scripts, entropy = (results[0].provenance, *(r.table for r in results[2:]))
    assert about["last_layer_error"] < 1e-5
    assert set(layers["layer"]) == set(range(6))
    np.testing.assert_allclose(layers["probability"] - layers["null"], layers["gap"], atol=1e-12)
    masses = scripts.groupby(["layer", "language"])["mass"].sum()
    np.testing.assert_allclose(masses, 1, atol=1e-5)
    own = scripts[(scripts["layer"] == 5) & (scripts["language"] == "ru") & (scripts["script"] == "Cyrillic")]
    assert (own["low"] > own["null"]).all()
    assert entropy["entropy"].between(0, np.log2(6144)).all()


def test_answers_that_are_numbers_tell_no_languages_apart(tmp_path):
    prompts = bs.generate("kfrd-arithmetic", languages=["en", "ru"]).select(limit=8)
    store = bs.capture(tmp_path / "run.acts", model="organism", prompts=prompts, sites=["resid.post@2,5"],
                       self_test=False)  # fmt: skip
    table, results = claims(store)
    assert set(table.loc[ABOVE, "verdict"]) == {NOT_TESTABLE}
    layers = results[2].table.set_index(["layer", "language", "answer_language"])
    assert layers.loc[(2, "ru", "en"), "n"] == 0
    assert layers.loc[(2, "ru", "en"), "n_same_tokens"] == 8


def test_the_pivot_alone_has_answers_and_nothing_to_be_above(captured):
    table, results = claims(captured, languages=["en"])
    assert set(table.index.get_level_values("language_a")) == {"en"}
    assert table.loc[("answer in en above other items, last layer", "en"), "verdict"] == SUPPORTED
    assert results[1].table.empty
    assert results[3].table["null"].isna().all()


def test_a_pivot_that_is_not_there_is_named(captured):
    with pytest.raises(BabelScopeError, match="answers in en"):
        LatentLanguage().run(make_study(captured, languages=["zh", "ru"], by=None))
