"""Estimators of scikit-learn as arrays."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from babelscope.errors import BabelScopeError
from babelscope.probes.probe import Codes, Floats, Layers

# Inverse penalty of the regression that describes labels.
DESCRIPTION_C = 0.01


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


def frequency_logistic(X: Floats, labels: Codes) -> Pipeline:
    """Logistic regression of standardized rows whose probabilities know how frequent the labels are.

    A description length needs such: classes that count alike, as in a probe, make codes of unequal classes longer.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=DESCRIPTION_C, max_iter=1000))
    with warnings.catch_warnings():
        # The first blocks of a code have hardly more rows than classes: that is how it begins.
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        return model.fit(X, labels)
