"""Description length of labels given activations, by the online code, beside that of shuffled labels."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from babelscope.errors import BabelScopeError

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Label = TypeVar("Label", bound=np.generic)

# Ends of blocks in parts of ten thousand: 0.1 % to 100 % of the items (Voita and Titov 2020, arXiv:2003.12298).
ENDS = (10, 20, 40, 80, 160, 320, 625, 1250, 2500, 5000, 10_000)

# From here on the last four blocks each begin after twice as many items as the one before: 1, 2, 4 and 8.
MIN_ITEMS = 16

# Share of the uniform code that is mixed into every prediction. An estimator that is certain, and wrong, costs at most
# log2(classes / MIXING) bits instead of infinitely many; being certain and right costs 0.0014 at most.
MIXING = 1e-3


class Fitted(Protocol):
    """A fitted classifier, as those of scikit-learn are."""

    @property
    def classes_(self) -> Any:
        """The labels that it has seen."""

    def predict_proba(self, X: Any) -> Any:
        """Probabilities (row, class) in the order of `classes_`."""


Fit = Callable[[Any, Any], Fitted]


@dataclass(frozen=True, slots=True, eq=False)
class DescriptionLength:
    """How many bits the labels take when the activations are known.

    Parameters
    ----------
    per_ordering : ndarray of float64
        (ordering,) bits.
    null : ndarray of float64
        (shuffle,) bits of shuffled labels, each a mean over the same orderings; empty when none were asked for.
    uniform_bits : float
        rows x log2(classes): what the labels take when nothing is known.
    n_rows, n_items, n_classes : int
    """

    per_ordering: Floats
    null: Floats
    uniform_bits: float
    n_rows: int
    n_items: int
    n_classes: int

    @property
    def bits(self) -> float:
        """Mean over orderings."""
        return float(self.per_ordering.mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the bits over orderings: of the order alone, not of the items that were drawn."""
        return float(self.per_ordering.std(ddof=1)) if len(self.per_ordering) > 1 else float("nan")

    @property
    def compression(self) -> float:
        """Uniform bits per bit: 1 says nothing is learned; less, that certain and wrong predictions cost more.

        It is also above 1 for labels of unequal frequency that activations say nothing about; see `null_compression`.
        """
        return self.uniform_bits / self.bits

    @property
    def share(self) -> float:
        """Bits as a share of the uniform bits: 1 / `compression`."""
        return self.bits / self.uniform_bits

    @property
    def null_compression(self) -> float:
        """Compression at the mean bits of shuffled labels; NaN without shuffles."""
        return self.uniform_bits / float(self.null.mean()) if len(self.null) else float("nan")

    @property
    def saved(self) -> float:
        """Share of the bits of shuffled labels that activations save: 0 without information; NaN without shuffles."""
        return 1.0 - self.bits / float(self.null.mean()) if len(self.null) else float("nan")

    @property
    def p(self) -> float:
        """Share of shuffles that take no more bits, the observed labels counted as one; NaN without shuffles."""
        as_short = np.count_nonzero(self.null <= self.bits)
        return float((1 + as_short) / (1 + len(self.null))) if len(self.null) else float("nan")


def description_length(
    X: NDArray[np.generic], labels: NDArray[np.generic], items: NDArray[np.generic], fit: Fit, *,
    classes: NDArray[np.generic] | None = None, orderings: int = 5, shuffles: int = 0, rng: np.random.Generator,
) -> DescriptionLength:  # fmt: skip
    r"""Bits that labels take by the online code: those of each block under a probe fitted on the blocks before it.

    .. math:: L = t_1 \log_2 K - \sum_i \log_2 p_{\theta_i}(y_{t_i + 1 : t_{i+1}} \mid x_{t_i + 1 : t_{i+1}})

    (the online code of Voita and Titov 2020, arXiv:2003.12298), averaged over random orderings. It is items that are
    put in order, and all rows of an item stay together, so that no label is read off a translation of the same item;
    blocks end at `ENDS`, rounded up to whole items. A class that occurs in no block before takes the 1 / K of the
    uniform code, and those that do share the rest as the probe predicts; with one class so far, this is the uniform
    code, and nothing is fitted. A share of `MIXING` of the uniform code is in every prediction.

    Parameters
    ----------
    X : ndarray
        (row, unit); handed to `fit` as it is.
    labels : ndarray
        (row,)
    items : ndarray
        (row,) the item of each row.
    fit : callable
        `fit(X, labels)` -> a fitted classifier with `predict_proba` and `classes_`. It is called with as little as two
        rows of two classes.
    classes : ndarray, optional
        All K classes, known in advance; by default those that occur.
    orderings : int
        Random orders of the items; those of the shuffled labels are the same.
    shuffles : int
        Times that labels are shuffled (`shuffled_labels`), each as many fits as the observed labels.
    rng : numpy.random.Generator

    Raises
    ------
    BabelScopeError
        With fewer than `MIN_ITEMS` items or 2 classes, arrays that do not fit each other, labels that are no class, or
        a probe whose predictions are no probabilities.
    """
    values, names = np.asarray(X), np.asarray(labels)
    known = np.unique(names if classes is None else classes)
    found, of_row = np.unique(items, return_inverse=True)
    _check(values, names, of_row, known, len(found), orderings)
    codes = np.searchsorted(known, names)
    orders = [rng.permutation(len(found)) for _ in range(orderings)]

    def bits(of: Codes) -> Floats:
        return np.array([_bits(values, of, of_row, order, fit, known) for order in orders])

    observed = bits(codes)
    null = np.array([bits(shuffled_labels(codes, of_row, rng)).mean() for _ in range(shuffles)], dtype=np.float64)
    uniform = len(codes) * float(np.log2(len(known)))
    return DescriptionLength(observed, null, uniform, len(codes), len(found), len(known))


