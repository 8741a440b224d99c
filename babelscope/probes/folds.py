"""Folds of items: all languages of an item, and all items that belong together, are tested in the same one."""

import warnings
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from babelscope.errors import BabelScopeError
from babelscope.probes.probe import Codes


def item_groups(n_items: int, shared: Sequence[Sequence[Hashable]]) -> Codes:
    """Group of each item (item,): items with an equal value anywhere are in one group, and so are theirs.

    Parameters
    ----------
    n_items : int
    shared : sequence of sequences
        Each (item,): values that tie items, as their texts in a language, or a covariate; None ties nothing.
    """
    rows, columns = [], []
    for k, values in enumerate(shared):
        first: dict[Hashable, int] = {}
        for item, value in enumerate(values):
            if value is not None:
                rows.append(item)
                columns.append(first.setdefault((k, value), item))
    edges = coo_array((np.ones(len(rows)), (rows, columns)), shape=(n_items, n_items))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def item_folds(groups: Codes, labels: Codes, n_folds: int, seed: int) -> Codes:
    """Fold in which each item is tested (item,), the labels spread evenly; groups are never split.

    A fold is of items, not of rows: whatever the language in which a probe is fitted and the one in which it is
    tested, it has never seen the items that it is tested on, in any language.

    Parameters
    ----------
    groups : ndarray of int64
        (item,): of `item_groups`.
    labels : ndarray of int64
        (item,): what is to be spread evenly.
    n_folds, seed : int

    Raises
    ------
    BabelScopeError
        If there are fewer groups than folds.
    """
    n_groups = len(np.unique(groups))
    if n_folds < 2:
        raise BabelScopeError(f"{n_folds} folds leave nothing to test on", "ask for --folds 2 or more")
    if n_groups < n_folds:
        raise BabelScopeError(
            f"{len(groups)} items form {n_groups} groups that may not be split, fewer than {n_folds} folds",
            "capture more items, ask for fewer --folds, or group by a finer covariate",
        )
    folds = np.empty(len(groups), dtype=np.int64)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for k, (_, tested) in enumerate(_quietly(splitter, labels, groups)):
        folds[tested] = k
    return folds


def _quietly(splitter: StratifiedGroupKFold, labels: Codes, groups: Codes) -> list[tuple[Codes, Codes]]:
    """The splits, without a warning that a class is rarer than the folds are many: it is then absent from some."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(splitter.split(np.zeros(len(labels)), labels, groups))


def shuffled_labels(labels: Codes, groups: Codes, n_perm: int, rng: np.random.Generator, *, of_items: bool) -> Codes:
    """Shuffled labels (permutation, language, item); what belongs together is shuffled together.

    Items of a group are not independent, and swapped one by one they would look as if they were: p would be too small.

    Parameters
    ----------
    labels : ndarray of int64
        (language, item).
    groups : ndarray of int64
        (item,): of `item_groups`.
    n_perm : int
    rng : Generator
    of_items : bool
        Whether items swap their labels, in all languages alike, so that what languages have in common stays: groups
        that have one label swap it with each other; where labels differ within groups, groups of one size swap all of
        their labels, in a random order within the group. Else the languages of each item swap theirs, alike in the
        items of a group, as for labels that tell languages apart.
    """
    found = np.empty((n_perm, *labels.shape), dtype=np.int64)
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    first = np.array([places[0] for places in members])
    place = np.searchsorted(np.unique(groups), groups)
    constant = all((labels[:, places] == labels[:, places[:1]]).all() for places in members)
    for k in range(n_perm):
        if not of_items:
            order = rng.permuted(_ranks(labels.shape[0], len(members)), axis=0)
            found[k] = np.take_along_axis(labels, order[:, place], axis=0)
        elif constant:
            found[k] = labels[:, first[rng.permutation(len(members))]][:, place]
        else:
            found[k] = labels[:, _swapped(members, rng)]
    return found


def _ranks(n: int, columns: int) -> Codes:
    return np.repeat(np.arange(n)[:, None], columns, axis=1)


def _swapped(members: Sequence[Codes], rng: np.random.Generator) -> Codes:
    """Where each item takes its label from: another group of the same size, in a random order."""
    source = np.empty(sum(map(len, members)), dtype=np.int64)
    for size in {len(places) for places in members}:
        alike = [places for places in members if len(places) == size]
        for places, other in zip(alike, rng.permutation(len(alike)), strict=True):
            source[places] = rng.permutation(alike[other])
    return source


def type_labels(types: Sequence[Hashable], labels: Codes, n: int, rng: np.random.Generator) -> Codes:
    """Random labels per type, shared across languages, (labeling, language, item): a control task.

    Types draw from the labels of items, so that classes are about as frequent as those of the task (Hewitt and Liang
    2019, arXiv:1909.03368, section 2).
    """
    names: Mapping[Hashable, int] = {name: i for i, name in enumerate(dict.fromkeys(types))}
    place = np.array([names[name] for name in types])
    drawn = rng.choice(labels.ravel(), size=(n, len(names)))[:, None, place]
    return np.broadcast_to(drawn, (n, *labels.shape)).astype(np.int64)


def comes_back(types: Sequence[Hashable | None], folds: Codes) -> NDArray[np.bool_]:
    """Whether the type of each item (item,) is also that of an item in another fold; False for items without a type."""
    of_type: dict[Hashable, set[int]] = {}
    for name, fold in zip(types, folds.tolist(), strict=True):
        of_type.setdefault(name, set()).add(fold)
    return np.array([name is not None and len(of_type[name]) > 1 for name in types], dtype=bool)
