"""No item, and nothing that belongs to it, is ever on both sides of a split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelscope.errors import BabelScopeError
from babelscope.probes.folds import comes_back, item_folds, item_groups, shuffled_labels, type_labels


def test_items_are_tied_through_others():
    # a and b have a text in common, b and c a fact: all three are one group.
    texts = ["x", "x", "y", "z", None, None]
    facts = ["1", "2", "2", "3", "4", "5"]
    groups = item_groups(6, [texts, facts])
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 4


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 12), min_size=30, max_size=60), st.integers(0, 5))
def test_a_group_is_tested_in_one_fold_and_every_item_is_tested(values, seed):
    groups = item_groups(len(values), [values])
    labels = np.arange(len(values)) % 3
    n_folds = min(3, len(set(values)))
    if n_folds < 2:
        return
    folds = item_folds(groups, labels, n_folds, seed)
    assert set(folds.tolist()) <= set(range(n_folds))
    for group in set(groups.tolist()):
        assert len(set(folds[groups == group].tolist())) == 1


def test_labels_are_spread_evenly():
    labels = np.arange(100) % 4
    folds = item_folds(np.arange(100), labels, 5, 0)
    for fold in range(5):
        assert np.bincount(labels[folds == fold]).tolist() == [5, 5, 5, 5]


def test_too_few_groups_are_refused():
    with pytest.raises(BabelScopeError, match="form 2 groups"):
        item_folds(np.array([0, 0, 1, 1]), np.zeros(4, int), 3, 0)


def test_shuffles_of_items_keep_what_languages_share_and_shuffles_of_languages_what_items_have():
    labels = np.stack([np.arange(12), np.arange(12) + 100])
    alone = np.arange(12)
    of_items = shuffled_labels(labels, alone, 4, np.random.default_rng(0), of_items=True)
    assert (of_items[:, 1] - of_items[:, 0] == 100).all()
    assert not (of_items[:, 0] == labels[0]).all()
    of_languages = shuffled_labels(labels, alone, 4, np.random.default_rng(0), of_items=False)
    assert (of_languages.sum(axis=1) == labels.sum(axis=0)).all()
    assert not (of_languages == labels).all()


def test_control_labels_are_equal_for_a_type_in_all_languages():
    labels = np.tile(np.arange(40) % 2, (3, 1))
    types = ["a", "b", "c", "d"] * 10
    drawn = type_labels(types, labels, 50, np.random.default_rng(0))
    assert drawn.shape == (50, 3, 40)
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, 0, :4] == drawn[:, 0, 4:8]).all()
    assert 0.35 < drawn.mean() < 0.65


def test_groups_are_shuffled_as_wholes():
    groups = np.repeat(np.arange(6), 3)
    rng = np.random.default_rng(0)
    one_label = np.repeat([0, 1, 0, 1, 1, 0], 3)[None]
    for shuffled in shuffled_labels(one_label, groups, 20, rng, of_items=True)[:, 0]:
        assert all(len(set(shuffled[groups == g].tolist())) == 1 for g in range(6))
        assert shuffled.sum() == one_label.sum()
    own = np.arange(18)[None]
    for shuffled in shuffled_labels(own, groups, 20, rng, of_items=True)[:, 0]:
        assert sorted(shuffled.tolist()) == list(range(18))
        assert all(len({x // 3 for x in shuffled[groups == g].tolist()}) == 1 for g in range(6))
    spoken = np.tile(np.arange(3)[:, None], (1, 18))
    for shuffled in shuffled_labels(spoken, groups, 20, rng, of_items=False):
        assert all((shuffled[:, groups == g] == shuffled[:, groups == g][:, :1]).all() for g in range(6))


def test_a_type_comes_back_where_another_fold_has_it():
    types = ["a", "a", "b", "b", "c", None, None]
    folds = np.array([0, 1, 0, 0, 1, 0, 1])
    assert comes_back(types, folds).tolist() == [True, True, False, False, False, False, False]
