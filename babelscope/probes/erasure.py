"""Linear erasure of a concept, such as language: LEACE in closed form, and projecting out the means as comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from babelscope.errors import BabelScopeError

Floats = NDArray[np.float64]

# A canonical correlation, or a distance of means over the spread of rows, that only rounding makes differ from 0.
NOTHING = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class Eraser:
    """The affine map `x - left right (x - mean)` that takes a concept away.

    Parameters
    ----------
    mean : ndarray of float64
        (unit,) mean of the rows it was fitted on; the map keeps it.
    left : ndarray of float64
        (unit, rank): what is taken away lies in the span of these columns.
    right : ndarray of float64
        (rank, unit): reads how much of each; `right @ left` is the identity, so that erasing twice is erasing once.
    shrinkage : float
        Weight in [0, 1] of the multiple of the identity in the covariance; 1 makes the projection orthogonal.
    """

    mean: Floats
    left: Floats
    right: Floats
    shrinkage: float

    @property
    def rank(self) -> int:
        """Dimensions taken away: at most one less than the concept has values."""
        return int(self.left.shape[1])

    def __call__(self, X: NDArray[np.generic]) -> Floats:
        """Rows (..., unit) of any real dtype without the concept, as a new float64 array."""
        values = np.asarray(X, dtype=np.float64)
        if values.shape[-1:] != self.mean.shape:
            raise BabelScopeError(
                f"the eraser was fitted on {len(self.mean)} units, and the rows have shape {values.shape}",
                "give activations of the site it was fitted on, units last",
            )
        return values - ((values - self.mean) @ self.right.T) @ self.left.T

    def arrays(self) -> dict[str, Floats]:
        """What `from_arrays` needs, as `numpy.savez(path, **eraser.arrays())` writes it."""
        return {"mean": self.mean, "left": self.left, "right": self.right, "shrinkage": np.asarray(self.shrinkage)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """From `arrays()`, or from a file opened with `numpy.load(path, allow_pickle=False)`.

        Raises
        ------
        BabelScopeError
            If an array is missing or their shapes do not fit.
        """
        names = ("mean", "left", "right", "shrinkage")
        found = {name: np.asarray(arrays[name], dtype=np.float64) for name in names if name in arrays}
        shapes = [found[name].shape for name in names if name in found]
        if len(found) < len(names) or shapes != [shapes[0], (*shapes[0], *shapes[2][:1]), shapes[1][::-1], ()]:
            raise BabelScopeError(
                f"not an eraser: arrays {dict(zip(found, shapes, strict=True))}",
                "give mean (unit,), left (unit, rank), right (rank, unit) and shrinkage (), as of Eraser.arrays()",
            )
        return cls(found["mean"], found["left"], found["right"], float(found["shrinkage"]))


def fit_eraser(X: NDArray[np.generic], labels: NDArray[np.generic], *, shrinkage: float | None = None) -> Eraser:
    r"""Least-squares concept erasure (LEACE): the smallest affine change after which no linear reader beats a constant.

    .. math:: r(x) = x - W^+ P_{W \Sigma_{xz}} W (x - \bar x), \qquad W = (\Sigma_{xx}^{1/2})^+

    with z the one-hot labels (Belrose et al. 2023, arXiv:2306.03819, section 4). On the rows it was fitted on, the
    covariance with z is 0 afterwards whatever the shrinkage; without shrinkage the mean squared change is also the
    smallest possible there, in the norm of every inner product. On other rows neither is promised: the means of a
    concept's values are known from few items only, and what is off in each of many units adds up. With fewer items
    than units a linear reader that is fitted on new items finds the concept again. Readers that are not linear may
    find it in any case.

    Everything is computed in the space that the centered rows span, so that nothing of size (unit, unit) is formed
    when rows are fewer than units: memory is a few times that of X in float64.

    Parameters
    ----------
    X : ndarray
        (row, unit), any real dtype.
    labels : ndarray
        (row,) values of the concept, at least two.
    shrinkage : float, optional
        Weight a of the identity in the covariance `(1 - a) S + a trace(S) / units I`. By default that of Ledoit and
        Wolf (2004, Journal of Multivariate Analysis 88, 365-411), which goes to 0 as rows outnumber units. 0 is the
        formula of the paper: with about as many rows as units, it changes new rows many times as much. 1 is the
        orthogonal projection of `fit_mean_projection`. The weight takes rows for independent. Those of one item are
        not, and it comes out smaller than if items were counted; on planted parallel data both weights led to nearly
        the same change and to the same held-out readers.

    Raises
    ------
    BabelScopeError
        If arrays do not fit each other, values are not finite, labels are all alike, or the weight is not in [0, 1].
    """
    values, codes = _checked(X, labels)
    if shrinkage is not None and not 0 <= shrinkage <= 1:
        raise BabelScopeError(f"a shrinkage of {shrinkage}", "give a weight from 0 (none) to 1 (only the identity)")
    mean = values.mean(axis=0)
    rows = values - mean
    n_rows, n_units = rows.shape
    scores, spread, axes = linalg.svd(rows, full_matrices=False)
    kept = spread > _rounding(values)
    scores, spread, axes = scores[:, kept], spread[kept], axes[kept]
    weight = _ledoit_wolf_weight((rows**2).sum(axis=1), spread, n_units) if shrinkage is None else float(shrinkage)
    deviation = np.sqrt((1 - weight) * spread**2 / n_rows + weight * (spread**2).sum() / (n_rows * n_units))
    covariance = spread[:, None] * (scores.T @ _indicators(codes)) / np.sqrt(n_rows)
    span, correlation, _ = linalg.svd(covariance / deviation[:, None], full_matrices=False)
    span = span[:, correlation > NOTHING]
    return Eraser(mean, axes.T @ (deviation[:, None] * span), (span.T / deviation) @ axes, weight)


def fit_mean_projection(X: NDArray[np.generic], labels: NDArray[np.generic], rank: int | None = None) -> Eraser:
    """Orthogonal projection away from the span of the differences between the means of a concept's values.

    At full rank this also leaves no covariance with the labels, but changes the rows more than LEACE does. It differs
    from LSAR (Xie et al. 2022, arXiv:2401.05792) by a constant: the mean of all rows is kept, where LSAR takes away its
    part in the span, too. Values of the concept count alike, however many rows they have.

    Parameters
    ----------
    X, labels
        As of `fit_eraser`.
    rank : int, optional
        Directions to take, those along which the means differ most; all of them by default. With fewer, a linear
        reader may still tell the values apart.

    Raises
    ------
    BabelScopeError
        As of `fit_eraser`, and for a rank outside 1 to the number of values less one.
    """
    values, codes = _checked(X, labels)
    n_values = int(codes.max()) + 1
    if rank is not None and not 1 <= rank < n_values:
        raise BabelScopeError(
            f"a rank of {rank} for means of {n_values} values", f"give 1 to {n_values - 1}, or none for all"
        )
    mean = values.mean(axis=0)
    means = np.stack([values[codes == c].mean(axis=0) for c in range(n_values)])
    _, size, axes = linalg.svd(means - means.mean(axis=0), full_matrices=False)
    scale = np.sqrt(((values - mean) ** 2).sum(axis=1).mean())
    axes = axes[size > max(NOTHING * scale, _rounding(values))][:rank]
    return Eraser(mean, axes.T.copy(), axes, 1.0)


def _rounding(values: Floats) -> float:
    """The size that singular values of centered rows may have by rounding alone."""
    return float(max(values.shape) * np.finfo(np.float64).eps * linalg.norm(values))


def _ledoit_wolf_weight(sizes: Floats, spread: Floats, n_units: int) -> float:
    """Weight of the identity, from squared norms of the centered rows and their singular values.

    It is 1 where the covariance is a multiple of the identity, or 0, already.
    """
    square = (spread**4).sum() / len(sizes) ** 2  # squared norm of the covariance
    distance = square - sizes.mean() ** 2 / n_units
    error = ((sizes**2).mean() - square) / len(sizes)
    return float(np.clip(error / distance, 0.0, 1.0)) if distance > 0 else 1.0


def _indicators(codes: NDArray[np.int64]) -> Floats:
    """Centered one-hot labels (row, value), over the root of how many rows have each.

    The scale leaves the span of the covariance as it is, and makes its singular values canonical correlations, for
    which 0 means the same whatever the scale of the units.
    """
    one_hot = np.eye(int(codes.max()) + 1)[codes]
    counts = one_hot.sum(axis=0)
    scaled: Floats = (one_hot - counts / len(codes)) / np.sqrt(counts)
    return scaled


def _checked(X: NDArray[np.generic], labels: NDArray[np.generic]) -> tuple[Floats, NDArray[np.int64]]:
    """Rows in float64, and the concept's values numbered from 0."""
    values = np.asarray(X, dtype=np.float64)
    if values.ndim != 2 or np.shape(labels) != values.shape[:1]:
        raise BabelScopeError(
            f"activations of shape {values.shape} with labels of shape {np.shape(labels)}",
            "give activations (row, unit) and one label for each row",
        )
    if not np.isfinite(values).all():
        raise BabelScopeError("some activations are not finite", "leave out the rows with NaN or infinite values")
    found, codes = np.unique(labels, return_inverse=True)
    if len(found) < 2:
        raise BabelScopeError(
            f"all {len(values)} rows have the same label: there is no concept to erase", "give at least two values"
        )
    return values, np.asarray(codes, dtype=np.int64)
