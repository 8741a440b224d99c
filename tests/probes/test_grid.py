"""Planted labels are found where they are, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from babelscope.analyses.probing import Place, probe_table
from babelscope.errors import BabelScopeError
from babelscope.probes.grid import _credit, answered, balanced_accuracy
from babelscope.probes.probe import chosen_probe
from babelscope.probes.variants import centered, erased
from babelscope.schema import Site
from tests.probes.planted import item_codes, question, rows


def scores(found, codes):
    n = int(codes.max()) + 1
    return np.array([[balanced_accuracy(p[b], codes[b], n) for b in range(len(codes))] for p in found.predicted])


def one(X, asked, name="ridge", variant="raw"):
    return answered(X, asked, chosen_probe(name), [variant])[0]


def test_balanced_accuracy_is_scikit_learns_and_undefined_without_a_class():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    assert balanced_accuracy(predicted, labels, 3) == pytest.approx(balanced_accuracy_score(labels, predicted))
    weights = rng.integers(0, 4, size=(5, 50)).astype(float)
    expected = [balanced_accuracy_score(labels, predicted, sample_weight=w) for w in weights]
    assert balanced_accuracy(predicted, labels, 3, weights) == pytest.approx(expected)
    assert np.isnan(balanced_accuracy(predicted, labels, 4))


@pytest.mark.parametrize("name", ["ridge", "mass-mean", "logistic"])
def test_a_direction_that_languages_share_is_read_across_them(name):
    codes = item_codes()
    found = scores(one(rows(codes, shared=1.0), question(codes, n_perm=2, n_seen=0), name), codes)
    assert (found > 0.85).all()


def test_directions_of_their_own_are_read_within_languages_alone():
    codes = item_codes(n_items=240)
    found = scores(one(rows(codes, own=1.5), question(codes)), codes)
    off = ~np.eye(3, dtype=bool)
    assert (found[~off] > 0.85).all()
    assert found[off].mean() < 0.65


def test_labels_that_are_nowhere_are_at_chance():
    codes = item_codes(n_items=300)
    found = one(rows(codes, offset=2.0, identity=1.0), question(codes, n_perm=99))
    assert scores(found, codes).mean() == pytest.approx(1 / 3, abs=0.05)
    assert found.shuffled.mean() == pytest.approx(1 / 3, abs=0.02)


def test_a_leak_between_languages_gives_nothing_away():
    """Every item has a vector of its own in all languages: who trains on it in one knows its label in another."""
    codes = item_codes(n_items=150)
    X = rows(codes, dim=300, identity=3.0)
    flat, labels = X.reshape(-1, 300), codes.ravel()
    leaky = cross_val_score(KNeighborsClassifier(1), flat, labels, cv=KFold(5, shuffle=True, random_state=0))
    assert leaky.mean() > 0.95  # rows of an item on both sides of the split
    asked = question(codes, n_perm=39)
    found = one(X, asked)
    assert scores(found, codes).mean() == pytest.approx(1 / 3, abs=0.06)
    off = ~np.eye(3, dtype=bool)
    assert found.recognized[off].mean() > 0.9  # what the probe could remember, had it seen the items


def test_items_with_the_same_text_are_no_leak_either():
    codes = item_codes(n_items=160, n_classes=2)
    codes[:, 80:] = codes[:, :80]  # each question occurs twice, with the same answer
    X = rows(codes, dim=200)
    X[:, 80:] = X[:, :80]
    split = scores(one(X, question(codes)), codes)
    assert np.diag(split).mean() > 0.9
    texts = [f"q{i % 80}" for i in range(160)]
    kept = scores(one(X, question(codes, ties=[texts])), codes)
    assert kept.mean() == pytest.approx(0.5, abs=0.1)


def test_an_offset_of_languages_hides_a_shared_direction_and_centering_shows_it():
    codes = item_codes(n_items=200, n_classes=2)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=20)
    X = rows(codes) + 1.2 * np.where(codes == 1, 1, -1)[..., None] * direction
    X += np.array([-6, 0, 6])[:, None, None] * direction  # languages lie apart along the direction itself
    asked = question(codes)
    off = ~np.eye(3, dtype=bool)
    raw, middled = one(X, asked), one(X, asked, variant="centered")
    assert scores(raw, codes)[off].mean() < 0.6
    assert scores(middled, codes)[off].mean() > 0.95
    assert np.diag(scores(raw, codes)) == pytest.approx(np.diag(scores(middled, codes)))


def test_centering_and_erasing_take_nothing_from_the_items_tested():
    X = rows(item_codes(n_items=40), offset=3.0)
    fitted_on = np.arange(40) < 30
    for transform in (centered, erased):
        plain = transform(X, fitted_on)
        moved = X.copy()
        moved[:, 35] += 100.0
        assert transform(moved, fitted_on)[:, :30] == pytest.approx(plain[:, :30])


def test_languages_are_told_apart_until_they_are_erased():
    codes = np.tile(np.arange(3)[:, None], (1, 100))
    X = rows(codes, shared=1.0)
    asked = replace(question(codes, scope="language"), halves=("raw", "erased"))
    raw, without = answered(X, asked, chosen_probe("ridge"), ["raw", "erased"])
    assert (raw.predicted[0] == codes).mean() > 0.95
    assert (without.predicted[0] == codes).mean() < 0.55
    assert np.isnan(raw.control).all()
    assert np.isnan(raw.recognized).all()


def test_an_eraser_is_not_judged_by_the_rows_it_was_fitted_on():
    """With few items and many units, language is hidden from its own rows and found again in others."""
    codes = np.tile(np.arange(3)[:, None], (1, 60))
    X = rows(codes, dim=200, shared=1.0)
    itself = answered(X, question(codes, scope="language"), chosen_probe("ridge"), ["erased"])[0]
    others = answered(
        X, replace(question(codes, scope="language"), halves=("raw", "erased")), chosen_probe("ridge"), ["erased"]
    )[0]
    assert (itself.predicted[0] == codes).mean() < 0.45
    assert (others.predicted[0] == codes).mean() > 0.6


def test_control_types_are_remembered_where_they_come_back():
    codes = item_codes(n_items=120, n_classes=2)
    types = np.arange(120) % 6
    rng = np.random.default_rng(1)
    X = rows(codes) + 4 * rng.normal(size=(6, 20))[types]  # the type can be read off
    found = one(X, question(codes, control=types.tolist()))
    assert np.nanmean(found.control) > 0.85
    unread = one(rows(codes), question(codes, control=types.tolist()))
    assert unread.control.mean() == pytest.approx(0.5, abs=0.1)


def test_shuffled_labels_reach_the_observed_score_as_often_as_they_should():
    """The share of p <= .1 in 80 data sets without an effect; a binomial bound of .1 at 99.9 % is .22."""
    low = 0
    for seed in range(80):
        codes = item_codes(n_items=30, n_classes=2, n_languages=2, seed=seed)
        found = one(rows(codes, dim=5, seed=seed), question(codes, n_perm=19, n_seen=0, seed=seed), "mass-mean")
        observed = scores(found, codes)[0, 1]
        low += (1 + (found.shuffled[0, 1] >= observed - 1e-12).sum()) / 20 <= 0.1
    assert low / 80 < 0.22


def test_values_that_are_not_finite_are_refused():
    codes = item_codes(n_items=30)
    X = rows(codes)
    X[0, 3, 2] = np.inf
    with pytest.raises(BabelScopeError, match="not finite"):
        one(X, question(codes))


def test_constant_activations_are_no_crash_and_nothing_is_found():
    codes = item_codes(n_items=30)
    for name in ("ridge", "mass-mean"):
        found = one(np.ones((3, 30, 4)), question(codes), name)
        assert scores(found, codes) == pytest.approx(1 / 3)
        assert (found.shuffled == found.shuffled[0, 0, 0]).all()


def test_items_are_recognized_whatever_they_are_labeled_in_a_language():
    """Labels of its own in each language say nothing about items: the control gives every item one label in all."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.permutation(np.arange(90) % 2) for _ in range(3)])
    found = one(rows(codes, dim=200, identity=3.0), question(codes, scope="row"))
    off = ~np.eye(3, dtype=bool)
    assert found.recognized[off].mean() > 0.9
    assert np.isnan(found.recognized[~off]).all()


