"""Two-way analysis of variance of a complete grid of items and languages, with what every item adds to it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.statistics import Floats

PARTS = ("meaning", "language", "interaction")


@dataclass(frozen=True, slots=True, eq=False)
class Squares:
    """Sums of squares over units of `x[l, q] = mean + item + language + rest`.

    Parameters
    ----------
    item, language, rest : float or ndarray
        Of items, of languages, and of what neither explains; scalars, or one value for each item that is left out.
    n_items, n_languages : int
        In the grid that they belong to.
    """

    item: Floats
    language: Floats
    rest: Floats
    n_items: int
    n_languages: int

    def shares(self) -> Floats:
        """(part, ...): variance components of `PARTS` as shares of their sum, corrected for what noise adds.

        A component is the mean square less that of the rest, over the number of cells of each level; it may be
        negative, and then it says that there is none. NaN where nothing varies.
        """
        mean_rest = self.rest / ((self.n_items - 1) * (self.n_languages - 1))
        item = (self.item / (self.n_items - 1) - mean_rest) / self.n_languages
        language = (self.language / (self.n_languages - 1) - mean_rest) / self.n_items
        parts = np.stack([item, language, mean_rest])
        total = parts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(total > 0, parts / total, np.nan))


def squares(x: Floats) -> tuple[Squares, Squares]:
    """Sums of squares of a block (language, item, unit), and those without each item, (item,), in closed form."""
    n_languages, n_items, _ = x.shape
    of_items = x.mean(axis=0)
    item_offset = of_items - of_items.mean(axis=0)
    within = x - of_items  # each item's deviations from its mean over languages
    language_offset = within.mean(axis=1)
    size = np.einsum("qd,qd->q", item_offset, item_offset)
    own = np.einsum("lqd,lqd->q", within, within)
    language_size = float((language_offset**2).sum())
    whole = Squares(
        n_languages * size.sum(), np.asarray(n_items * language_size), own.sum() - n_items * language_size,
        n_items, n_languages,
    )  # fmt: skip
    # Without item i, a language is off by (Q D - w_i) / (Q - 1), where D is its offset and w_i that of the item.
    crossed = np.einsum("ld,lqd->q", language_offset, within)
    language = (n_items**2 * language_size - 2 * n_items * crossed + own) / (n_items - 1)
    item = n_languages * (size.sum() - size * n_items / (n_items - 1))
    without = Squares(item, language, own.sum() - own - language, n_items - 1, n_languages)
    return whole, without


# Shuffles of languages whose sums are formed in one product.
CHUNK = 16


def of_shuffled_items(x: Floats, orders: NDArray[np.integer]) -> Squares:
    """Sums of squares, (permutation,), with the items of every language in another order.

    Languages keep their means, and the squares of items are sums of dot products of two languages, so that a shuffle
    is a look-up in them.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    orders : ndarray of int
        (permutation, language, item): which item of a language takes each place.
    """
    n_languages, n_items, _ = x.shape
    means = x.mean(axis=1, keepdims=True)
    y = x - means
    own = float(np.einsum("lqd,lqd->", y, y))
    crossed = np.zeros(len(orders))
    for a in range(n_languages):
        for b in range(a + 1, n_languages):
            crossed += (y[a] @ y[b].T)[orders[:, a], orders[:, b]].sum(axis=1)
    item = (own + 2 * crossed) / n_languages
    language = n_items * float(((means - means.mean(axis=0)) ** 2).sum())
    return Squares(item, np.asarray(language), own - item, n_items, n_languages)


def of_shuffled_languages(x: Floats, orders: NDArray[np.integer]) -> Squares:
    """Sums of squares, (permutation,), with the languages of every item in another order.

    Items keep their means; only the sums of languages are formed anew.

    Parameters
    ----------
    x : ndarray
        (language, item, unit).
    orders : ndarray of int
        (permutation, language, item): which language of an item takes each place.
    """
    n_languages, n_items, n_units = x.shape
    means = x.mean(axis=0)
    within = x - means
    own = float(np.einsum("lqd,lqd->", within, within))
    rows = within.reshape(n_languages * n_items, n_units)
    language = np.empty(len(orders))
    for start in range(0, len(orders), CHUNK):
        cells = orders[start : start + CHUNK] * n_items + np.arange(n_items)
        chosen = np.zeros((*cells.shape[:2], len(rows)))
        np.put_along_axis(chosen, cells, 1.0, axis=-1)
        sums = chosen.reshape(-1, len(rows)) @ rows
        language[start : start + CHUNK] = (sums**2).sum(axis=1).reshape(len(cells), -1).sum(axis=1) / n_items
    item = n_languages * float(((means - means.mean(axis=0)) ** 2).sum())
    return Squares(np.asarray(item), language, own - language, n_items, n_languages)


@dataclass(frozen=True, slots=True, eq=False)
class Explained:
    """Share of each unit's variance that items and languages explain, and whether languages differ at all.

    Parameters
    ----------
    meaning, language : ndarray
        (unit,) eta squared: sum of squares over the total; NaN for constant units.
    f : ndarray
        (unit,) mean square of languages over that of the rest.
    """

    meaning: Floats
    language: Floats
    f: Floats


def explained(x: NDArray[np.generic]) -> Explained:
    """Of a block (language, item, unit)."""
    values = np.asarray(x, dtype=np.float64)
    n_languages, n_items, _ = values.shape
    mean = values.mean(axis=(0, 1))
    item = n_languages * ((values.mean(axis=0) - mean) ** 2).sum(axis=0)
    language = n_items * ((values.mean(axis=1) - mean) ** 2).sum(axis=0)
    total = ((values - mean) ** 2).sum(axis=(0, 1))
    rest = np.maximum(total - item - language, 0.0)
    moving = total > 1e-24 * np.maximum((values**2).sum(axis=(0, 1)), 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        f = (language / (n_languages - 1)) / (rest / ((n_languages - 1) * (n_items - 1)))
        return Explained(*(np.where(moving, v, np.nan) for v in (item / total, language / total, f)))
