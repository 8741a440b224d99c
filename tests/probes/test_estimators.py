"""What every probe promises, and each against another way to the same numbers."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid

from babelscope import plugins
from babelscope.errors import BabelScopeError
from babelscope.probes.estimators.ridge import PENALTIES
from babelscope.probes.probe import chosen_probe

NAMES = plugins.names("probe")


def data(n=60, dim=8, n_classes=3, shift=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    return rng.normal(size=(n, dim)) + shift * rng.normal(size=(n_classes, dim))[labels], labels


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_label_is_found_in_rows_that_were_not_seen(name):
    X, labels = data(n=240)
    probe = chosen_probe(name)
    predicted = probe.predictions(X[:160], labels[None, :160], 3, X[160:])[0]
    assert (predicted == labels[160:]).mean() > 0.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_all_labelings_at_once_are_as_one_after_the_other(name, n_classes):
    X, labels = data(n_classes=n_classes)
    rng = np.random.default_rng(1)
    labelings = np.stack([labels, *(rng.permutation(labels) for _ in range(3))])
    tests = rng.normal(size=(20, 8))
    probe = chosen_probe(name)
    together = probe.predictions(X, labelings, n_classes, tests)
    alone = [probe.fit(X, row, n_classes).scores(tests).argmax(axis=1) for row in labelings]
    assert (together == np.stack(alone)).all()


@pytest.mark.parametrize("name", ["logistic", "mass-mean", "ridge"])
def test_predictions_do_not_depend_on_the_basis(name):
    X, labels = data(n=30, dim=80)
    tests = np.random.default_rng(2).normal(size=(40, 80))
    mean = X.mean(axis=0)
    X, tests = X - mean, tests - mean
    basis = np.linalg.qr(X.T)[0]
    probe = chosen_probe(name)
    whole = probe.fit(X, labels, 3).scores(tests)
    within = probe.fit(X @ basis, labels, 3).scores(tests @ basis)
    # lbfgs stops at a gradient of 1e-4, so that its two ends differ a little.
    assert whole - whole.mean(axis=1, keepdims=True) == pytest.approx(
        within - within.mean(axis=1, keepdims=True), abs=1e-2 if name == "logistic" else 1e-8
    )


@pytest.mark.parametrize("name", NAMES)
def test_classes_count_alike_whatever_their_sizes(name):
    rng = np.random.default_rng(3)
    labels = (np.arange(600) % 10 == 0).astype(np.int64)
    X = rng.normal(size=(600, 5)) + 1.5 * labels[:, None] / np.sqrt(5)
    predicted = chosen_probe(name).predictions(X[:400], labels[None, :400], 2, X[400:])[0]
    recalls = [(predicted == labels[400:])[labels[400:] == k].mean() for k in (0, 1)]
    assert min(recalls) > 0.45  # that of the rare class would be about .1 if all rows counted alike


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_no_training_row_has_is_never_predicted(name):
    X, labels = data(n_classes=2)
    labels = np.where(labels == 1, 2, 0)
    predicted = chosen_probe(name).predictions(X, labels[None], 3, X)[0]
    assert set(predicted) == {0, 2}
    alone = chosen_probe(name).predictions(X, np.full_like(labels, 1)[None], 3, X)[0]
    assert set(alone) == {1}


def test_ridge_chooses_the_penalty_that_is_best_when_each_row_is_left_out():
    X, labels = data(n=40, dim=12, shift=0.7)
    centered = X - X.mean(axis=0)
    scale = (np.linalg.svd(centered, compute_uv=False) ** 2).mean()
    targets = np.eye(3)[labels]

    def error(penalty):
        total = 0.0
        for i in range(40):
            left = np.arange(40) != i
            model = Ridge(alpha=penalty * scale).fit(X[left], targets[left])
            total += ((model.predict(X[i : i + 1]) - targets[i]) ** 2).sum()
        return total

    best = min(PENALTIES, key=error)
    # The closed form takes the mean of all rows for that of the others, which moves no choice here.
    only = replace(chosen_probe("ridge"), penalties=(best,))
    tests = np.random.default_rng(4).normal(size=(50, 12))
    expected = only.predictions(X, labels[None], 3, tests)
    assert (chosen_probe("ridge").predictions(X, labels[None], 3, tests) == expected).all()


def test_ridge_is_the_nearest_mean_prediction_of_scikit_learns_ridge():
    X, labels = data(n=50, dim=6)
    scale = (np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2).mean()
    model = Ridge(alpha=0.1 * scale).fit(X, np.eye(3)[labels])
    tests = np.random.default_rng(5).normal(size=(70, 6))
    expected = NearestCentroid().fit(model.predict(X), labels).predict(model.predict(tests))
    probe = replace(chosen_probe("ridge"), penalties=(0.1,))
    assert (probe.predictions(X, labels[None], 3, tests)[0] == expected).all()


def test_ridge_without_a_penalty_is_discriminant_analysis_with_equal_priors():
    X, labels = data(n=90, dim=6)
    tests = np.random.default_rng(6).normal(size=(200, 6))
    expected = LinearDiscriminantAnalysis(priors=[0.5, 0.5]).fit(X, labels == 1).predict(tests)
    probe = replace(chosen_probe("ridge"), penalties=(1e-12,))
    assert (probe.predictions(X, (labels == 1).astype(int)[None], 2, tests)[0] == expected).all()


def test_mass_mean_worked_by_hand():
    X = np.array([[0.0, 0.0], [2.0, 0.0], [6.0, 0.0], [8.0, 0.0]])
    fitted = chosen_probe("mass-mean").fit(X, np.array([0, 0, 1, 1]), 2)
    weight, bias = fitted.weights[0], fitted.biases[0]
    assert (weight[:, 1] - weight[:, 0]).tolist() == [6.0, 0.0]  # the difference of the means
    assert fitted.scores(np.array([[3.9, 9.0], [4.1, -9.0]])).argmax(axis=1).tolist() == [0, 1]
    assert bias.tolist() == [-0.5, -24.5]


@pytest.mark.parametrize("n_classes", [2, 3])
def test_logistic_predicts_what_scikit_learn_does(n_classes):
    X, labels = data(n_classes=n_classes)
    tests = np.random.default_rng(7).normal(size=(50, 8))
    model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000).fit(X, labels)
    assert (chosen_probe("logistic").predictions(X, labels[None], n_classes, tests)[0] == model.predict(tests)).all()


def test_elastic_net_keeps_few_dimensions():
    rng = np.random.default_rng(8)
    labels = rng.integers(0, 2, 200)
    X = rng.normal(size=(200, 30))
    X[:, 4] += 2 * labels
    weight = chosen_probe("elastic-net", {"C": "0.05"}).fit(X, labels, 2).weights[0]
    kept = np.flatnonzero(weight[:, 1] - weight[:, 0])
    assert 4 in kept
    assert len(kept) < 10


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("ridge", {"alpha": 1}, "parameter of probe ridge"),
        ("logistic", {"C": "many"}, "C='many'"),
        ("logistic", {"C": 0}, "C is 0"),
        ("elastic-net", {"l1_ratio": 1.5}, "l1_ratio is 1.5"),
        ("nearest", {}, "nearest"),
    ],
)
def test_what_a_probe_cannot_take_is_refused(name, settings, said):
    with pytest.raises(BabelScopeError, match=said):
        chosen_probe(name, settings)
