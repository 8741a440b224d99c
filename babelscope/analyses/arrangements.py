"""Sums over pairs of items under many pairings: what CKA, RSA and shared neighbors are tested by."""

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.statistics import Floats


def sums_of_products(a: Floats, b: Floats, order: NDArray[np.int32]) -> Floats:
    """Sum over i, j of a[i, j] b[o(i), o(j)] for every order o.

    (item, item) twice and (permutation, item) give (permutation,). The statistic of Mantel
    (1967, Cancer Research 27, 209-220).
    """
    n = len(a)
    flat, weights = np.ascontiguousarray(b).ravel(), np.ascontiguousarray(a).ravel()
    return np.array([weights @ flat[(o[:, None] * n + o[None, :]).ravel()] for o in order.astype(np.int64)])
