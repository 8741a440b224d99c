"""Rows with a label in them: in one direction for all languages, in one of its own for each, or nowhere."""

import numpy as np

from babelscope.probes.folds import comes_back, item_folds, item_groups, shuffled_labels, type_labels
from babelscope.probes.grid import Question
from babelscope.probes.targets import Target

LANGUAGES = ("en", "de", "sw")


def rows(labels, dim=20, *, shared=0.0, own=0.0, offset=0.0, identity=0.0, seed=0):
    """(language, item, dim): `shared` and `own` of the label, `offset` of the language, `identity` of the item."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    n_classes = labels.max() + 1
    common = rng.normal(size=(n_classes, dim))
    of_item = rng.normal(size=(labels.shape[1], dim))
    found = rng.normal(size=(*labels.shape, dim))
    for k, codes in enumerate(labels):
        found[k] += shared * common[codes] + own * rng.normal(size=(n_classes, dim))[codes]
        found[k] += offset * rng.normal(size=dim) + identity * of_item
    return found


def item_codes(n_items=120, n_classes=3, n_languages=3, seed=0):
    drawn = np.random.default_rng(seed).permutation(np.arange(n_items) % n_classes)
    return np.tile(drawn, (n_languages, 1))


def question(codes, *, scope="item", n_perm=39, n_seen=20, folds=5, control=None, ties=(), seed=0):
    n_classes = int(codes.max()) + 1
    target = Target("label", scope, tuple(f"c{k}" for k in range(n_classes)), codes)
    rng = np.random.default_rng(seed)
    groups = item_groups(codes.shape[1], ties)
    controls = np.empty((0, *codes.shape), np.int64) if control is None else type_labels(control, codes, 20, rng)
    tested = item_folds(groups, codes[0], folds, seed)
    return Question(
        target,
        LANGUAGES[: len(codes)],
        tested,
        groups,
        shuffled_labels(codes, groups, n_perm, rng, of_items=scope != "language"),
        controls,
        comes_back([None] * codes.shape[1] if control is None else control, tested),
        type_labels(range(codes.shape[1]), codes, n_seen, rng) if n_seen and scope != "language" else controls[:0],
    )