def block_ends(n_items: int) -> list[int]:
    """Numbers of items at which blocks end, each block with at least one item; the last is `n_items`."""
    return sorted({-(-n_items * end // 10_000) for end in ENDS})


def shuffled_labels(labels: NDArray[Label], items: NDArray[np.generic], rng: np.random.Generator) -> NDArray[Label]:
    """Labels (row,) shuffled by item, which leaves what rows of one item have in common as it is.

    Where every item has one label, as an answer, items swap theirs. Where labels vary within items, as languages do,
    the rows of each item swap theirs: to swap whole items would change nothing in a complete grid.
    """
    found, first, of_row = np.unique(items, return_index=True, return_inverse=True)
    if (labels == labels[first][of_row]).all():
        return labels[first][rng.permutation(len(found))][of_row]
    shuffled = labels.copy()
    by_item = np.argsort(of_row, kind="stable")
    # Rows by item, and within each in random order, take the labels of rows by item.
    shuffled[np.lexsort((rng.random(len(labels)), of_row))] = labels[by_item]
    return shuffled


def _bits(X: NDArray[np.generic], codes: Codes, of_row: Codes, order: Codes, fit: Fit, known: NDArray[Any]) -> float:
    """Length of the labels when items are sent in one order."""
    place = np.argsort(order)[of_row]  # of each row's item
    ends = block_ends(len(order))
    n_classes = len(known)
    total = np.count_nonzero(place < ends[0]) * np.log2(n_classes)
    for start, end in pairwise(ends):
        before, block = np.flatnonzero(place < start), np.flatnonzero((place >= start) & (place < end))
        seen = np.unique(codes[before])
        p = np.full((len(block), n_classes), 1 / n_classes)
        if len(seen) > 1:
            probe = fit(X[before], known[codes[before]])
            p[:, seen] *= len(seen) * _probabilities(probe, X[block], known[seen])
        p = (1 - MIXING) * p + MIXING / n_classes
        total -= np.log2(p[np.arange(len(block)), codes[block]]).sum()
    return float(total)


def _probabilities(probe: Fitted, X: NDArray[np.generic], seen: NDArray[Any]) -> Floats:
    """(row, class) of the classes seen, in their order."""
    p = np.asarray(probe.predict_proba(X), dtype=np.float64)
    columns = np.asarray(probe.classes_)
    if not np.array_equal(np.sort(columns), seen) or p.shape != (len(X), len(seen)):
        raise BabelScopeError(
            f"a probe fitted on the classes {seen.tolist()} predicts {p.shape} for {columns.tolist()}",
            "predict_proba has to give one column for each class it was fitted on, in the order of classes_",
        )
    if not ((p >= 0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-6)):
        raise BabelScopeError(
            "a probe's predictions are no probabilities", "each row of predict_proba has to add up to 1, none negative"
        )
    return p[:, np.argsort(columns)]


def _check(
    X: NDArray[np.generic], labels: NDArray[Any], of_row: Codes, known: NDArray[Any], n_items: int, orderings: int
) -> None:
    """Refuse what has no description length."""
    if labels.ndim != 1 or of_row.shape != labels.shape or X.shape[:1] != labels.shape:
        raise BabelScopeError(
            f"activations of shape {X.shape} with labels of shape {labels.shape} and items of shape {of_row.shape}",
            "give activations (row, unit), and one label and one item for each row",
        )
    if n_items < MIN_ITEMS:
        raise BabelScopeError(
            f"{n_items} items are too few for an online code", f"capture at least {MIN_ITEMS}; rows do not count"
        )
    if len(known) < 2:
        raise BabelScopeError("labels of one class take no bits", "give at least two classes")
    if strangers := sorted(set(labels.tolist()) - set(known.tolist())):
        raise BabelScopeError(f"the label {strangers[0]!r} is none of the classes", f"classes: {known.tolist()}")
    if orderings < 1:
        raise BabelScopeError(f"{orderings} orderings of items", "give at least 1; 5 or more give a spread")
