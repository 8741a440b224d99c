"""Profiles of heads: planted languages that use heads alike, heads that follow items, and what is not testable."""

import numpy as np
import pytest

import babelscope as bs
from babelscope.analyses import attention
from babelscope.analyses.recipes import head_profiles
from babelscope.analyses.recipes.head_profiles import ALIKE, FOLLOWS, SINK
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError
from tests.analyses.attending import planted, summaries, write_attention

LANGUAGES = ("de", "en", "fr", "sw")


def run(store, **more):
    study = make_study(store, **{"n_boot": 99, "n_perm": 199, **more})
    return {r.name: r.table for r in head_profiles.recipe.run(study)}


def families(rng, n_items, n_heads, groups):
    """(layer, language, item, head, summary): languages of one letter in `groups` prefer the same segments."""
    ways = {g: rng.normal(size=(n_heads, 3)) for g in set(groups)}
    common = 2 * rng.normal(size=(n_heads, 3))
    lengths = rng.integers(4, 30, size=(n_items, 1, 3))
    found = []
    for g in groups:
        own = common + 0.7 * ways[g] + 0.3 * rng.normal(size=(n_items, n_heads, 3))
        whole = np.broadcast_to(lengths, own.shape)
        sink = 1 / (1 + np.exp(1 + ways[g][:, 0] + 0.3 * rng.normal(size=(n_items, n_heads))))
        found.append(summaries(whole, np.exp(own), sink))
    return np.stack(found)[None]


def test_languages_that_use_heads_alike_are_found_and_others_are_not(tmp_path):
    x = families(np.random.default_rng(0), 20, 12, "aabc")
    table = run(write_attention(tmp_path / "s.acts", x, languages=LANGUAGES))["head_profiles"]
    pairs = table[table["claim"] == ALIKE].set_index(["language_a", "language_b"])
    assert len(pairs) == 6
    alike = pairs.loc[("de", "en")]
    assert alike["estimate"] > 0.9
    assert alike["verdict"] == "supported"
    assert alike["low"] <= alike["estimate"] <= alike["high"] + 0.02
    assert not (pairs.drop(index=[("de", "en")])["verdict"] == "supported").any()
    np.testing.assert_allclose(pairs["null"], -1 / 3, atol=0.1)
    assert (pairs["n"] == 20).all()


def test_languages_without_ways_of_their_own_are_not_alike(tmp_path):
    x = families(np.random.default_rng(1), 20, 12, "aaaa")
    table = run(write_attention(tmp_path / "s.acts", x, languages=LANGUAGES))["head_profiles"]
    assert not (table[table["claim"] == ALIKE]["verdict"] == "supported").any()


def test_two_languages_deviate_from_their_mean_by_construction_and_are_not_tested(tmp_path):
    x = planted(np.random.default_rng(2), "ct", 2, 8)[None]
    table = run(write_attention(tmp_path / "s.acts", x, languages=("de", "en")))["head_profiles"]
    row = table[table["claim"] == ALIKE].squeeze()
    assert np.isnan(row["estimate"])
    assert row["verdict"] == "not testable with this data"


def test_heads_that_follow_items_have_an_intraclass_correlation_and_others_have_none(tmp_path):
    x = np.stack([planted(np.random.default_rng(3), "ctc", 3, 30), planted(np.random.default_rng(4), "tnn", 3, 30)])
    tables = run(write_attention(tmp_path / "s.acts", x))
    heads = tables["head_profiles_heads"]
    rows = heads[heads["feature"] == "enrichment:context"].set_index(["layer", "head"])
    content = [(0, 0), (0, 2)]
    assert (rows.loc[content, "verdict"] == "supported").all()
    assert (rows.loc[content, "estimate"] > 0.5).all()
    assert (rows.loc[content, "p_max"] < 0.05).all()
    assert not (rows.drop(index=content)["verdict"] == "supported").any()
    np.testing.assert_allclose(rows["null"], 0, atol=0.05)
    features = attention.head_features(x.astype(np.float64))
    assert rows.loc[(0, 2), "estimate"] == pytest.approx(
        attention.intraclass_correlation(features[0, :, :, 2, 3]), abs=1e-5
    )
    claims = tables["head_profiles"].set_index("claim")
    told = claims.loc[FOLLOWS.format("enrichment:context")]
    assert told["estimate"] == pytest.approx(rows["estimate"].mean())
    assert told["n"] == 30


