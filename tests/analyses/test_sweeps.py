import numpy as np
import pandas as pd
import pytest
from scipy import stats

from babelscope.analyses.sweeps import mean_kendall_tau
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
