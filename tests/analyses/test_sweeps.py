import numpy as np
import pandas as pd
import pytest
from scipy import stats

from babelscope.analyses.sweeps import contrast_summary, mean_kendall_tau, sweep_summary
from babelscope.analyses.tables import stable_share


def test_rank_stability_is_the_mean_tau_over_pairs_of_thresholds():
    scores = np.random.default_rng(0).integers(0, 5, size=(4, 9)).astype(float)  # with ties
    slow = [stats.kendalltau(scores[i], scores[j]).statistic for i in range(4) for j in range(i + 1, 4)]
    assert mean_kendall_tau(scores) == pytest.approx(np.mean(slow))


def test_rank_stability_ignores_thresholds_that_rank_nothing():
    scores = np.array([[1.0, 2, 3], [2, 4, 6], [1, 1, 1], [np.nan, 1, 2]])
    assert mean_kendall_tau(scores) == pytest.approx(1.0)
    assert np.isnan(mean_kendall_tau(scores[1:]))


def test_conclusion_stability_worked_by_hand():
    curve = pd.DataFrame(
        {
            "gap": [0.3, 0.2, 0.1, -0.1, np.nan],
            "low": [0.2, 0.1, -0.1, -0.2, np.nan],
            "high": [0.4, 0.3, 0.2, -0.05, np.nan],
            "name": "a",
        }
    )
    assert stable_share(curve, ["name"], "gap", "low", "high").tolist() == [2 / 5] * 5
    assert stable_share(curve[:1], ["name"], "gap", "low", "high").isna().all()


def swept_table(variant, grid, gap):
    """A sweep over 2 groups, 3 layers and their mean, 3 pairs and their mean; gap(threshold, group, layer, pair)."""
    pairs = [("en", "de"), ("en", "sw"), ("de", "sw"), ("*", "*")]
    rows = [
        {
            "metric": "nao", "mode": "corrected", "variant": variant, "site": "mlp.act", "position": "last",
            "layer": layer, "head": pd.NA, "group": group, "language_a": a, "language_b": b, "threshold": t,
            "n": 10 + k, "matched": 2 * gap(t, group, layer, (a, b)), "gap": gap(t, group, layer, (a, b)),
            "stability": 0.9, "verdict": "supported",
        }
        for k, t in enumerate(grid) for group in ("x", "y") for layer in (0, 1, 2, pd.NA) for a, b in pairs
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})


def test_rankings_of_layers_and_groups_are_told_apart_from_those_of_pairs():
    def gap(threshold, group, layer, pair):
        depth = 0.0 if layer is pd.NA else float(layer)
        turned = -1 if threshold > 0.4 else 1  # the last of three thresholds turns the order of the layers around
        return 1.0 + turned * depth / 10 + (group == "x") / 100 + len({*pair} & {"en"}) / 1000 + ("sw" in pair) / 2000

    summary = sweep_summary(swept_table("overlap", (0.1, 0.2, 0.5), gap))
    over = summary[summary["layer"].isna()]
    assert over["kendall_tau"].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(over["kendall_tau_layers"], (1 - 1 - 1) / 3)
    assert (summary["kendall_tau_groups"] == 1.0).all()
    assert summary[summary["layer"].notna()]["kendall_tau_layers"].isna().all()
    assert (summary["n"] == 10).all()


def test_area_of_shares_is_taken_over_their_logarithm():
    grid = (0.005, 0.05, 0.5)
    gaps = {0.005: 0.0, 0.05: 1.0, 0.5: 0.0}
    for variant, area in (("overlap_top", 0.5), ("overlap_quantile", (0.5 * 0.045 + 0.5 * 0.45) / 0.495)):
        summary = sweep_summary(swept_table(variant, grid, lambda t, *_: gaps[t]))
        row = summary[summary["layer"].isna()].iloc[0]
        assert row["area_gap"] == pytest.approx(area)
        assert (row["gap_min"], row["gap_max"]) == (0.0, 1.0)
        assert row["axis"] == ("log" if variant == "overlap_top" else "linear")
    skewed = sweep_summary(
        swept_table("kappa_top", (0.01, 0.02, 0.16), lambda t, *_: {0.01: 0.0, 0.02: 1.0, 0.16: 1.0}[t])
    )
    assert skewed["area_gap"].iloc[0] == pytest.approx((0.5 * np.log(2) + np.log(8)) / np.log(16))


def test_summaries_of_contrasts_hold_the_fewest_items_and_rank_layers():
    rows = [
        {
            "metric": "nao", "mode": "corrected", "variant": "overlap", "group_a": "x", "group_b": "y",
            "site": "mlp.act", "position": "last", "layer": layer, "head": pd.NA, "threshold": t, "n_a": 9,
            "n_b": 7 + k, "estimate": 0.1 * (layer is not pd.NA and layer), "stability": 1.0, "verdict": "supported",
        }
        for k, t in enumerate((0.1, 0.4)) for layer in (0, 1, pd.NA)
    ]  # fmt: skip
    summary = contrast_summary(pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"}))
    assert (summary["n"] == 7).all()
    assert summary[summary["layer"].isna()]["kendall_tau_layers"].item() == 1.0
    assert summary["kendall_tau"].isna().all()