def test_means_of_each_language_stand_beside_those_of_even_attention(tmp_path):
    x = np.stack([planted(np.random.default_rng(5), "ce", 3, 12)] * 2)
    tables = run(write_attention(tmp_path / "s.acts", x))
    rows = tables["head_profiles_languages"].set_index(["language", "layer", "head", "feature"])
    features = attention.head_features(x[1, 1].astype(np.float64))
    assert rows.loc[("de", 1, 0, "first_token"), "estimate"] == pytest.approx(features[:, 0, 0].mean())
    assert rows.loc[("de", 1, 0, "first_token"), "null"] == pytest.approx(x[1, 1, :, 0, 7].mean())
    even = rows.loc[("de", 1, 1, "enrichment:question")]
    assert even["estimate"] == pytest.approx(0, abs=1e-5)
    assert even["null"] == 0
    assert rows.loc[("de", 1, 0, "entropy_share"), "null"] == 1
    sinks = tables["head_profiles"]
    sinks = sinks[sinks["claim"] == SINK].set_index("language_a")
    assert sinks.loc["de", "estimate"] == pytest.approx(x[:, 1, :, :, 1].mean(), rel=1e-5)
    assert (sinks["verdict"] == "").all()


def test_what_a_layer_reads_of_each_segment_stands_beside_its_even_share(tmp_path):
    x = np.stack([planted(np.random.default_rng(8), "ce", 3, 12), planted(np.random.default_rng(9), "ce", 3, 12)])
    x[1, 2, 4:, :, [4, 10]] = np.nan  # eight prompts of the last language without a cue
    rows = run(write_attention(tmp_path / "s.acts", x))["head_profiles_segments"]
    assert len(rows) == 2 * 3 * 3
    rows = rows.set_index(["language", "layer", "segment"])
    de = rows.loc[("de", 1, "question")]
    assert de["estimate"] == pytest.approx(x[1, 1, :, :, 5].mean(), rel=1e-6)
    assert de["null"] == pytest.approx(x[1, 1, :, :, 11].mean(), rel=1e-6)
    assert de["low"] < de["estimate"] < de["high"]
    assert de["n"] == 12
    assert rows.xs(("sw", 1, "cue"))["n"] == 4
    assert rows.xs(("sw", 1, "cue"))["estimate"] == pytest.approx(x[1, 2, :4, :, 4].mean(), rel=1e-6)


def test_a_segment_that_no_prompt_shows_is_not_testable(tmp_path):
    x = planted(np.random.default_rng(6), "cc", 3, 8)[None]
    x[..., [4, 10]] = np.nan
    tables = run(write_attention(tmp_path / "s.acts", x))
    heads = tables["head_profiles_heads"]
    gone = heads[heads["feature"] == "enrichment:cue"]
    assert (gone["n"] == 0).all()
    assert gone["estimate"].isna().all()
    assert (gone["verdict"] == "not testable with this data").all()
    assert np.isfinite(tables["head_profiles"].query("claim == @ALIKE")["estimate"]).all()


def test_the_layers_that_were_asked_for_are_read_and_no_others(tmp_path):
    x = np.stack([planted(np.random.default_rng(7), "ct", 3, 8)] * 3)
    store = write_attention(tmp_path / "s.acts", x)
    assert set(run(store)["head_profiles_heads"]["layer"]) == {0, 1, 2}
    assert set(run(store, sites=["attn.mass@1:3"])["head_profiles_heads"]["layer"]) == {1, 2}
    with pytest.raises(BabelScopeError, match="holds no attn"):
        run(store, sites=["resid.post@0"])


def test_missing_inputs_are_named(tmp_path):
    store = bs.capture(tmp_path / "s.acts", model="organism", prompts="kfrd-arithmetic", limit=4,
                       languages=["en", "de"], sites=["resid.post@0"])  # fmt: skip
    with pytest.raises(BabelScopeError, match=r"holds no attn\.mass") as refused:
        bs.analyze(store, recipes=["head_profiles"])
    assert "--site attn.mass" in refused.value.hint
