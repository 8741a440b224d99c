import numpy as np
import pytest

from babelscope.analyses.recipes.ablation_selectivity import AblationSelectivity, _claims, dominance
from babelscope.analyses.recipes.language_heads import LanguageHeads, _heads, _in_all, _relative
from babelscope.analyses.recipes.language_neurons import LanguageNeurons
from babelscope.analyses.recipes.neuron_attribution import NeuronAttribution
from babelscope.errors import BabelScopeError


class Small:
    seed, n_boot, n_perm = 0, 300, 299


def test_dominance_is_the_diagonal_less_the_rest():
    damages = np.random.default_rng(0).normal(size=(3, 3, 5))
    for i in range(5):
        own = np.mean([damages[k, k, i] for k in range(3)])
        rest = np.mean([damages[k, m, i] for k in range(3) for m in range(3) if k != m])
        assert dominance(damages)[i] == pytest.approx(own - rest)


def claims(damages, rng):
    """Of drops of the chosen sets that are `damages` above those of nine random ones."""
    drops = 0.1 * rng.normal(size=(10, *damages.shape[:2], 1)) + 0.3 * rng.normal(size=(10, *damages.shape))
    drops[0] += damages
    return {row["claim"].split(" (")[0]: row for row in _claims(drops, Small(), "g")}


def test_damage_to_the_own_language_is_found_and_damage_to_all_is_not_selective():
    rng = np.random.default_rng(0)
    found = claims(np.eye(3)[:, :, None] * np.full(40, 0.5), rng)
    assert found["damage in the own language less that in others"]["low"] > 0.3
    assert found["damage in the own language less that in others"]["p"] < 0.01
    assert found["damage in other languages over matched random neurons"]["p"] > 0.05
    everywhere = [claims(np.full((3, 3, 40), 0.5), rng) for _ in range(100)]
    selective = [found["damage in the own language less that in others"]["p"] < 0.05 for found in everywhere]
    assert np.mean(selective) <= 0.13  # binomial, 100 draws: 99.9 % within
    assert all(found["damage in other languages over matched random neurons"]["p"] < 0.01 for found in everywhere)


def test_sets_that_hurt_some_language_by_chance_are_not_selective_however_many_items_there_are():
    rng = np.random.default_rng(1)
    for n_languages in (2, 3):
        found = [claims(np.zeros((n_languages, n_languages, 60)), rng) for _ in range(200)]
        for claim in found[0]:
            rate = np.mean([one[claim]["p"] < 0.05 for one in found])
            assert rate <= 0.105  # binomial, 200 draws: 99.9 % within


def test_damage_is_above_the_mean_of_the_random_sets():
    drops = np.random.default_rng(0).normal(size=(4, 2, 2, 5))
    found = {row["claim"].split(" (")[0]: row["estimate"] for row in _claims(drops, Small(), "g")}
    own = np.mean([drops[0, k, k, i] - drops[1:, k, k, i].mean() for k in range(2) for i in range(5)])
    others = np.mean([drops[0, k, 1 - k, i] - drops[1:, k, 1 - k, i].mean() for k in range(2) for i in range(5)])
    assert found["damage in the own language over matched random neurons"] == pytest.approx(own)
    assert found["damage in other languages over matched random neurons"] == pytest.approx(others)
    assert found["damage in the own language less that in others"] == pytest.approx(own - others)


def test_heads_of_a_language_stand_out_and_shares_are_of_all_heads():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 30, 2, 4))
    x[1, :, 1, 2] *= 8
    assert np.allclose(_relative(x).sum(axis=(2, 3)), 1)
    table = _heads(x, ("en", "de", "sw"))
    best = table[table["language"] == "de"].nsmallest(1, "q").iloc[0]
    assert (best["layer"], best["head"]) == (1, 2)
    assert best["q"] < 1e-3
    assert best["auroc"] > 0.9
    signed = table[(table["language"] == "en") & (table["layer"] == 0) & (table["head"] == 0)].iloc[0]
    assert signed["signed_mean"] == pytest.approx(x[0, :, 0, 0].mean())
    assert signed["sign_consistency"] == pytest.approx(abs(np.sign(x[0, :, 0, 0]).mean()))


def test_a_head_of_one_language_is_of_no_other():
    wrong = 0
    for seed in range(20):
        x = np.random.default_rng(seed).lognormal(0, 0.5, (3, 30, 4, 8))
        x[1, :, 0, 0] *= 40
        table = _heads(x, ("en", "de", "zh"))
        more = table[(table["q"] < 0.05) & (table["auroc"] > 0.5)]
        assert "de" in set(more["language"])
        wrong += bool(set(more["language"]) - {"de"})
    assert wrong <= 4  # 0.997 quantile of 20 at a rate of 0.05 for each of two languages


def test_settings_out_of_range_are_refused():
    for recipe, settings in ((LanguageHeads, {"top_share": -1}), (LanguageNeurons, {"top_rate": 0}),
                             (NeuronAttribution, {"top": 0}), (AblationSelectivity, {"top": 0})):  # fmt: skip
        with pytest.raises(BabelScopeError):
            recipe(**settings)


def test_a_head_of_one_language_does_not_give_heads_to_the_others():
    found = 0
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(3, 40, 6, 5))
        x[1, :, 1, 2] *= 100
        table = _heads(x, ("en", "de", "sw"))
        found += int(((table["q"] < 0.05) & (table["auroc"] > 0.5) & (table["language"] != "de")).sum())
    assert found <= 20  # shares of all heads give 756


def test_heads_in_the_top_of_all_languages_are_counted():
    scores = np.array([[5, 4, 3, 2, 1.0], [5, 1, 3, 4, 2], [1, 2, 3, 4, 5]])
    assert _in_all(scores, 3) == 1
    assert _in_all(scores[:2], 3) == 2
