"""What items of a fold have in common across languages after a transformation that has not seen them."""

from itertools import combinations

import numpy as np

from babelscope.probes.probe import Codes, Floats
from babelscope.probes.variants import Variant, transformed


def held_out_gaps(X: Floats, folds: Codes, variant: Variant) -> tuple[Floats, Floats]:
    """Gap of the cosine and retrieval of every item among the others of its fold, means over pairs of languages.

    Parameters
    ----------
    X : ndarray of float64
        (language, item, dim).
    folds : ndarray of int64
        (item,).
    variant : str
        Of `variants.VARIANTS`, fitted on the items of the other folds.

    Returns
    -------
    gap : ndarray of float64
        (item,): cosine of an item's own rows less its mean with rows of other items in the other language.
    found : ndarray of float64
        (item,): how often an item's row is the nearest one to its row in another language, of both directions.
    """
    gap, found = np.empty(len(folds)), np.empty(len(folds))
    for fold in np.unique(folds):
        tested = folds == fold
        rows = transformed(X, folds != fold, variant)[:, tested]
        norms = np.linalg.norm(rows, axis=-1, keepdims=True)
        units = np.divide(rows, norms, out=np.full_like(rows, np.nan), where=norms > 0)
        gaps, hits = zip(*(_pair(units[a] @ units[b].T) for a, b in combinations(range(len(X)), 2)), strict=True)
        gap[tested], found[tested] = np.mean(gaps, axis=0), np.mean(hits, axis=0)
    return gap, found


def _pair(S: Floats) -> tuple[Floats, Floats]:
    own, n = np.diagonal(S), len(S)
    if n < 2:
        return np.full(n, np.nan), np.full(n, np.nan)
    others = (S.sum(axis=0) + S.sum(axis=1) - 2 * own) / (2 * (n - 1))
    masked = S - np.diag(np.full(n, np.inf))
    hits = ((own > masked.max(axis=0)).astype(np.float64) + (own > masked.max(axis=1))) / 2
    return own - others, hits
