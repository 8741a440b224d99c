import numpy as np
import pytest

from babelscope.analyses.adjusted import lexical_covariates, log_odds
from babelscope.schema import Prompt, PromptSet


def drawn(rng, n_languages, n, *, effect, confounded=0.0):
    covariate = rng.normal(size=n) + 0.5 * rng.normal(size=(n_languages, n))
    values = confounded * covariate + rng.normal(size=n) + 0.5 * rng.normal(size=(n_languages, n))
    level = rng.normal(size=(n_languages, 1))
    logit = level + effect * values + confounded * covariate + rng.normal(size=n)
    outcome = (rng.random((n_languages, n)) < 1 / (1 + np.exp(-logit))).astype(float)
    return values, outcome, covariate[None]


def standardized(x):
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)


def slow_log_odds(values, outcome, covariates):
    """Newton's steps, and the sandwich with a sum of scores for every item."""
    n_languages, n = values.shape
    rows, y, items = [], [], []
    for k in range(n_languages):
        for i in range(n):
            one = [0.0] * n_languages
            one[k] = 1.0
            rows.append([standardized(values)[k, i], *(standardized(c)[k, i] for c in covariates), *one])
            y.append(outcome[k, i])
            items.append(i)
    X, y, items = np.array(rows), np.array(y), np.array(items)
    beta = np.zeros(X.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-X @ beta))
        beta = beta + np.linalg.solve((X * (p * (1 - p))[:, None]).T @ X, X.T @ (y - p))
    p = 1 / (1 + np.exp(-X @ beta))
    bread = np.linalg.inv((X * (p * (1 - p))[:, None]).T @ X)
    meat = np.zeros((X.shape[1], X.shape[1]))
    for i in range(n):
        score = (X[items == i] * (y - p)[items == i][:, None]).sum(axis=0)
        meat += np.outer(score, score)
    N, K = X.shape
    variance = bread @ meat @ bread * n / (n - 1) * (N - 1) / (N - K)
    return beta[0], np.sqrt(variance[0, 0])


def test_log_odds_are_those_of_newtons_method_and_a_sandwich_over_items():
    values, outcome, covariates = drawn(np.random.default_rng(0), 3, 60, effect=0.7, confounded=0.5)
    beta, error = slow_log_odds(values, outcome, covariates)
    found = log_odds(values, outcome, covariates)
    assert found.estimate == pytest.approx(beta, rel=1e-5)
    assert (found.high - found.low) / 2 == pytest.approx(error * 2.0010, rel=1e-3)  # Student's t of 59
    assert (found.n_items, found.n_answers) == (60, 180)


def test_what_a_covariate_explains_is_no_effect_of_the_value():
    rng = np.random.default_rng(1)
    hits = {"alone": 0, "adjusted": 0}
    for _ in range(100):
        values, outcome, covariates = drawn(rng, 3, 60, effect=0.0, confounded=1.0)
        hits["alone"] += log_odds(values, outcome, covariates[:0]).p <= 0.05
        hits["adjusted"] += log_odds(values, outcome, covariates).p <= 0.05
    assert hits["alone"] > 50
    assert hits["adjusted"] <= 13  # 0.999 quantile of 100 at a rate of 0.05


def test_separated_or_constant_values_are_undefined_not_infinite():
    rng = np.random.default_rng(0)
    outcome = np.tile([0.0, 1.0], (2, 10))
    none = np.empty((0, 2, 20))
    assert np.isnan(log_odds(outcome + 0.01 * rng.random((2, 20)), outcome, none).estimate)
    assert np.isnan(log_odds(np.full((2, 20), 0.3), outcome, none).estimate)
    assert np.isnan(log_odds(rng.normal(size=(2, 20)), np.ones((2, 20)), none).p)
    assert np.isnan(log_odds(np.full((2, 20), np.nan), outcome, none).p)


def test_a_covariate_that_does_not_vary_is_left_out():
    values, outcome, _ = drawn(np.random.default_rng(0), 2, 60, effect=0.7)
    with_constant = log_odds(values, outcome, np.full((1, 2, 60), 3.0))
    assert with_constant.estimate == pytest.approx(log_odds(values, outcome, np.empty((0, 2, 60))).estimate)


def test_lexical_covariates_are_length_and_shared_words():
    prompts = PromptSet("made", (
        Prompt("a", "en", "the red house"), Prompt("b", "en", "one"),
        Prompt("a", "de", "das Haus the"), Prompt("b", "de", "eins"),
    ))  # fmt: skip
    n_tokens = {("en", "a"): 3, ("en", "b"): 1, ("de", "a"): 4, ("de", "b"): 2}
    found = lexical_covariates(prompts, "en", n_tokens)
    np.testing.assert_allclose(found[0], np.log([[3, 1], [4, 2]]))
    np.testing.assert_allclose(found[1], [[1, 1], [1 / 5, 0]])
