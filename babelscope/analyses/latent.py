"""Answers of items in several languages, read off next-token distributions of the same items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.pairs import pair_scores, permuted_means
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    Floats,
    interval,
    mean_of_defined,
    permutation_p,
    resampled_means,
)

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The tokens that an item's answer begins with in each language.

    Parameters
    ----------
    tokens : tuple of int
        All of them, each once.
    members : ndarray of bool
        (language, token, item); no token for an item without an answer.
    """

    tokens: tuple[int, ...]
    members: NDArray[np.bool_]

    @classmethod
    def of(cls, sets: Sequence[Sequence[frozenset[int]]]) -> "AnswerTokens":
        """From the set of each language and item."""
        tokens = tuple(sorted(frozenset().union(*(s for row in sets for s in row))))
        place = {token: k for k, token in enumerate(tokens)}
        members = np.zeros((len(sets), len(tokens), len(sets[0])), dtype=bool)
        for a, row in enumerate(sets):
            for i, found in enumerate(row):
                members[a, [place[token] for token in found], i] = True
        return cls(tokens, members)

    def answered(self, language: int) -> NDArray[np.bool_]:
        """(item,): whether the item has an answer in the language."""
        return np.asarray(self.members[language].any(axis=0))

    def apart(self, a: int, b: int) -> NDArray[np.bool_]:
        """(item,): whether it has answers in both languages that no token is common to."""
        common = (self.members[a] & self.members[b]).any(axis=0)
        return np.asarray(self.answered(a) & self.answered(b) & ~common)

    def matrix(self, probabilities: NDArray[np.generic], language: int, counts: NDArray[np.bool_]) -> Floats:
        """Probability, in the distribution of item i, of the answer of item j: (item, item).

        Parameters
        ----------
        probabilities : ndarray
            (item, token), of `tokens`.
        language : int
            Of the answers.
        counts : ndarray of bool
            (item,): those that count; the others are NaN as row and as column, and so are those without a finite row.
        """
        counts = counts & np.isfinite(probabilities).all(axis=1)
        S: Floats = probabilities.astype(np.float64) @ self.members[language].astype(np.float64)
        S[~counts] = np.nan
        S[:, ~counts] = np.nan
        return S


@dataclass(frozen=True, slots=True)
class AnswerScores:
    """How much likelier an item's own answer is than those of other items.

    Parameters
    ----------
    matched, gap : ndarray
        (item,): probability of its own answer; its part in the mean difference to the answers of other items, as in
        `pairs.PairScores`.
    observed : float
        Mean of `matched`.
    permuted : ndarray
        (permutation,): the same with the items shuffled.
    """

    matched: Floats
    gap: Floats
    observed: float
    permuted: Floats

    def columns(self, weights: Floats) -> dict[str, float]:
        """n, estimate (the mean gap), its interval, null and p."""
        low, high = interval(resampled_means(self.gap, weights), LEVEL)
        return {
            "n": int(np.count_nonzero(~np.isnan(self.gap))), "estimate": float(mean_of_defined(self.gap)),
            "low": float(low), "high": float(high), "null": 0.0,
            "p": float(permutation_p(np.array(self.observed), self.permuted)),
        }  # fmt: skip


def answer_scores(S: Floats, order: NDArray[np.int32]) -> list[AnswerScores]:
    """Scores of matrices of `AnswerTokens.matrix`; undefined below four items that count.

    Other items may have the same answer; those cells stay in the null, since an answer that is frequent is likelier
    everywhere. Without them it would look as if the model knew which item it is for.

    Parameters
    ----------
    S : ndarray
        (answer language, item, item).
    order : ndarray of int32
        (permutation, item): row i beside the answer of another item.
    """
    n = S.shape[-1]
    enough = np.count_nonzero(~np.isnan(np.diagonal(S, axis1=1, axis2=2)), axis=1) >= MIN_ITEMS
    S = np.where(enough[:, None, None], S, np.nan)
    scores = pair_scores(S)
    true = np.broadcast_to(np.arange(n, dtype=np.int32), order.shape)
    permuted = permuted_means(S, order, true)
    observed = mean_of_defined(scores.matched)
    return [AnswerScores(scores.matched[k], scores.gap[k], float(observed[k]), permuted[k]) for k in range(len(S))]


def mean_scores(parts: Sequence[AnswerScores]) -> AnswerScores:
    """The mean over layers or languages, item by item, which are never counted as data."""
    return AnswerScores(
        mean_of_defined(np.stack([p.matched for p in parts]), axis=0),
        mean_of_defined(np.stack([p.gap for p in parts]), axis=0),
        float(mean_of_defined(np.array([p.observed for p in parts]))),
        mean_of_defined(np.stack([p.permuted for p in parts]), axis=0),
    )


def mass_rows(masses: Mapping[str, Floats], names: Sequence[str], weights: Floats) -> list[dict[str, str | float]]:
    """Mean probability on each class of tokens in each language, beside that in the other languages.

    Parameters
    ----------
    masses : mapping
        Language -> (item, class).
    names : sequence of str
        Of the classes.
    weights : ndarray
        (resample, item).
    """
    rows: list[dict[str, str | float]] = []
    for language, own in masses.items():
        others = [x for other, x in masses.items() if other != language]
        null = mean_of_defined(np.concatenate(others), axis=0) if others else np.full(len(names), np.nan)
        low, high = interval(resampled_means(own.T, weights), LEVEL)
        n = np.count_nonzero(~np.isnan(own), axis=0)
        mean = mean_of_defined(own, axis=0)
        rows += [
            {"language": language, "script": name, "n": int(n[k]), "mass": float(mean[k]), "low": float(low[k]),
             "high": float(high[k]), "null": float(null[k])}
            for k, name in enumerate(names)
        ]  # fmt: skip
    return rows
