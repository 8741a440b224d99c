"""Stability of attention, head by head: planted heads, the pattern as reference, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest

import babelscope as bs
from babelscope.activations_store import StoreWriter
from babelscope.analyses import attention
from babelscope.analyses.metrics.attention_stability import metric
from babelscope.analyses.runner import analyze
from babelscope.errors import BabelScopeError
from babelscope.hooks import load_model
from babelscope.hooks.tokens import encode_prompts
from babelscope.workflows import model_path
from tests.analyses.attending import planted, write_attention

FEW = {"n_boot": 199, "n_perm": 499}


def heads_of(results, variant="enriched", pair="*"):
    table = results[0].table
    return table[(table["variant"] == variant) & (table["language_a"] == pair) & table["head"].notna()]


def test_heads_that_follow_content_are_found_and_others_are_not(tmp_path):
    rng = np.random.default_rng(10)
    mass = np.stack([planted(rng, "ctec", 3, 40), planted(rng, "tene", 3, 40)])
    results = analyze(write_attention(tmp_path / "s.acts", mass), ["attention-stability"], **FEW)
    table = heads_of(results).set_index(["layer", "head"])
    content = [(0, 0), (0, 3)]
    assert (table.loc[content, "verdict"] == "supported").all()
    assert (table.loc[content, "p_max"] < 0.01).all()
    assert (table.loc[content, "gap"] > 0.1).all()
    others = table.drop(index=content)
    assert (others["q"] > 0.05).all()
    assert not (others["p_max"] <= 0.05).any()  # NaN where no shuffle changes anything
    # The level alone takes heads that follow the template for stable ones.
    assert (table.loc[[(0, 1), (1, 0)], "matched"] > table.loc[content, "matched"].max() - 0.1).all()
    even = table.loc[[(0, 2), (1, 1), (1, 3)]]
    np.testing.assert_allclose(even["matched"], 1, atol=1e-6)
    np.testing.assert_allclose(even["gap"], 0, atol=1e-6)


def test_lengths_of_segments_make_mass_but_not_enrichment_follow_the_item(tmp_path):
    mass = planted(np.random.default_rng(1), "e", 3, 40)[None]
    results = analyze(write_attention(tmp_path / "s.acts", mass), ["attention-stability"], **FEW)
    assert heads_of(results, "mass")["verdict"].item() == "supported"
    assert heads_of(results, "enriched")["verdict"].item() == "not distinguishable from the null"


def test_the_false_discovery_rate_holds_over_layers_and_heads():
    import pandas as pd

    from babelscope.analyses.pairs import score_pairs
    from babelscope.analyses.statistics import benjamini_hochberg, permutation_p, resample

    rng, found, false = np.random.default_rng(2), [], []
    for trial in range(30):
        x = planted(rng, "cccc" + "tttttttt", 2, 16, noise=0.4)
        permutations = resample(16, ["a", "b"], seed=trial, group="all", n_boot=1, n_perm=199).permutations
        blocks = [score_pairs(x[:, :, h], metric.measures({})[:1], permutations) for h in range(12)]
        p = [permutation_p(b.scores.matched.mean(-1), b.permuted)[0, 0] for b in blocks]
        hits = benjamini_hochberg(pd.Series(p)).to_numpy() < 0.05
        found.append(hits[:4].mean())
        false.append(hits[4:].sum() / max(hits.sum(), 1))
    assert np.mean(found) > 0.9
    assert np.mean(false) < 0.05 + 2 * np.std(false) / np.sqrt(30)


def slow_features(pattern, spans, segments):
    """Divided mass over its even share and features, from a full row of attention, by loops."""
    n = len(pattern)
    masses, evens = [], []
    for name in sorted({s.name for s in segments}):
        own = [(s.start, s.stop) for s in segments if s.name == name]
        inside = [k for k, (a, b) in enumerate(spans) if a < b and any(a < stop and start < b for start, stop in own)]
        masses.append(sum(pattern[k] for k in inside))
        evens.append(len(inside) / n)
    enriched = np.array(masses) / np.array(evens)
    entropy = -sum(w * np.log(w) for w in pattern if w > 0) / np.log(n)
    distance = sum(w * (n - 1 - k) for k, w in enumerate(pattern)) / n
    return enriched / enriched.sum(), np.array([pattern[0], entropy, distance, *np.log2(enriched / enriched.mean())])


@pytest.mark.parametrize(("model", "prompts"), [("organism", "kfrd-arithmetic"), ("encoder-organism", "ruletaker")])
def test_features_of_the_mass_are_those_of_the_full_pattern(model, prompts, tmp_path):
    languages = ["en", "de"]
    store = bs.capture(
        tmp_path / "s.acts", model=model, prompts=prompts, languages=languages, limit=4,
        sites=["attn.mass", "attn.pattern"],
    )  # fmt: skip
    loaded = load_model(model_path(model), device="cpu")
    for layer in (0, 2):
        mass, pattern = (store.select(f"{s}@{layer}").numpy() for s in ("attn.mass", "attn.pattern"))
        divided = attention.segment_distribution(mass, over_even=True)
        features = attention.head_features(mass)
        for g, language in enumerate(languages):
            asked = store.prompts.of(language)
            for i, tokens in enumerate(encode_prompts(loaded.tokenizer, asked)):
                for head in range(mass.shape[2]):
                    row = pattern[g, i, head, : len(tokens)].astype(np.float64)
                    shares, expected = slow_features(row, tokens.spans, asked[i].segments)
                    np.testing.assert_allclose(divided[g, i, head], shares, atol=1e-4)
                    np.testing.assert_allclose(features[g, i, head], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("model", "causal"), [("organism", True), ("encoder-organism", False)])
def test_the_even_mass_from_segment_to_segment_is_that_of_the_definition(model, causal, tmp_path):
    names = ("options", "question")
    store = bs.capture(
        tmp_path / "s.acts", model=model, sites=["attn.mass@0"], positions=[f"segment:{name}" for name in names],
        prompts=bs.generate("ruletaker", items=3, max_depth=1, languages=["en", "de"]),
    )  # fmt: skip
    loaded = load_model(model_path(model), device="cpu")
    segments = store.plan.segments
    for g, language in enumerate(store.languages):
        asked = store.prompts.of(language)
        for i, tokens in enumerate(encode_prompts(loaded.tokenizer, asked)):
            inside = np.array([
                [a < b and any(s.name == t and a < s.stop and s.start < b for s in asked[i].segments) for t in segments]
                for a, b in tokens.spans
            ])  # fmt: skip
            for name in names:
                queries = np.flatnonzero(inside[:, segments.index(name)])
                expected = attention.even_mass(inside, queries, causal=causal)
                rows = store.select("attn.mass@0", position=f"segment:{name}").numpy()[g, i]
                np.testing.assert_allclose(rows[:, -len(segments) :], expected[None].repeat(len(rows), 0), atol=1e-5)


def test_a_store_without_attention_is_told_what_to_capture(tmp_path):
    store = bs.capture(tmp_path / "s.acts", model="organism", prompts="kfrd-arithmetic", limit=4,
                       languages=["en", "de"], sites=["resid.post@0"])  # fmt: skip
    with pytest.raises(BabelScopeError, match=r"attn\.mass") as refused:
        analyze(store, ["attention-stability"])
    assert "--site attn.mass" in refused.value.hint


def test_a_store_without_even_attention_or_with_one_segment_is_told_so(tmp_path):
    mass = planted(np.random.default_rng(3), "c", 2, 8)[None]
    old = write_attention(tmp_path / "old.acts", mass[..., :6], languages=("en", "de"), even=False)
    assert old.select("attn.mass").xarray().sizes["summary"] == 6
    with pytest.raises(BabelScopeError, match="evenly spread attention") as refused:
        analyze(old, ["attention-stability"])
    assert "--site attn.mass" in refused.value.hint
    one = write_attention(
        tmp_path / "one.acts", mass[..., [0, 1, 2, 3, 6, 7, 8, 9]], languages=("en", "de"), segments=("context",)
    )
    with pytest.raises(BabelScopeError, match="1 segments; mass is compared over two or more"):
        analyze(one, ["attention-stability"])


def test_a_head_without_mass_on_any_segment_is_not_testable(tmp_path):
    mass = planted(np.random.default_rng(4), "cc", 2, 8)[None]
    mass[:, :, :, 1, 3:6] = 0
    results = analyze(write_attention(tmp_path / "s.acts", mass, languages=("en", "de")), ["attention-stability"],
                         **FEW)  # fmt: skip
    row = heads_of(results).set_index("head").loc[1]
    assert np.isnan(row["gap"])
    assert row["n"] == 0
    assert row["n_undefined"] == 8
    assert row["verdict"] == "not testable with this data"


def test_the_published_definition_is_refused_as_there_is_none(tmp_path):
    mass = planted(np.random.default_rng(5), "c", 2, 8)[None]
    store = write_attention(tmp_path / "s.acts", mass, languages=("en", "de"))
    with pytest.raises(BabelScopeError, match="no published definition"):
        analyze(store, ["attention-stability"], mode="paper")
    result = analyze(store, ["attention-stability"], **FEW)[0]
    assert set(result.table["mode"]) == {"corrected"}
    assert "the paper publishes none" in result.provenance["title"]


def test_a_store_that_was_begun_without_even_attention_is_continued_without_it(tmp_path):
    asked = {"model": "organism", "prompts": "kfrd-arithmetic", "languages": ["en", "de"], "limit": 4,
             "sites": ["attn.mass@0"]}  # fmt: skip
    whole = bs.capture(tmp_path / "whole.acts", **asked)
    begun = replace(whole.plan, even=False)
    with StoreWriter.create(tmp_path / "old.acts", begun, whole.prompts, {}):
        pass
    old = bs.capture(tmp_path / "old.acts", **asked, resume=True)
    assert old.fingerprint == begun.fingerprint != whole.fingerprint
    n = len(old.summaries)
    assert whole.summaries[:n] == old.summaries
    np.testing.assert_array_equal(old.select("attn.mass").numpy(), whole.select("attn.mass").numpy()[..., :n])
