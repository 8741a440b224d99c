"""Estimators of scikit-learn as arrays."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from babelscope.errors import BabelScopeError
from babelscope.probes.probe import Floats, Layers


def linear_layers(model: Any, n_classes: int) -> Layers:
    """The one layer of a fitted linear classifier whose classes are 0, ..., n_classes - 1.

    Raises
    ------
    BabelScopeError
        If a class was not among the labels.
    """
    if len(model.classes_) != n_classes:
        raise BabelScopeError(
            f"{len(model.classes_)} of {n_classes} classes occur among the labels", "leave out classes without rows"
        )
    weights, biases = two_columns(np.asarray(model.coef_.T, np.float64), np.asarray(model.intercept_, np.float64))
    return Layers((weights,), (biases,))


def two_columns(weights: Floats, biases: Floats) -> tuple[Floats, Floats]:
    """The scores of both classes where scikit-learn has only that of the second."""
    if weights.shape[1] > 1:
        return weights, biases
    return np.hstack([np.zeros_like(weights), weights]), np.concatenate([np.zeros_like(biases), biases])


@contextmanager
def converged_or_not() -> Iterator[None]:
    """Inside, a fit that stops at its number of iterations is taken as it is: early stopping is a penalty too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
