"""Attention over prompts in two languages: mass that crosses them, and what changes beside prompts in one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.attention import (
    ENTROPY,
    FIRST_TOKEN,
    jensen_shannon,
    log_ratio,
    own_and_even,
    segment_distribution,
    segment_masses,
)
from babelscope.analyses.statistics import MIN_ITEMS, Floats, interval, mean_of_defined, permutation_p, share
from babelscope.datasets.language_pairs import parts_of
from babelscope.errors import BabelScopeError
from babelscope.schema import Position, Prompt

_GRADED = re.compile(r"(.+)-([0-9]{2})")


@dataclass(frozen=True, slots=True)
class Switched:
    """A language `a-b` of a store, and the two languages that its prompts mix."""

    code: str
    context: str
    asked: str
    degree: str = ""  # percentage of the sentences of the context that are in its language, where not all are

    @property
    def languages(self) -> tuple[str, str, str]:
        """Context language, question language, both."""
        return self.context, self.asked, self.code


def switched_languages(languages: Sequence[str]) -> tuple[Switched, ...]:
    """Languages `a-b`, and `a-b-25` of prompts switched in part, that stand beside both a and b.

    Raises
    ------
    BabelScopeError
        If there are none.
    """
    found = []
    for code in languages:
        graded = _GRADED.fullmatch(code)
        parts = parts_of(graded[1] if graded else code)
        if parts is not None and {*parts} <= {*languages}:
            found.append(Switched(code, *parts, graded[2] if graded else ""))
    if not found:
        raise BabelScopeError(
            f"no code-switched prompts beside those of their two languages: there are {', '.join(languages)}",
            "capture all three, as --languages en,fr,en-fr, from prompts with a context",
        )
    return tuple(found)


def query_language(prompt: Prompt, position: Position) -> str:
    """Language of the query tokens at a position; "" where the prompt has no such segment.

    Raises
    ------
    BabelScopeError
        For positions that mix the queries of both languages.
    """
    spans = sorted((s for s in prompt.segments if s.start < s.stop), key=lambda s: s.stop)
    if position.kind == "segment":
        own = {s.language for s in spans if s.name == position.segment}
        return own.pop() if len(own) == 1 else ""
    if position.kind in ("last", "answer", "first") and spans:
        return spans[0 if position.kind == "first" else -1].language
    if not spans:
        return ""
    raise BabelScopeError(
        f"position {position} is a mean over tokens of both languages", "use --position last or segment:question"
    )


def other_segments(prompts: Sequence[Prompt], segments: Sequence[str], position: Position) -> NDArray[np.bool_]:
    """(item, segment): which segments hold text that is not in the language of the query tokens, and no other text."""
    found = np.zeros((len(prompts), len(segments)), dtype=bool)
    for row, prompt in enumerate(prompts):
        language = query_language(prompt, position)
        for column, name in enumerate(segments):
            spoken = {s.language for s in prompt.segments if s.name == name and s.start < s.stop}
            found[row, column] = bool(language) and bool(spoken) and language not in spoken
    return found


def mass_on(x: NDArray[np.generic], chosen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Mass on some of the segments, and its even share: (item, head, summary), (item, segment) -> (item, head) twice.

    NaN where none of them is there to be seen.
    """
    found = []
    for values in segment_masses(x):
        counts = chosen[:, None] & ~np.isnan(values)
        total = np.where(counts, values, 0.0).sum(axis=-1)
        found.append(np.where(counts.any(axis=-1), total, np.nan))
    return found[0], found[1]


def crossing(x: NDArray[np.generic], chosen: NDArray[np.bool_]) -> Floats:
    """log2 of rho of some segments over rho of all others: (item, head, summary), (item, segment) -> (item, head).

    rho is mass over its even share. 0 is what a head without preference gives, however many tokens either side has, and
    whatever falls on no segment.
    """
    return log_ratio(*(share(*mass_on(x, side)) for side in (chosen, ~chosen)))


def agreement(a: NDArray[np.generic], b: NDArray[np.generic]) -> Floats:
    """1 minus the Jensen-Shannon divergence of each row from its own counterpart: (item, head, summary) twice."""
    p, q = (segment_distribution(x, over_even=True)[..., None, :] for x in (a, b))
    return 1 - jensen_shannon(p, q)[..., 0, 0]