def test_credit_has_balanced_accuracy_as_its_mean():
    rng = np.random.default_rng(0)
    labels = (rng.random((4, 2, 60)) < 0.15).astype(np.int64)
    said = rng.integers(0, 2, labels.shape)
    expected = balanced_accuracy(said, labels, 2).mean(axis=0)
    assert _credit(said, labels).mean(axis=-1) == pytest.approx(expected)


def test_a_language_with_hardly_a_row_of_a_class_is_not_usable():
    codes = item_codes(n_items=60, n_classes=2)
    codes[1] = 0
    codes[2] = 0
    codes[2, :3] = 1
    assert question(codes, scope="row").usable.tolist() == [True, False, False]


def test_a_label_that_languages_share_has_a_score_and_no_verdict():
    """Three languages that lie apart, in two scripts: every probe knows the script, whatever it is that they share."""
    codes = np.tile(np.array([0, 0, 1])[:, None], (1, 60))
    asked = question(codes, scope="language")
    found = answered(rows(codes, offset=3.0), asked, chosen_probe("ridge"), ["raw"])
    table = probe_table({Place(Site("resid.post", 0), "last"): found}, asked, probe="ridge", n_boot=50, seed=0)
    assert table.set_index("pairs").loc["all", "score"] > 0.9
    assert table["p"].isna().all()
    assert set(table["verdict"]) == {"not testable with this data"}
