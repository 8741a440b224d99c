"""Variants of the rows that a probe is asked about: as they are, about the mean of their language, without language."""

import numpy as np
from numpy.typing import NDArray

from babelscope.probes.erasure import fit_eraser
from babelscope.probes.probe import Floats

Variant = str
VARIANTS = ("raw", "centered", "erased")


def transformed(X: Floats, fitted_on: NDArray[np.bool_], variant: Variant) -> Floats:
    """Rows (language, item, dim) as a variant has them, fitted on some items (item,)."""
    if variant == "centered":
        return centered(X, fitted_on)
    return erased(X, fitted_on) if variant == "erased" else X


def centered(X: Floats, fitted_on: NDArray[np.bool_]) -> Floats:
    """Each language about the mean of its own items that a probe is fitted on, (language, item, dim)."""
    found: Floats = X - X[:, fitted_on].mean(axis=1, keepdims=True)
    return found


def erased(X: Floats, fitted_on: NDArray[np.bool_]) -> Floats:
    """Rows without what tells languages apart linearly, as found in the items that a probe is fitted on (LEACE)."""
    n_languages, _, dim = X.shape
    train = X[:, fitted_on]
    labels = np.repeat(np.arange(n_languages), train.shape[1])
    eraser = fit_eraser(train.reshape(-1, dim), labels)
    return np.asarray(eraser(X.reshape(-1, dim)), np.float64).reshape(X.shape)
