"""Ridge regression on the classes: closed form, with its penalty chosen by leaving out one row at a time."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from babelscope.probes.probe import Codes, Floats, Layers, ProbeInfo, check_positive, one_hot

# Penalties tried, relative to the mean squared singular value of the rows: the same in any basis of them.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


@dataclass(frozen=True, slots=True)
class Ridge:
    """Least squares on one indicator a class, penalized, then the nearest of the classes' mean predictions.

    The nearest mean makes it a discriminant analysis in which classes count alike, whatever their sizes (Hastie,
    Buja and Tibshirani 1995, *Penalized discriminant analysis*, Annals of Statistics 23, 73-102). The penalty is the
    one with the smallest squared error of rows left out one at a time, in closed form, over training rows alone.

    Parameters
    ----------
    penalties : tuple of float
        Tried ones, relative to the mean squared singular value of the centered rows.
    """

    penalties: tuple[float, ...] = PENALTIES

    info: ClassVar[ProbeInfo] = ProbeInfo(
        title="Ridge regression on class indicators, penalty by leave-one-out",
        rotates=False,
        source="Hastie, Buja and Tibshirani (1995), section 3; leave-one-out: Golub, Heath and Wahba (1979)",
    )

    def __post_init__(self) -> None:
        check_positive("penalties", self.penalties or (0.0,))

    def fit(self, X: Floats, labels: Codes, n_classes: int) -> Layers:
        """One linear layer, as `Probe.fit`."""
        center, basis, weights, biases = self._solved(X, labels[None], n_classes)
        weight = basis @ weights
        return Layers((weight,), (biases[0] - center @ weight,))

    def predictions(self, X: Floats, labelings: Codes, n_classes: int, tests: Floats) -> Codes:
        """As `Probe.predictions`, by one decomposition of the rows for all labelings."""
        center, basis, weights, biases = self._solved(X, labelings, n_classes)
        centered = tests - center
        few = weights.shape[1] < len(tests)  # whichever product is the smaller one
        scores = centered @ (basis @ weights) if few else (centered @ basis) @ weights
        scores = scores.reshape(len(tests), *biases.shape) + biases
        found: Codes = scores.argmax(axis=-1).T
        return found

    def _solved(self, X: Floats, labelings: Codes, n_classes: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Center (dim,), basis (dim, k), weights in it (k, labeling * class) and biases (labeling, class).

        They are those of the rule of the nearest mean prediction.
        """
        center = X.mean(axis=0)
        U, s, Vt = _decomposed(X - center)
        targets = one_hot(labelings, n_classes).transpose(1, 0, 2)  # (row, labeling, class)
        deviations = (targets - targets.mean(axis=0)).reshape(len(X), -1)
        coordinates = U.T @ deviations
        scale = (s**2).mean() if len(s) else 1.0
        filters = np.stack([s**2 / (s**2 + penalty * scale) for penalty in self.penalties])
        best = _least_error(U, filters, coordinates, deviations, n_classes)
        fitted = filters[best].T.repeat(n_classes, axis=1) * coordinates
        predicted = (U @ fitted).reshape(targets.shape)
        sizes = targets.sum(axis=0)
        means = np.einsum("rbm,rbc->bmc", targets, predicted, optimize=True) / np.maximum(sizes, 1)[:, :, None]
        # |prediction - mean|^2 is smallest where 2 prediction . mean - |mean|^2 is largest: linear in the row.
        slopes = (fitted / s[:, None]).reshape(len(s), *sizes.shape)
        weights = np.einsum("kbc,bmc->kbm", slopes, 2 * means, optimize=True).reshape(len(s), sizes.size)
        return center, Vt.T, weights, np.where(sizes == 0, -np.inf, -(means**2).sum(axis=2))


def _least_error(U: Floats, filters: Floats, coordinates: Floats, deviations: Floats, n_classes: int) -> Codes:
    """Index of the penalty with the least squared error of rows left out one at a time, (labeling,)."""
    errors = []
    for factors in filters:
        left = np.maximum(1 - 1 / len(U) - (U**2) @ factors, 1e-12)
        residuals = (deviations - (U * factors) @ coordinates) / left[:, None]
        errors.append(np.einsum("rc,rc->c", residuals, residuals).reshape(-1, n_classes).sum(axis=1))
    best: Codes = np.argmin(errors, axis=0)
    return best


def _decomposed(X: Floats) -> tuple[Floats, Floats, Floats]:
    """Singular vectors and values by the smaller Gram matrix, without those that are nothing but rounding."""
    tall = len(X) > X.shape[1]
    squares, vectors = np.linalg.eigh(X.T @ X if tall else X @ X.T)
    kept = squares > max(squares[-1], 0.0) * 1e-12
    s, vectors = np.sqrt(squares[kept]), vectors[:, kept]
    if tall:
        return X @ vectors / s, s, vectors.T
    return vectors, s, vectors.T @ X / s[:, None]


probe = Ridge()