def changes(x: NDArray[np.generic], other: NDArray[np.bool_]) -> Mapping[str, tuple[Floats, Floats]]:
    """What becomes of attention where the context changes its language.

    Parameters
    ----------
    x : ndarray
        (language, item, head, summary) of context language, question language, both.
    other : ndarray of bool
        (item, segment): segments in the other language, of the prompts in both.

    Returns
    -------
    mapping
        Quantity -> its level in the prompts in two languages, and what is compared with 0, (item, head) each.

        stability_change : mean agreement with the two prompts in one language; minus that of these two.
        cross_mass : `crossing` into the segments in the other language; the same.
        cross_mass_change : the same; minus the mean for the same segments in the two prompts in one language.
        first_token_change : mass on the first token; minus its mean in the two prompts in one language.
    """
    kept = (agreement(x[0], x[2]) + agreement(x[1], x[2])) / 2
    first = own_and_even(x)[0][..., FIRST_TOKEN]
    crossed = [crossing(one, other) for one in x]
    return {
        "stability_change": (kept, kept - agreement(x[0], x[1])),
        "cross_mass": (crossed[2], crossed[2]),
        "cross_mass_change": (crossed[2], crossed[2] - (crossed[0] + crossed[1]) / 2),
        "first_token_change": (first[2], first[2] - (first[0] + first[1]) / 2),
    }


def dose(x: NDArray[np.generic], other: NDArray[np.bool_]) -> Floats:
    """Share of the keys seen that are in the other language: (item, head, summary) -> (item,)."""
    return mean_of_defined(mass_on(x, other)[1])


def even_crossed(x: NDArray[np.generic], other: NDArray[np.bool_]) -> Floats:
    """Share that a cross-lingual query would have of even attention: (item, head, summary) -> (item, head).

    `(m + 1) / (n + 1)` for n keys of which m are in the other language: the bridge counts twice (docs/qcross.md).
    Tokens between segments are not counted to m.
    """
    keys = np.exp(own_and_even(x)[1][..., ENTROPY])
    return share(mass_on(x, other)[1] * keys + 1, keys + 1)


def sign_flips(values: Floats, n_perm: int, rng: np.random.Generator) -> Floats:
    """Means of values whose signs are flipped item by item, (cell, item) -> (cell, permutation).

    The flips are the same for all cells, so that the highest of them has a null. NaN does not count.
    """
    signs = rng.choice(np.array([-1.0, 1.0]), size=(n_perm, values.shape[-1]))
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0.0) @ signs.T, np.count_nonzero(defined, axis=-1)[..., None])


def slopes(doses: Floats, values: Floats) -> Floats:
    """Least-squares slope of values over doses within each item, (dose, ..., item) -> (..., item).

    Doses and values that are undefined are left out; NaN with fewer than two different doses.
    """
    there = ~(np.isnan(doses) | np.isnan(values))
    off = np.where(there, doses - mean_of_defined(np.where(there, doses, np.nan), axis=0), 0.0)
    spread = (off**2).sum(axis=0)
    return share((off * np.where(there, values, 0.0)).sum(axis=0), np.where(spread > 1e-12, spread, 0.0))


def dose_response(
    doses: Floats, values: Floats, weights: Floats, n_perm: int, rng: np.random.Generator
) -> dict[str, float]:
    """Spearman correlation over items, its interval over resampled items, and a two-sided p over shuffled doses.

    Parameters
    ----------
    doses, values : ndarray
        (item,), NaN where undefined.
    weights : ndarray
        (resample, item).
    """
    kept = ~(np.isnan(doses) | np.isnan(values))
    n = int(kept.sum())
    nothing = {"n": n, "estimate": np.nan, "low": np.nan, "high": np.nan, "null": 0.0, "p": np.nan}
    if n < MIN_ITEMS or np.ptp(doses[kept]) == 0 or np.ptp(values[kept]) == 0:
        return nothing
    x, y = stats.rankdata(doses[kept]), stats.rankdata(values[kept])
    estimate = np.corrcoef(x, y)[0, 1]
    shuffled = rng.permuted(np.broadcast_to(x, (n_perm, n)), axis=1)
    centered = y - y.mean()
    permuted = (shuffled - x.mean()) @ centered / (n * x.std() * y.std())
    drawn = [_weighted_correlation(doses[kept], values[kept], w) for w in weights[:, kept]]
    low, high = interval(np.array(drawn), 0.95)
    p = permutation_p(np.abs(np.array(estimate)), np.abs(permuted))
    return {"n": n, "estimate": float(estimate), "low": float(low), "high": float(high), "null": 0.0, "p": float(p)}


def _weighted_correlation(x: Floats, y: Floats, counts: Floats) -> float:
    """Spearman correlation of items that were drawn so many times; NaN where one side does not vary."""
    drawn = np.repeat(np.arange(len(x)), counts.astype(np.int64))
    a, b = stats.rankdata(x[drawn]), stats.rankdata(y[drawn])
    if len(drawn) == 0 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
