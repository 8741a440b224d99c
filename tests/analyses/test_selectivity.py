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


def claims(damages):
    return {row["claim"].split(" (")[0]: row for row in _claims(damages, Small(), "g")}


def test_damage_to_the_own_language_is_found_and_damage_to_all_is_not_selective():
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.normal(size=(3, 3, 40))
    own = noise.copy()
    own[np.arange(3), np.arange(3)] += 0.5
    found = claims(own)
    assert found["damage in the own language less that in others"]["low"] > 0.3
    assert found["damage in the own language less that in others"]["p"] < 0.01
    assert found["damage in other languages over matched random neurons"]["p"] > 0.05
    everywhere = claims(noise + 0.5)
    assert everywhere["damage in the own language less that in others"]["p"] > 0.05
    assert everywhere["damage in other languages over matched random neurons"]["p"] < 0.01


def test_labels_permuted_within_items_hold_the_level():
    rng = np.random.default_rng(1)
    p = [claims(rng.normal(size=(3, 3, 12)))["damage in the own language less that in others"]["p"] for _ in range(200)]
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.1  # binomial, 200 draws: 99.9 % within


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


def test_a_head_of_one_language_is_of_no_other(rng_seeds=20):
    wrong = 0
    for seed in range(rng_seeds):
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


def test_heads_in_the_top_of_all_languages_are_counted():
    scores = np.array([[5, 4, 3, 2, 1.0], [5, 1, 3, 4, 2], [1, 2, 3, 4, 5]])
    assert _in_all(scores, 3) == 1
    assert _in_all(scores[:2], 3) == 2
