"""Correlations over pairs of languages, tested by relabeling languages: pairs that share one are not independent."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.inference import jackknife_interval
from babelscope.analyses.statistics import Floats, max_t, permutation_p, share

# Of four languages there are 24 relabelings and six pairs.
FEWEST_LANGUAGES = 5
# So many languages are relabeled in every way: 5,040.
EXHAUSTIVE = 7


@dataclass(frozen=True, slots=True)
class DyadCorrelation:
    """Rank correlations of values of language pairs with a predictor; fields are (row,), NaN where undefined.

    `p` is two-sided of each row, `p_max` that of each among all rows, `p_naive` what independent pairs would give.
    """

    estimate: Floats
    low: Floats
    high: Floats
    p: Floats
    p_max: Floats
    p_naive: Floats
    n_languages: int
    exact: bool


def relabelings(n: int, n_perm: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], bool]:
    """Orders of n languages, (relabeling, language), and whether they are all: up to seven, the first as it is."""
    if n <= EXHAUSTIVE:
        return np.array(list(permutations(range(n))), dtype=np.int64).reshape(factorial(n), n), True
    return rng.permuted(np.tile(np.arange(n), (n_perm, 1)), axis=1), False


def dyad_correlation(
    values: Floats, predictor: Floats, pairs: Sequence[tuple[int, int]], *, n_perm: int, rng: np.random.Generator,
    given: Floats | None = None, level: float = 0.95,
) -> DyadCorrelation:  # fmt: skip
    """Spearman's correlation over pairs of languages of values and a predictor, optionally given another predictor.

    The test relabels the languages of the predictor as a whole, so that what pairs share stays shared (Mantel 1967;
    quadratic assignment, Krackhardt 1988): all L! ways up to seven languages, else random ones by the add-one rule.
    With `given`, what is relabeled is the residual of the predictor on it (double semi-partialing, Dekker, Krackhardt
    and Snijders 2007, Psychometrika 72, 563-581), of ranks; the estimate is the partial correlation. All rows share the
    relabelings, so p_max holds among them. Intervals leave out one language with all its pairs at a time
    (`inference.jackknife_interval`): a bootstrap of languages draws a language twice, whose pair with itself is not
    in the data.

    Parameters
    ----------
    values : ndarray
        (row, pair), as layers.
    predictor, given : ndarray
        (pair,), defined everywhere.
    pairs : sequence of (int, int)
        All unordered pairs of languages 0, ..., L - 1.
    """
    n = int(np.max(pairs)) + 1 if len(pairs) else 0
    rows = len(values)
    nothing = np.full(rows, np.nan)
    if n < FEWEST_LANGUAGES:
        return DyadCorrelation(nothing, nothing, nothing, nothing, nothing, nothing, n, exact=True)
    a, b = np.array(pairs).T
    estimate = _rank_correlation(values, predictor, given)
    without = np.stack([
        _rank_correlation(values[:, kept], predictor[kept], None if given is None else given[kept])
        for kept in ((a != k) & (b != k) for k in range(n))
    ])  # fmt: skip
    low, high = np.array([jackknife_interval(e, w, level) for e, w in zip(estimate, without.T, strict=True)]).T
    orders, exact = relabelings(n, n_perm, rng)
    y, x, z = _ranks(values), _ranks(predictor[None])[0], None if given is None else _ranks(given[None])
    y, x = _residual(y, z), _residual(x[None], z)[0]
    square = np.zeros((n, n))
    square[a, b] = square[b, a] = x
    shuffled = _residual(square[orders[:, a], orders[:, b]], z)
    drawn = np.abs(_cosines(y, shuffled))
    size = np.abs(estimate)
    if exact:  # the first order is the observed one and counts itself
        drawn = drawn[:, 1:]
    freedom = len(pairs) - 2 - (given is not None)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = size * np.sqrt(freedom / (1 - size**2))
    return DyadCorrelation(
        estimate, low, high, permutation_p(size, drawn), max_t(size, drawn), 2 * stats.t.sf(t, freedom), n, exact=exact
    )


def complete(matrices: Floats) -> NDArray[np.int64]:
    """Languages that are left when those with the most undefined pairs go, one by one, until none is undefined.

    Parameters
    ----------
    matrices : ndarray
        (matrix, language, language), symmetric; the diagonal does not count.
    """
    undefined = np.asarray(np.isnan(matrices).any(axis=0))
    np.fill_diagonal(undefined, val=False)
    kept = np.arange(len(undefined))
    while undefined[np.ix_(kept, kept)].any():
        kept = np.delete(kept, undefined[np.ix_(kept, kept)].sum(axis=1).argmax())
    return kept


def _rank_correlation(values: Floats, predictor: Floats, given: Floats | None) -> Floats:
    z = None if given is None else _ranks(given[None])
    return _cosines(_residual(_ranks(values), z), _residual(_ranks(predictor[None]), z))[:, 0]


def _ranks(values: Floats) -> Floats:
    ranks: Floats = stats.rankdata(values, axis=-1)
    undefined = np.isnan(values).any(axis=-1, keepdims=True)
    return np.where(undefined, np.nan, ranks - ranks.mean(axis=-1, keepdims=True))


def _residual(values: Floats, given: Floats | None) -> Floats:
    """Values (row, pair) without their mean and, with `given` (1, pair), without what is linear in it."""
    values = values - values.mean(axis=-1, keepdims=True)
    if given is None:
        return values
    slope = share(values @ given[0], np.array((given**2).sum()))
    return np.asarray(values - slope[:, None] * given)


def _cosines(a: Floats, b: Floats) -> Floats:
    """(row of a, row of b); NaN for a row that does not vary."""
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    # Residuals of what is a line leave rounding, which has no direction.
    noise = 1e-9 * a.shape[1] ** 1.5
    flat = (np.linalg.norm(a, axis=1) <= noise)[:, None] | (np.linalg.norm(b, axis=1) <= noise)
    return np.clip(share(a @ b.T, np.where(flat, 0.0, norms)), -1, 1)
