"""Answers of prompts that were given the state of another prompt: whose answer it is, and in which language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.statistics import MIN_ITEMS, Floats, mean_of_defined, paired

LEVEL = 0.95


def two_sources(answers: Sequence[frozenset[int]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Two other items for every item, whose answers share no token with its own nor with each other's.

    Items are drawn at random among those that were drawn least, so that none of them decides for many. Which of the
    two comes first is random too.

    Parameters
    ----------
    answers : sequence of frozenset
        Tokens of each item's answer, in all languages.

    Returns
    -------
    ndarray of int64
        (item, 2); -1 where there are no two such items.
    """
    n = len(answers)
    apart = np.array([[not a & b for b in answers] for a in answers]).reshape(n, n)
    found, used = np.full((n, 2), -1, dtype=np.int64), np.zeros(n)
    for item in rng.permutation(n):
        order = np.lexsort([rng.random(n), used])
        free = [int(k) for k in order if apart[item, k] and k != item]
        second = {a: next((b for b in free if b != a and apart[a, b]), -1) for a in free}
        first = next((a for a in free if second[a] >= 0), None)
        if first is not None:
            found[item] = rng.permutation([first, second[first]])
            used[found[item]] += 1
    return found


def follows(
    said: NDArray[np.int64], sources: NDArray[np.int64], answers: Sequence[frozenset[int]]
) -> tuple[Floats, Floats]:
    """How often the answer is that of the source, and that of the source of the other run, (item,) each.

    Both runs have the same prompt. Where it does not matter which item the state comes from, they could be swapped,
    and the two shares are alike but for chance.

    Parameters
    ----------
    said : ndarray of int64
        (item, 2) token said by each item's prompt with the state of either source; -1 for none.
    sources : ndarray of int64
        (item, 2).
    answers : sequence of frozenset
        Tokens of each item's answer.

    Returns
    -------
    tuple of ndarray
        NaN for an item without two runs.
    """
    own, other = np.full(len(said), np.nan), np.full(len(said), np.nan)
    for i, (tokens, pair) in enumerate(zip(said, sources, strict=True)):
        if (tokens >= 0).all() and (pair >= 0).all():
            own[i] = np.mean([tokens[s] in answers[pair[s]] for s in (0, 1)])
            other[i] = np.mean([tokens[1 - s] in answers[pair[s]] for s in (0, 1)])
    return own, other


def language_said(
    said: NDArray[np.int64], sources: NDArray[np.int64], target: Sequence[frozenset[int]],
    others: Sequence[frozenset[int]],
) -> tuple[Floats, Floats]:  # fmt: skip
    """How often the source's answer is said in the language of the prompt, and in the one its state comes from.

    Parameters
    ----------
    said, sources : ndarray of int64
        As in `follows`.
    target, others : sequence of frozenset
        Tokens of each item's answer in the language of the prompt, and in those of the state.

    Returns
    -------
    tuple of ndarray
        (item,) each; NaN where answers in the two languages share a token for both sources.
    """
    here, there = np.full((2, *said.shape), np.nan)
    for i, (tokens, pair) in enumerate(zip(said, sources, strict=True)):
        for s in (0, 1):
            a, b = target[pair[s]], others[pair[s]]
            if tokens[s] >= 0 and pair[s] >= 0 and a and b and not a & b:
                here[i, s], there[i, s] = tokens[s] in a, tokens[s] in b
    return mean_of_defined(here), mean_of_defined(there)


@dataclass(frozen=True, slots=True, eq=False)
class Pairing:
    """One share of items beside another one of the same items, (item,) each, NaN where undefined."""

    share: Floats
    beside: Floats

    @classmethod
    def over(cls, parts: Sequence["Pairing"]) -> "Pairing":
        """The mean over pairs of languages, item by item."""
        share, beside = (np.stack([getattr(p, name) for p in parts]) for name in ("share", "beside"))
        return cls(mean_of_defined(share, axis=0), mean_of_defined(beside, axis=0))

    def columns(self, weights: Floats, n_perm: int, rng: np.random.Generator) -> Mapping[str, float]:
        """n, estimate, null (the other share), p, and the interval of the difference around the null.

        The p is two-sided and swaps the two shares item by item.
        """
        found = paired(self.beside, self.share, weights, n_perm=n_perm, level=LEVEL, rng=rng)
        n = int(found.n_a)
        known = ~np.isnan(self.share) & ~np.isnan(self.beside)
        null = float(mean_of_defined(np.where(known, self.beside, np.nan)))
        return {
            "n": n, "estimate": null + float(found.estimate), "low": null + float(found.low),
            "high": null + float(found.high), "null": null, "p": float(found.p) if n >= MIN_ITEMS else np.nan,
        }  # fmt: skip
