from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from babelscope.errors import BabelScopeError
from babelscope.probes.description_length import (
    MIXING,
    DescriptionLength,
    block_ends,
    description_length,
    shuffled_labels,
)


class Always:
    """Predicts the same for every row; remembers what it was fitted on."""

    def __init__(self, probabilities=None):
        self.probabilities = probabilities
        self.calls = []

    def __call__(self, X, labels):
        self.calls.append((X.copy(), labels.copy()))
        found = Always()
        found.classes_ = np.unique(labels)
        n = len(found.classes_)
        found.predict_proba = lambda X: np.tile(self.probabilities or np.full(n, 1 / n), (len(X), 1))
        return found


def logistic(X, labels):
    return LogisticRegression(max_iter=500).fit(X, labels)


def grid(items=64, languages=3, classes=2, signal=2.0, seed=0):
    """Rows (item x language, unit), a label and an id for each item; the label moves the first units."""
    rng = np.random.default_rng(seed)
    of_item = rng.permutation(np.arange(items) % classes)
    x = rng.normal(size=(items, languages, 6)) + signal * np.eye(classes, 6)[of_item][:, None]
    ids = np.array([f"item-{i}" for i in range(items)])
    return x.reshape(-1, 6), np.repeat(of_item, languages), np.repeat(ids, languages)


def lengths(X, labels, items, fit=logistic, seed=1, **settings):
    return description_length(X, labels, items, fit, rng=np.random.default_rng(seed), **settings)


def test_blocks_end_at_the_shares_of_the_paper():
    assert block_ends(10_000) == [10, 20, 40, 80, 160, 320, 625, 1250, 2500, 5000, 10_000]
    assert block_ends(1000) == [1, 2, 4, 8, 16, 32, 63, 125, 250, 500, 1000]
    assert block_ends(16) == [1, 2, 4, 8, 16]
    assert block_ends(100) == [1, 2, 4, 7, 13, 25, 50, 100]


def test_the_code_by_hand():
    # 16 items of one row; two classes in turn, so that item 2 is the first of its class. In the one order of seed 0,
    # the uniform code pays 1 bit for each row until both classes were seen, and then the probe that always says
    # (3/4, 1/4) pays -log2 of that, less what mixing takes.
    labels = np.arange(16) % 2
    order = np.random.default_rng(0).permutation(16)
    bits, seen = 0.0, set()
    for start, end in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16)):
        for item in order[start:end]:
            p = (0.75, 0.25)[labels[item]] if len(seen) == 2 else 0.5
            bits -= log2((1 - MIXING) * p + MIXING / 2)
        seen |= set(labels[order[:end]])
    found = lengths(np.zeros((16, 1)), labels, np.arange(16), Always([0.75, 0.25]), seed=0, orderings=1)
    assert found.bits == pytest.approx(bits)
    assert found.uniform_bits == 16
    assert found.compression == pytest.approx(16 / bits)
    assert found.share == pytest.approx(bits / 16)
    assert (found.n_rows, found.n_items, found.n_classes) == (16, 16, 2)


def test_a_probe_that_always_says_the_same_of_each_class_takes_the_uniform_code():
    X, labels, items = grid(classes=5)
    found = lengths(X, labels, items, Always())
    assert_allclose(found.per_ordering, len(labels) * log2(5))
    assert found.compression == pytest.approx(1)


def test_a_certain_probe_that_errs_costs_finitely_many_bits():
    X, labels, items = grid(items=32)
    found = lengths(X, labels, items, Always([1.0, 0.0]))
    assert found.bits < len(labels) * log2(2 / MIXING)
    assert found.bits > 0.4 * len(labels) * log2(2 / MIXING)


def test_a_certain_probe_that_is_right_costs_nearly_nothing_once_it_is_fitted():
    labels = np.arange(64) % 2
    found = lengths(50.0 * np.eye(2)[labels], labels, np.arange(64))
    assert found.bits < 8  # the uniform code of the first few items, and the mixing of the others


