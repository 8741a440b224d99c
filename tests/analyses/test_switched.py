"""Attention over prompts in two languages: against loops, planted heads, and models with a cross-lingual query."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModelForMaskedLM, AutoTokenizer

import babelscope as bs
from babelscope.analyses import switched
from babelscope.analyses.recipes.code_switched_attention import CLAIMS, recipe
from babelscope.analyses.statistics import bootstrap_weights
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError
from babelscope.qcross.config import QcrossConfig
from babelscope.qcross.injection import cross_parameters, inject
from babelscope.schema import Position, Prompt, Segment
from babelscope.workflows import model_path
from tests.analyses.attending import planted, write_attention

LANGUAGES = ("en", "fr", "en-fr")
FEW = {"n_boot": 199, "n_perm": 499}


def run(store, **more):
    return {r.name: r.table for r in recipe.run(make_study(store, **{**FEW, **more}))}


def claim(tables, quantity):
    table = tables["code_switched_attention"]
    return table[table["claim"] == CLAIMS[quantity]].squeeze()


def test_languages_that_stand_beside_both_of_their_parts_are_switched():
    found = switched.switched_languages(("en", "en-fr", "fr", "fr-en", "en-sw", "pt-BR"))
    assert [s.languages for s in found] == [("en", "fr", "en-fr"), ("fr", "en", "fr-en")]
    graded = switched.switched_languages(("en", "en-fr-25", "fr", "en-fr"))
    assert [(s.languages, s.degree) for s in graded] == [(("en", "fr", "en-fr-25"), "25"), (("en", "fr", "en-fr"), "")]
    with pytest.raises(BabelScopeError, match="no code-switched prompts") as refused:
        switched.switched_languages(("en", "fr", "en-sw", "en-sw-25"))
    assert "en,fr,en-fr" in refused.value.hint


def test_other_segments_are_those_without_any_text_in_the_language_of_the_query():
    spans = (
        Segment("context", 0, 4, "en"), Segment("both", 4, 6, "en"), Segment("both", 6, 8, "fr"),
        Segment("none", 8, 8, "en"), Segment("question", 8, 12, "fr"),
    )  # fmt: skip
    prompt, names = Prompt("a", "en-fr", "x" * 12, spans), ("both", "context", "none", "question")

    def others(position):
        return list(switched.other_segments([prompt], names, Position.parse(position))[0])

    assert others("last") == others("segment:question") == [False, True, False, False]
    assert others("first") == others("segment:context") == [False, False, False, True]
    assert others("segment:both") == [False] * 4  # queries of two languages
    with pytest.raises(BabelScopeError, match="both languages"):
        others("mean")
    assert switched.query_language(Prompt("b", "en", "text"), Position("last")) == ""


def slow_changes(x, other, item, head):
    """By scalars, from masses and their even shares."""
    masses, even = x[:, item, head, 3:6].astype(float), x[:, item, head, 9:12].astype(float)

    def divergence(a, b):
        p, q = masses[a] / even[a], masses[b] / even[b]
        p, q = p / p.sum(), q / q.sum()
        m = (p + q) / 2
        return sum((u * np.log2(u / w) + v * np.log2(v / w)) / 2 for u, v, w in zip(p, q, m, strict=True))

    kept = 1 - (divergence(0, 2) + divergence(1, 2)) / 2
    rho = []
    for g in range(3):
        here, there = (masses[g][side].sum() / even[g][side].sum() for side in (other[item], ~other[item]))
        rho.append(np.log2(here / there))
    first = x[:, item, head, 1].astype(float)
    return {
        "stability_change": (kept, kept - 1 + divergence(0, 1)), "cross_mass": (rho[2], rho[2]),
        "cross_mass_change": (rho[2], rho[2] - (rho[0] + rho[1]) / 2),
        "first_token_change": (first[2], first[2] - (first[0] + first[1]) / 2),
    }  # fmt: skip


def test_what_changes_is_what_loops_over_items_and_heads_give():
    x = planted(np.random.default_rng(0), "ct", 3, 7)
    other = np.zeros((7, 3), dtype=bool)
    other[:, 0] = other[3, 1] = True
    found = switched.changes(x, other)
    for item, head in np.ndindex(7, 2):
        for quantity, (level, difference) in slow_changes(x, other, item, head).items():
            assert found[quantity][0][item, head] == pytest.approx(level, abs=1e-6)
            assert found[quantity][1][item, head] == pytest.approx(difference, abs=1e-6)
    even = x[2, :, 0, 9:12]
    np.testing.assert_allclose(switched.dose(x[2], other), [e[o].sum() for e, o in zip(even, other, strict=True)])


def test_mass_on_segments_that_are_not_there_is_undefined_not_zero():
    x = planted(np.random.default_rng(1), "c", 3, 4)
    x[2, 1, :, [3, 9]] = np.nan
    other = np.zeros((4, 3), dtype=bool)
    other[:3, 0] = True
    found = switched.changes(x, other)["cross_mass"][0][:, 0]
    assert list(np.isnan(found)) == [False, True, False, True]


def test_the_share_of_a_cross_lingual_query_under_even_attention_counts_the_bridge_twice():
    x = planted(np.random.default_rng(2), "e", 1, 5)
    other = np.zeros((5, 3), dtype=bool)
    other[:, 0] = True
    keys = np.exp(x[0, :, 0, 6].astype(float))
    in_context = x[0, :, 0, 9] * keys
    np.testing.assert_allclose(switched.even_crossed(x[0], other)[:, 0], (in_context + 1) / (keys + 1), rtol=1e-5)


def test_the_response_to_a_dose_is_spearmans_correlation():
    rng = np.random.default_rng(3)
    doses, values = rng.integers(0, 6, 30) / 6, rng.normal(size=30)
    values = np.where(np.arange(30) == 4, np.nan, values + doses)
    weights = bootstrap_weights(30, 99, rng)
    found = switched.dose_response(doses, values, weights, 199, rng)
    kept = ~np.isnan(values)
    assert found["estimate"] == pytest.approx(spearmanr(doses[kept], values[kept]).statistic)
    assert found["n"] == 29
    assert found["low"] <= found["estimate"] <= found["high"]
    assert np.isnan(switched.dose_response(np.ones(30), values, weights, 199, rng)["p"])
    assert np.isnan(switched.dose_response(doses, np.full(30, np.nan), weights, 199, rng)["estimate"])


def test_slopes_within_items_are_those_of_least_squares():
    rng = np.random.default_rng(8)
    doses, values = rng.random((4, 1, 9)), rng.normal(size=(4, 3, 9))
    values[1, 2, 5] = np.nan
    doses[:, 0, 7] = 0.3
    found = switched.slopes(doses, values)
    for cell, item in np.ndindex(3, 9):
        kept = ~np.isnan(values[:, cell, item])
        if item == 7:
            assert np.isnan(found[cell, item])
        else:
            expected = np.polyfit(doses[kept, 0, item], values[kept, cell, item], 1)[0]
            assert found[cell, item] == pytest.approx(expected)


def test_a_head_that_leaves_the_other_language_by_degrees_has_a_slope_and_others_have_none(tmp_path):
    x = planted(np.random.default_rng(9), "tt", 6, 24, noise=0.1)[None]
    for degree in (1, 2, 3, 4):
        x[0, 1 + degree, :, :, [3, 9]] *= degree / 4  # so much of the context is in the other language
        x[0, 1 + degree, :, 1, 3] /= 2**degree
    languages = ("en", "fr", "en-fr-25", "en-fr-50", "en-fr-75", "en-fr")
    tables = run(write_attention(tmp_path / "s.acts", x, languages=languages))
    heads = tables["code_switched_attention_heads"]
    rows = heads[heads["quantity"] == "cross_mass_change_slope"].set_index("head")
    assert rows.loc[1, "estimate"] < -2
    assert rows.loc[1, "verdict"] == "supported"
    assert rows.loc[0, "verdict"] != "supported"
    assert set(heads[heads["quantity"] == "gap"]["degree"]) == {"", "25", "50", "75"}
    claims = tables["code_switched_attention"]
    assert claims["claim"].str.contains("within items").sum() == 2
    assert (claims["claim"] == CLAIMS["gap"]).sum() == 1


def test_a_head_that_leaves_the_other_language_is_found_and_others_are_not(tmp_path):
    x = planted(np.random.default_rng(4), "ctctt", 3, 30, noise=0.2)[None]
    x[0, 2, :, 2, 3] /= 8  # of the prompts in two languages, on the context
    tables = run(write_attention(tmp_path / "s.acts", x, languages=LANGUAGES))
    heads = tables["code_switched_attention_heads"].set_index(["quantity", "head"])
    gap = heads.loc["gap", "verdict"] == "supported"
    assert list(gap[[0, 1, 3, 4]]) == [True, False, False, False]
    for quantity in ("stability_change", "cross_mass_change"):
        rows = heads.loc[quantity]
        assert list(rows["verdict"] == "supported") == [False, False, True, False, False]
        assert rows.loc[2, "p_max"] < 0.01
        assert rows.loc[2, "estimate"] < 0
        assert (rows.drop(index=2)["p_max"] > 0.05).all()
    assert heads.loc[("cross_mass_change", 2), "estimate"] == pytest.approx(-3, abs=0.3)
    assert claim(tables, "gap")["verdict"] == "supported"
    assert claim(tables, "gap")["n"] == 30
    assert (heads["n"] == 30).all()


def test_nothing_is_found_where_two_languages_change_nothing(tmp_path):
    x = planted(np.random.default_rng(5), "tttttt", 3, 30)[None]
    tables = run(write_attention(tmp_path / "s.acts", x, languages=LANGUAGES))
    heads = tables["code_switched_attention_heads"]
    assert not (heads[heads["quantity"] != "cross_mass"]["verdict"] == "supported").any()
    assert claim(tables, "stability_change")["q"] > 0.05
    parts = tables["code_switched_attention_dose"]
    assert list(parts.groupby(["quantity"])["n"].sum()) == [30, 30]


def test_a_query_that_sees_no_other_language_is_not_testable(tmp_path):
    x = planted(np.random.default_rng(6), "c", 3, 8)[None]
    x[..., [3, 9]] = 0.0  # no context to be seen
    tables = run(write_attention(tmp_path / "s.acts", x, languages=LANGUAGES))
    row = claim(tables, "cross_mass")
    assert row["n"] == 0
    assert np.isnan(row["estimate"])
    assert row["verdict"] == "not testable with this data"
    assert claim(tables, "gap")["n"] == 8


def test_missing_inputs_are_named(tmp_path):
    store = bs.capture(tmp_path / "s.acts", model="organism", prompts="kfrd-arithmetic", limit=4,
                       languages=["en", "de"], sites=["resid.post@0"])  # fmt: skip
    with pytest.raises(BabelScopeError, match=r"holds no attn\.mass") as refused:
        bs.analyze(store, recipes=["code_switched_attention"])
    assert "--site attn.mass" in refused.value.hint
    x = planted(np.random.default_rng(7), "c", 2, 8)[None]
    with pytest.raises(BabelScopeError, match="no code-switched prompts"):
        run(write_attention(tmp_path / "mono.acts", x, languages=("en", "fr")))


def captured_crossed(folder, change):
    """Attention of the embedded encoder with cross-lingual queries, in two languages and in both at once."""
    source = model_path("encoder-organism")
    model = inject(AutoModelForMaskedLM.from_pretrained(source), QcrossConfig())
    with torch.no_grad():
        change(model)
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "model")
    return bs.capture(
        folder / "s.acts", model=str(folder / "model"), prompts="ruletaker", languages=["en", "fr", "en-fr", "fr-en"],
        limit=8, sites=["attn.mass", "attn.crossed"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    def elsewhere(model):
        for parameter in cross_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)

    return captured_crossed(tmp_path_factory.mktemp("qcross"), elsewhere)


def test_the_share_of_the_cross_lingual_query_is_told_per_head_and_pair(crossed):
    tables = run(crossed)
    heads = tables["code_switched_attention_heads"]
    shares = heads[heads["quantity"] == "crossed_share"]
    for pair, code in ((("en", "fr"), "en-fr"), (("fr", "en"), "fr-en")):
        rows = shares[(shares["language_a"] == pair[0]) & (shares["language_b"] == pair[1])]
        for _, row in rows.iterrows():
            stored = crossed.select(f"attn.crossed@{row['layer']}", languages=code).numpy()[0, :, row["head"]]
            assert row["estimate"] == pytest.approx(stored.mean(), rel=1e-5)
            assert row["low"] < row["estimate"] < row["high"]
            assert 0 < row["null"] < 1
        assert len(rows) == 16
    table = tables["code_switched_attention"]
    told = table[table["claim"] == CLAIMS["crossed_share"]]
    assert len(told) == 2
    assert (told["verdict"] == "").all()
    assert told["p"].isna().all()


def test_queries_without_preference_have_the_share_of_even_attention(tmp_path):
    def even(model):
        for name, parameter in model.named_parameters():
            if ".query." in name:
                parameter.zero_()

    store = captured_crossed(tmp_path, even)
    for code in ("en-fr", "fr-en"):
        x = store.select("attn.mass@1", languages=code).numpy()[0]
        other = switched.other_segments(store.prompts.of(code), store.plan.segments, Position("last"))
        found, expected = store.select("attn.crossed@1", languages=code).numpy()[0], switched.even_crossed(x, other)
        keys = np.exp(x[..., 6])
        # [CLS] and [SEP] belong to the context, and are in no segment: up to two tokens of each prompt.
        missing = (found - expected) * (keys + 1)
        assert ((missing > -0.01) & (missing < 2.01)).all()
