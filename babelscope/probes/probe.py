"""What a probe declares, what it yields, and how its parameters are set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from babelscope import plugins
from babelscope.errors import BabelScopeError, unknown_name

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ProbeInfo:
    """What a reader needs to know about a probe.

    Parameters
    ----------
    title : str
    rotates : bool
        Whether it is fitted in an orthonormal basis of the training rows where these are fewer than the dimensions. Its
        predictions have to be the same there, as those of every linear probe are that penalizes the Euclidean norm of
        its weights.
    source : str
        Definition, or paper and section.
    """

    title: str
    rotates: bool
    source: str


@dataclass(frozen=True, slots=True)
class Layers:
    """A fitted probe as arrays: affine layers with a ReLU between them; one layer for a linear probe.

    Parameters
    ----------
    weights : tuple of ndarray of float64
        (dim, hidden), ..., (hidden, class).
    biases : tuple of ndarray of float64
        (hidden,), ..., (class,).
    """

    weights: tuple[Floats, ...]
    biases: tuple[Floats, ...]

    def scores(self, X: Floats) -> Floats:
        """Scores of each class, (row, class); the largest is the prediction."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            X = np.maximum(X @ weight + bias, 0.0)
        found: Floats = X @ self.weights[-1] + self.biases[-1]
        return found


class Probe(Protocol):
    """A frozen dataclass; its fields are the parameters of the probe.

    Classes count alike whatever their sizes: a probe of rare errors may not win by always predicting success.
    """

    info: ClassVar[ProbeInfo]

    def fit(self, X: Floats, labels: Codes, n_classes: int) -> Layers:
        """Fit standardized rows (row, dim) with labels 0, ..., n_classes - 1 (row,), of which each occurs."""
        ...

    def predictions(self, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
        """Predicted classes of `tests` (test row, dim) after a fit to each of `labelings` (labeling, row).

        Returns
        -------
        ndarray of int64
            (labeling, test row); what `fit` would predict.
        """
        ...


def each_alone(probe: Probe, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
    """`Probe.predictions` by one fit after the other; a class that a labeling lacks is never predicted."""
    found = np.empty((len(labelings), len(tests)), dtype=np.int64)
    for row, labels in enumerate(labelings):
        present, codes = np.unique(labels, return_inverse=True)
        if len(present) == 1:
            found[row] = present[0]
            continue
        scores = probe.fit(X, codes.astype(np.int64), len(present)).scores(tests)
        found[row] = present[scores.argmax(axis=1)]
    return found


def one_hot(labelings: Codes, n_classes: int) -> Floats:
    """(..., row) codes as (..., row, class) of 0 and 1."""
    found: Floats = (labelings[..., None] == np.arange(n_classes)).astype(np.float64)
    return found


def chosen_probe(name: str, settings: Mapping[str, Any] | None = None) -> Probe:
    """A probe by name, with those parameters set.

    Raises
    ------
    BabelScopeError
        For an unknown probe, a parameter that it has not, or a value that the parameter cannot take.
    """
    probe: Probe = plugins.load("probe", name)
    known: dict[str, Any] = {f.name: f.type for f in fields(probe)}  # type: ignore[arg-type]
    own: dict[str, Any] = {}
    for setting, value in (settings or {}).items():
        if setting not in known:
            raise unknown_name(f"parameter of probe {name}", setting, known)
        try:
            own[setting] = TypeAdapter(known[setting]).validate_python(value)
        except ValidationError as error:
            raise BabelScopeError(
                f"parameter {setting}={value!r}: {error.errors()[0]['msg']}",
                f"the default is {setting}={getattr(probe, setting)}",
            ) from None
    return replace(probe, **own)  # type: ignore[type-var]


def check_positive(name: str, values: Sequence[float]) -> None:
    """Refuse a parameter that must be positive; BabelScopeError."""
    for value in values:
        if not value > 0 or not np.isfinite(value):
            raise BabelScopeError(f"probe parameter {name} is {value}", f"give a positive number, as {name}=1")