def test_a_class_not_seen_yet_takes_the_uniform_code():
    # Class 2 is in the last item only. Until then it has 1/3, and the two others share 2/3, all of it for class 0.
    order = np.random.default_rng(0).permutation(32)
    labels = np.arange(32) % 2
    labels[order[-1]] = 2
    bits = 0.0
    for start, end in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32)):
        both = len(set(labels[order[:start]])) == 2
        for item in order[start:end]:
            p = (2 / 3, 0.0, 1 / 3)[labels[item]] if both else 1 / 3
            bits -= log2((1 - MIXING) * p + MIXING / 3)
    found = lengths(np.zeros((32, 1)), labels, np.arange(32), Always([1.0, 0.0]), seed=0, orderings=1)
    assert found.bits == pytest.approx(bits)


def test_classes_that_never_occur_are_paid_for():
    X, labels, items = grid()
    assert lengths(X, labels, items, Always(), classes=np.arange(4)).bits == pytest.approx(len(labels) * 2)


def test_columns_in_another_order_are_put_in_order():
    class Backwards:
        def __init__(self, X, labels):
            self.probe = logistic(X, labels)
            self.classes_ = self.probe.classes_[::-1]

        def predict_proba(self, X):
            return self.probe.predict_proba(X)[:, ::-1]

    data = grid()
    assert_allclose(lengths(*data, Backwards).per_ordering, lengths(*data).per_ordering)


def test_labels_may_be_words():
    X, labels, items = grid(classes=3)
    words = np.array(["yes", "no", "maybe"])[labels]
    assert lengths(X, words, items).bits == pytest.approx(lengths(X, labels, items).bits)


def test_rows_of_an_item_are_never_on_two_sides():
    X, labels, items = grid(items=40, languages=4)
    X[:, 0] = np.repeat(np.arange(40), 4)  # the item of each row
    shuffle = np.random.default_rng(0).permutation(len(X))
    fit = Always()
    lengths(X[shuffle], labels[shuffle], items[shuffle], fit, orderings=3)
    for rows, _ in fit.calls:
        found, counts = np.unique(rows[:, 0], return_counts=True)
        assert (counts == 4).all()
        assert len(found) in block_ends(40)[:-1]
    assert len(fit.calls) >= 9


def test_bits_are_averaged_over_orderings_that_differ():
    data = grid(items=48, signal=1.0)
    found = lengths(*data, orderings=6)
    assert len(set(found.per_ordering)) == 6
    assert found.bits == pytest.approx(np.mean(found.per_ordering))
    assert found.spread == pytest.approx(np.std(found.per_ordering, ddof=1))
    assert np.isnan(lengths(*data, orderings=1).spread)


def test_the_order_of_rows_does_not_matter():
    X, labels, items = grid(items=40)
    shuffle = np.random.default_rng(3).permutation(len(X))
    found = lengths(X[shuffle], labels[shuffle], items[shuffle]).per_ordering
    assert_allclose(found, lengths(X, labels, items).per_ordering, rtol=1e-4)


def test_equal_seeds_give_equal_numbers():
    data = grid(items=32)
    once, again = (lengths(*data, shuffles=3, orderings=2) for _ in range(2))
    assert (once.per_ordering == again.per_ordering).all()
    assert (once.null == again.null).all()


def test_shuffles_do_not_change_the_observed_length():
    data = grid(items=32)
    assert_allclose(lengths(*data, shuffles=2).per_ordering, lengths(*data).per_ordering)


def test_planted_labels_are_compressed_and_shuffled_ones_are_not():
    found = lengths(*grid(items=120), shuffles=9)
    assert found.compression > 2
    assert 0.6 < found.null_compression < 1
    assert found.saved > 0.5
    assert found.p == 1 / 10
    cautious = lengths(*grid(items=120), lambda X, y: LogisticRegression(C=1e-3).fit(X, y), shuffles=9)
    assert cautious.null_compression == pytest.approx(1, abs=0.05)


def test_more_signal_takes_fewer_bits():
    bits = [lengths(*grid(items=80, signal=s)).bits for s in (0.0, 1.0, 2.0, 4.0)]
    assert bits == sorted(bits, reverse=True)


def test_frequent_labels_are_compressed_without_information_and_so_are_shuffled_ones():
    X, _, items = grid(items=100, signal=0.0)
    labels = np.repeat(np.random.default_rng(5).random(100) < 0.1, 3)
    found = lengths(X, labels, items, lambda X, y: LogisticRegression(C=1e-3).fit(X, y), shuffles=9)
    assert found.compression > 1.5
    assert abs(found.saved) < 0.1
    assert found.p > 0.1


