import dataclasses

import numpy as np
import pytest

from babelscope.analyses import make_study
from babelscope.analyses.ladder import Gaps, grid_contrast, part_explained
from babelscope.analyses.recipes.knowledge_contrast import KnowledgeContrast
from babelscope.analyses.statistics import EXPLAINED, NOT_TESTABLE, SUPPORTED, bootstrap_weights
from babelscope.errors import BabelScopeError
from tests.analyses.planted import write_store

ITEMS, UNITS = 60, 120
RULES = [f"r{i % 3}" for i in range(ITEMS)]
DEMAND = ["knowledge-free"] * (ITEMS // 2) + ["knowledge"] * (ITEMS // 2)
FACTS = [{"template": f"t{i % 4}", "rule": rule} for i, rule in enumerate(RULES)]


def planted(path, *, by_rule, by_item, facts=FACTS):
    """Two layers, three languages. The first group shares `by_rule` of each rule and `by_item` of each item."""
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(2):
        rules = rng.normal(size=(3, UNITS))[[int(r[1]) for r in RULES]]
        items = rng.normal(size=(ITEMS, UNITS))
        free = np.array([d == "knowledge-free" for d in DEMAND])[:, None]
        layers.append(free * (by_rule * rules + by_item * items) + rng.normal(size=(3, ITEMS, UNITS)))
    return write_store(
        path, {"mlp.act": np.array(layers, dtype=np.float32) / 3}, demand=DEMAND, covariates=[dict(f) for f in facts]
    )


def run(store, **parameters):
    study = make_study(store, n_boot=200, n_perm=199)
    claims, shares, layers = dataclasses.replace(KnowledgeContrast(), **parameters).run(study)
    return claims.table.set_index("claim"), shares.table, layers.table


def test_a_contrast_that_the_rule_makes_is_explained_by_it(tmp_path):
    claims, shares, layers = run(planted(tmp_path / "rule.acts", by_rule=1.0, by_item=0.0))
    assert claims.loc["nao overlap: contrast, all items", "verdict"] == SUPPORTED
    assert claims.loc["nao overlap: contrast, within template", "verdict"] == SUPPORTED  # which explains nothing here
    assert claims.loc["nao overlap: contrast, within template and rule", "verdict"] == EXPLAINED
    assert claims.loc["nao overlap: explained, within template and rule", "verdict"] == SUPPORTED
    row = shares[shares["within"] == "template and rule"].iloc[0]
    assert row["low"] <= 1.0 <= row["high"]
    assert abs(row["share"] - 1.0) < 0.2
    # Ten items of each rule in four templates are two or three of each: some have a null.
    assert 10 < claims.loc["nao overlap: contrast, within template and rule", "n"] < 30
    assert set(layers["within"]) == {"all items", "within template", "within template and rule"}
    assert set(layers["layer"].dropna()) == {0, 1}


def test_a_contrast_about_the_questions_stays_when_the_rule_is_matched(tmp_path):
    claims, shares, _ = run(planted(tmp_path / "item.acts", by_rule=0.0, by_item=1.0), within="rule")
    assert claims.loc["nao overlap: contrast, within rule", "verdict"] == SUPPORTED
    assert claims.loc["nao overlap: explained, within rule", "verdict"] != SUPPORTED
    assert abs(shares["share"].item()) < 0.1
    assert (claims["n"] == 30).all()


def test_no_contrast_is_neither_supported_nor_explained(tmp_path):
    claims, shares, _ = run(planted(tmp_path / "none.acts", by_rule=0.0, by_item=0.0), within="rule")
    assert not set(claims["verdict"]) & {SUPPORTED, EXPLAINED}
    assert shares["share"].isna().all()  # the share of nothing


def test_other_metrics_have_a_ladder_for_every_variant(tmp_path):
    store = planted(tmp_path / "kappa.acts", by_rule=1.0, by_item=0.0)
    claims, _, _ = run(store, metric="nao-kappa", within="rule", sweep="top=0.1,0.3")
    assert claims.loc["nao-kappa kappa_top: contrast, within rule", "verdict"] == EXPLAINED
    assert len(claims) == 3 * 3
    assert claims["stability"].notna().any()


def test_a_rung_on_which_no_item_has_a_null_is_not_testable(tmp_path):
    facts = [{**fact, "own": i} for i, fact in enumerate(FACTS)]
    claims, _, _ = run(planted(tmp_path / "own.acts", by_rule=1.0, by_item=0.0, facts=facts), within="rule,own")
    row = claims.loc["nao overlap: contrast, within rule and own"]
    assert row["verdict"] == NOT_TESTABLE
    assert row["n"] == 0
    assert np.isnan(row["estimate"])


def test_what_is_missing_is_named(tmp_path):
    store = planted(tmp_path / "bare.acts", by_rule=0.0, by_item=0.0, facts=[{}] * ITEMS)
    with pytest.raises(BabelScopeError, match="none of template, rule, gold varies"):
        run(store)
    with pytest.raises(BabelScopeError, match="covariate"):
        run(store, within="rul")
    with pytest.raises(BabelScopeError, match="one group"):
        KnowledgeContrast().run(make_study(store, by=None, n_boot=10, n_perm=9))


def test_part_explained_is_the_difference_of_the_contrasts_over_the_items_that_count_on_both():
    rng = np.random.default_rng(1)
    first, then = (Gaps(rng.normal(1.0, size=(2, 9)), rng.normal(size=(2, 7))) for _ in range(2))
    then.a[:, 3] = np.nan  # an item without a null within its stratum
    weights = tuple(bootstrap_weights(n, 300, rng) for n in (9, 7))
    part = part_explained(first, then, weights, n_perm=99, rng=rng)
    kept = [0, 1, 2, 4, 5, 6, 7, 8]
    before = first.a[:, kept].mean() - first.b.mean()
    after = then.a[:, kept].mean() - then.b.mean()
    assert part.loss.estimate == pytest.approx(before - after)
    assert part.loss.n_a == 8
    draws = []
    for wa, wb in zip(*weights, strict=True):
        a = [i for i in kept for _ in range(int(wa[i]))]
        b = [i for i in range(7) for _ in range(int(wb[i]))]
        draws.append((first.a - then.a)[:, a].mean() - (first.b - then.b)[:, b].mean())
    np.testing.assert_allclose([part.loss.low, part.loss.high], np.quantile(draws, [0.025, 0.975]), atol=1e-12)


def test_stability_is_the_share_of_the_grid_that_agrees_with_the_mean():
    rng = np.random.default_rng(2)
    a = rng.normal(size=(4, 40)) + np.array([3.0, 3.0, 3.0, -3.0])[:, None]
    weights = tuple(bootstrap_weights(n, 200, rng) for n in (40, 30))
    contrast, stability = grid_contrast(Gaps(a, rng.normal(size=(4, 30))), weights, n_perm=49, rng=rng)
    assert contrast.estimate > 0
    assert stability == 3 / 4
    assert np.isnan(grid_contrast(Gaps(a[:1], a[1:2, :30]), weights, n_perm=49, rng=rng)[1])
