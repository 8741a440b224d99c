"""Sets of active neurons at many thresholds of one rule, counted exactly, and similarities that need counts alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.active import POOLED, Rule, has_finite_rows, sizes_and_bounds, strictness
from babelscope.analyses.joint import exceedances
from babelscope.analyses.statistics import Floats


@dataclass(frozen=True, slots=True)
class Counts:
    """How many active neurons two sides have, and share.

    Parameters
    ----------
    shared : ndarray
        (..., item of a, item of b).
    a, b : ndarray
        Sizes of the sets, (..., item of a) and (..., item of b); NaN for rows that are not finite.
    units : int
        Neurons in all.
    """

    shared: Floats
    a: Floats
    b: Floats
    units: int

    @property
    def total(self) -> Floats:
        """(..., item of a, item of b): |A| + |B|."""
        return self.a[..., :, None] + self.b[..., None, :]

    @property
    def smaller(self) -> Floats:
        """(..., item of a, item of b): the smaller of |A| and |B|, which the intersection cannot exceed."""
        return np.minimum(self.a[..., :, None], self.b[..., None, :])

    @property
    def expected_share(self) -> Floats:
        r"""Share of `smaller` that mismatched items have in common, (..., 1, 1); NaN where nothing is active.

        The mean intersection of mismatched items needs no shuffle. With Q items, firing rates r over the items, and
        the mean m of the matched intersections it is
        :math:`(Q^2 \sum_k r_{ka} r_{kb} - Q m) / (Q (Q - 1))`, the mean of the cells off the diagonal.
        """
        off = ~np.eye(self.shared.shape[-2], self.shared.shape[-1], dtype=bool)
        smaller = self.smaller
        counted = off & ~np.isnan(smaller)
        shared, largest = (np.where(counted, v, 0.0).sum(axis=(-2, -1)) for v in (self.shared, smaller))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(shared / largest)[..., None, None]


@dataclass(frozen=True, slots=True, eq=False)
class ActiveSets:
    """Active neurons of every language under one rule, for all thresholds at once.

    Parameters
    ----------
    codes : ndarray of unsigned integers
        (language, item, unit): how many thresholds leave the neuron active; those of the loosest come first.
    sizes : ndarray
        (language, item, threshold), thresholds in that order; NaN for rows that are not finite.
    """

    codes: NDArray[np.unsignedinteger]
    sizes: Floats

    @classmethod
    def of(cls, x: NDArray[np.generic], thresholds: Sequence[float], rule: Rule) -> "ActiveSets":
        """Sets of (language, item, unit) activations; thresholds in the order of `strictness`."""
        codes = np.zeros(x.shape, dtype=np.uint8 if len(thresholds) < 2**8 else np.uint16)
        sizes = np.empty((*x.shape[:2], len(thresholds)))
        for language, (size, bounds) in enumerate(sizes_and_bounds(x, thresholds, rule)):
            for bound in bounds:
                codes[language] += size > bound
            sizes[language] = exceedances(codes[language], len(thresholds))
        sizes[~has_finite_rows(x)] = np.nan
        return cls(codes, sizes)

    def counts(self, a: int, others: slice, threshold: int) -> Counts:
        """Counts of one language beside others, at one place of the grid; leading axis: the others."""
        of_a, of_b = _states(self.codes[a], threshold), _states(self.codes[others], threshold)
        # Matrix products in float32 count exactly up to 2^24 neurons.
        shared = (of_a @ np.swapaxes(of_b, -1, -2)).astype(np.float64)
        return Counts(shared, self.sizes[a, :, threshold], self.sizes[others, :, threshold], units=self.codes.shape[-1])


def _states(codes: NDArray[np.unsignedinteger], threshold: int) -> NDArray[np.float32]:
    """Whether each neuron is active, as 0 and 1."""
    states = np.empty(codes.shape, dtype=np.float32)
    # Written as floats at once: comparing first and converting then takes twice as long.
    np.greater(codes, codes.dtype.type(threshold), out=states)
    return states


@dataclass(frozen=True, slots=True)
class CountedSimilarity:
    """Similarity of two sets of active neurons that follows from their sizes and that of their intersection.

    Parameters
    ----------
    threshold : float
    rule : str
        As in `active_neurons`. Bounds of pooled rules rest on all languages of a block in the pair engine, on both
        arguments where the similarity is called by itself.
    """

    threshold: float = 0.4
    rule: Rule = "absolute"
    highest: ClassVar[float] = 1.0
    centered_in_sample: ClassVar[bool] = False

    def of(self, counts: Counts) -> Floats:
        """(..., item of a, item of b) from the counts; NaN where undefined."""
        raise NotImplementedError

    def __call__(self, a: NDArray[np.generic], b: NDArray[np.generic], /) -> Floats:
        """(..., item, unit) twice -> (..., item, item)."""
        active_a, active_b = _active_in_both(a, b, self.threshold, self.rule)
        shared = (active_a @ np.swapaxes(active_b, -1, -2)).astype(np.float64)
        size_a, size_b = (
            np.where(has_finite_rows(x), active.sum(axis=-1), np.nan).astype(np.float64)
            for x, active in ((a, active_a), (b, active_b))
        )
        return self.of(Counts(shared, size_a, size_b, units=a.shape[-1]))


def _active_in_both(
    a: NDArray[np.generic], b: NDArray[np.generic], threshold: float, rule: Rule
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Active neurons of two blocks as 0 and 1, (..., item, unit); bounds of pooled rules rest on both."""
    if rule in POOLED:
        rows = np.concatenate([a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])])
        active = _active(rows[None], threshold, rule)[0]
        cut = a.size // a.shape[-1]
        return active[:cut].reshape(a.shape), active[cut:].reshape(b.shape)
    return _active(a, threshold, rule), _active(b, threshold, rule)


def _active(x: NDArray[np.generic], threshold: float, rule: Rule) -> NDArray[np.float32]:
    sets = ActiveSets.of(x.reshape(-1, *x.shape[-2:]), [threshold], rule)
    return (sets.codes > 0).astype(np.float32).reshape(x.shape)


def in_order(similarities: Sequence[CountedSimilarity]) -> list[float]:
    """The different thresholds of similarities of one rule, the loosest first."""
    values = sorted({s.threshold for s in similarities})
    return [values[k] for k in strictness(values, similarities[0].rule)]