def test_labels_of_items_that_say_nothing_are_as_long_as_shuffled_ones():
    # p is at most 0.1 in a tenth of the data sets without information: above 11 of 60 with a probability of 0.02.
    found = [lengths(*grid(24, signal=0.0, seed=s), nearest_mean, seed=s, orderings=3, shuffles=9).p for s in range(60)]
    assert np.count_nonzero(np.array(found) <= 0.1) <= 11
    assert 0.4 < np.mean(found) < 0.7


def nearest_mean(X, labels):
    found = Always()
    found.classes_ = np.unique(labels)
    means = np.stack([X[labels == c].mean(axis=0) for c in found.classes_])

    def predict_proba(X):
        scores = -0.5 * ((X[:, None] - means) ** 2).sum(axis=2)
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    found.predict_proba = predict_proba
    return found


def test_labels_of_items_are_swapped_between_items():
    _, labels, items = grid(items=50, classes=3)
    found = shuffled_labels(labels, items, np.random.default_rng(0))
    assert all(len(set(found[items == i])) == 1 for i in set(items))
    assert (np.bincount(found) == np.bincount(labels)).all()
    assert (found != labels).any()


def test_labels_that_vary_within_items_are_swapped_within_them():
    items = np.repeat(np.arange(40), 3)
    languages = np.tile(["de", "en", "sw"], 40)
    shuffle = np.random.default_rng(1).permutation(120)
    items, languages = items[shuffle], languages[shuffle]
    found = shuffled_labels(languages, items, np.random.default_rng(0))
    assert all(sorted(found[items == i]) == ["de", "en", "sw"] for i in range(40))
    assert 0.2 < (found == languages).mean() < 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(16, 60), st.integers(2, 6))
def test_lengths_are_bounded_by_the_mixed_uniform_code(seed, items, classes):
    rng = np.random.default_rng(seed)
    of_row = rng.integers(0, items, 3 * items)
    of_row[:items] = np.arange(items)
    labels = rng.integers(0, classes, 3 * items)
    labels[:classes] = np.arange(classes)
    fit = lambda X, y: Always(list(rng.dirichlet(np.full(len(np.unique(y)), 0.05))))(X, y)  # noqa: E731
    found = lengths(rng.normal(size=(3 * items, 2)), labels, of_row, fit, seed=seed, orderings=2)
    assert (found.per_ordering > 0).all()
    assert (found.per_ordering <= 3 * items * log2(classes / MIXING)).all()
    assert found.n_items == items


def test_without_shuffles_there_is_no_p():
    found = lengths(*grid(items=32))
    assert found.null.shape == (0,)
    assert np.isnan([found.p, found.saved, found.null_compression]).all()


def test_p_counts_ties_and_the_observed_labels():
    found = DescriptionLength(np.array([10.0]), np.array([9.0, 10, 11, 12]), 16.0, 16, 16, 2)
    assert found.p == 3 / 5
    assert found.saved == pytest.approx(1 - 10 / 10.5)
    assert found.null_compression == pytest.approx(16 / 10.5)


def test_what_has_no_description_length_is_refused():
    X, labels, items = grid(items=16)
    with pytest.raises(BabelScopeError, match="15 items are too few"):
        lengths(X[:45], labels[:45], items[:45])
    with pytest.raises(BabelScopeError, match="one class"):
        lengths(X, np.zeros(48), items)
    with pytest.raises(BabelScopeError, match="labels of shape"):
        lengths(X, labels[1:], items)
    with pytest.raises(BabelScopeError, match="items of shape"):
        lengths(X, labels, items[1:])
    with pytest.raises(BabelScopeError, match="label 1 is none of the classes"):
        lengths(X, labels, items, classes=np.array([0, 2]))
    with pytest.raises(BabelScopeError, match="0 orderings"):
        lengths(X, labels, items, orderings=0)
    for wrong in ([0.9, 0.9], [1.2, -0.2], [float("nan"), 1.0]):
        with pytest.raises(BabelScopeError, match="no probabilities"):
            lengths(X, labels, items, Always(wrong))
    with pytest.raises(BabelScopeError, match="one column for each class"):
        lengths(X, labels, items, Always([0.5, 0.3, 0.2]))
