"""RankC: whether two languages put the candidates of a question in the same order.

Qi, Fernandez and Bisazza (2023), arXiv:2310.10378.
"""

from collections.abc import Sequence
from importlib.metadata import version
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.activations_store import ActivationStore
from babelscope.analyses.behavior.accuracy import groups_of
from babelscope.analyses.behavior.scorings import scored
from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    permutation_p,
    resampled_means,
    stream,
    verdicts,
)  # fmt: skip
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

COLUMNS = (
    "metric", "group", "language_a", "language_b", "n", "n_options", "rankc", "low", "high", "chance", "corrected",
    "null", "gap", "gap_low", "gap_high", "p", "q", "verdict",
)  # fmt: skip


def rank_consistency(
    store: ActivationStore,
    *,
    languages: Sequence[str] | None = None,
    by: str | None = "task",
    scoring: str = "labels",
    n_boot: int = 2000,
    n_perm: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Result:
    """RankC of every pair of languages, beside its level by chance and with the answers of other items.

    For an item with N candidates, `P@j` is the share of the j best in one language that are among the j best in the
    other, and `RankC = sum_j w_j P@j` with `w_j = exp(N - j + 1) / sum_k exp(N - k + 1)`. Orders that have nothing to
    do with each other reach `c = sum_j w_j j / N`, .377 with four candidates, which the published number contains:
    `corrected` is `(RankC - c) / (1 - c)`. Even that is above 0 where a model prefers a letter whatever is asked, so
    `null` is RankC between an item and other items of its group, and `gap` what is above it.

    Parameters
    ----------
    languages : sequence of str, optional
        At least two. Default: all.
    by, scoring
        As in `transfer`. By labels, candidates are the options in the order shown, the same in all languages.

    Returns
    -------
    Result
        One row per group, number of candidates and pair of languages. Intervals resample items; p shuffles the items
        of one language, q is Benjamini-Hochberg over the pairs of a group.

    Raises
    ------
    BabelScopeError
        For unknown languages, and as `accuracy` does.
    """
    answers = scored(store, scoring)
    wanted = tuple(languages or store.languages)
    for language in wanted:
        if language not in store.languages:
            raise unknown_name("language", language, store.languages)
    group = groups_of(store, by).reindex(answers["item"]).to_numpy()
    answers = answers.assign(group=group).dropna(subset=["group"])
    columns = [c for c in answers if str(c).startswith("option_score_")]
    if not columns:
        raise BabelScopeError(f"answers by {scoring!r} put options in no order", "count by labels or texts")
    rows = []
    for (name, size), part in answers.groupby(["group", "n_options"], sort=False):
        n_options = int(str(size))
        ranks = {g: _orders(part[part["language"] == g], columns[:n_options]) for g in wanted}
        for a, b in combinations(wanted, 2):
            items = [i for i in ranks[a] if i in ranks[b]]
            if items:
                rng = stream(seed, "rankc", str(name), str(n_options), a, b)
                orders = [np.stack([ranks[g][i] for i in items]) for g in (a, b)]
                cells = _pair(*orders, n_boot=n_boot, n_perm=n_perm, level=level, rng=rng)
                about = {"metric": "rankc", "group": name, "language_a": a, "language_b": b, "n_options": n_options}
                rows.append({**about, **cells})
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in ("q", "verdict")])
    table["q"] = table.groupby(["group", "n_options"], sort=False)["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["gap"], table["gap_low"], table["gap_high"], table["q"], table["n"])
    provenance = {
        "store": store.fingerprint, "version": version("babelscope"), "scoring": scoring, "by": by, "seed": seed,
        "interval": f"bootstrap over items, {100 * level:g} %", "n_boot": n_boot, "n_perm": n_perm,
        "definition": "sum_j w_j P@j, w_j = softmax(N - j + 1), arXiv:2310.10378",
        "null": "the candidates of an item beside those of other items of its group",
    }  # fmt: skip
    return Result("rankc", table[list(COLUMNS)], provenance)


def weights_of(n: int) -> Floats:
    """w_j for j = 1, ..., n: more than 60 % on the first place, whatever n."""
    raw: Floats = np.exp(-np.arange(n, dtype=np.float64))
    normalized: Floats = raw / raw.sum()
    return normalized


def chance_of(n: int) -> float:
    """RankC of orders of n candidates that have nothing to do with each other."""
    return float(weights_of(n) @ (np.arange(1, n + 1) / n))


def consistency(a: NDArray[np.int64], b: NDArray[np.int64]) -> Floats:
    """RankC of orders, (..., candidate) each: candidates from the best to the worst. Leading axes broadcast."""
    n = a.shape[-1]
    place_a, place_b = np.argsort(a, axis=-1), np.argsort(b, axis=-1)
    # A candidate is among the j best of both from the worse of its two places on.
    worse = np.maximum(place_a, place_b)
    among = np.stack([(worse < j).sum(axis=-1) / j for j in range(1, n + 1)], axis=-1)
    found: Floats = np.asarray(among @ weights_of(n), np.float64)
    return found


def _orders(answers: pd.DataFrame, columns: Sequence[object]) -> dict[str, NDArray[np.int64]]:
    scores = answers[list(columns)].to_numpy(float)
    best = np.argsort(-scores, axis=1, kind="stable")
    return dict(zip(answers["item"], best, strict=True))


def _pair(
    a: NDArray[np.int64], b: NDArray[np.int64], *, n_boot: int, n_perm: int, level: float, rng: np.random.Generator
) -> dict[str, object]:
    n, n_options = a.shape
    S = consistency(a[:, None], b[None])
    own, chance = np.diagonal(S).copy(), chance_of(n_options)
    weights = bootstrap_weights(n, n_boot, rng)
    low, high = interval(resampled_means(own, weights)[None], level)
    others = (S.sum(axis=0) + S.sum(axis=1) - 2 * own) / max(2 * (n - 1), 1)
    null = float(others.mean()) if n > 1 else np.nan
    # As in the pair engine: what makes an item like all others counts against it on both sides.
    correction = (n - 1) / (n - 2) if n > 2 else np.nan
    gaps = own - null - 2 * (others - null) * correction
    gap_low, gap_high = interval(resampled_means(gaps, weights)[None], level)
    shuffled = np.array([S[np.arange(n), rng.permutation(n)].mean() for _ in range(n_perm)])
    return {
        "n": n, "rankc": own.mean(), "low": low[0], "high": high[0], "chance": chance,
        "corrected": (own.mean() - chance) / (1 - chance) if n_options > 1 else np.nan, "null": null,
        "gap": own.mean() - null, "gap_low": gap_low[0], "gap_high": gap_high[0],
        "p": float(permutation_p(own.mean(), shuffled)),
    }  # fmt: skip
