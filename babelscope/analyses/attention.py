"""What the summaries of attention say: mass on segments over its even share, features of heads, how alike they are.

Summaries are those of the site `attn.mass`: (..., summary) with entropy in nats, mass on the first token, mean distance
in tokens, mass on each segment; then the same of attention spread evenly over the keys that the token sees.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from babelscope.analyses.statistics import Floats, mean_of_defined, share
from babelscope.errors import BabelScopeError
from babelscope.schema import Site
from babelscope.schema.plan import ROW_SUMMARIES

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore
    from babelscope.analyses.study import Study

ENTROPY, FIRST_TOKEN, DISTANCE = range(len(ROW_SUMMARIES))
FEWEST_SEGMENTS = 2


def check_summaries(store: "ActivationStore") -> None:
    """Refuse a store whose attention mass cannot be compared.

    Raises
    ------
    BabelScopeError
        If the mass of even attention does not stand beside it, or if its prompts have fewer than two segments.
    """
    if not store.plan.even:
        raise BabelScopeError(
            f"{store.path} lacks what evenly spread attention would give, as stores of earlier versions do",
            "needs attention mass: capture again with --site attn.mass",
        )
    if len(store.plan.segments) < FEWEST_SEGMENTS:
        raise BabelScopeError(
            f"the prompts of {store.path} have {len(store.plan.segments)} segments; mass is compared over two or more",
            "capture prompts with segments, as context and question",
        )


def mass_layers(study: "Study") -> list[list[Site]]:
    """Layers of `attn.mass` in each stack of the model, of those that were asked for.

    Raises
    ------
    BabelScopeError
        If there are none, or as `check_summaries`.
    """
    asked = None if study.sites is None else {text.split("@")[0] for text in study.sites}
    stored = dict.fromkeys(s.name for s in study.store.plan.sites if s.kind == "attn.mass")
    names = [name for name in stored if asked is None or name in asked] or ["attn.mass"]
    layers = [study.layers(name) for name in names]
    check_summaries(study.store)
    return layers


def own_and_even(x: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """(..., summary) -> the summaries of a head and those of even attention, float64, (..., 3 + segment) each."""
    values = np.asarray(x, dtype=np.float64)
    middle = values.shape[-1] // 2
    return values[..., :middle], values[..., middle:]


def segment_masses(x: NDArray[np.generic]) -> tuple[Floats, Floats]:
    """(..., summary) -> mass on each segment and its even share, (..., segment) each.

    NaN in both for a segment that the prompt lacks or that the token does not see: its mass is no choice of a head.
    """
    own, even = (half[..., len(ROW_SUMMARIES) :] for half in own_and_even(x))
    seen = (even > 0) & np.isfinite(own)
    return np.where(seen, np.maximum(own, 0.0), np.nan), np.where(seen, even, np.nan)


def even_mass(
    inside: NDArray[np.bool_], queries: NDArray[np.int64], *, causal: bool, seen: NDArray[np.bool_] | None = None
) -> Floats:
    """Mass on each segment if every query spread its attention evenly over the keys that it sees: U(s -> t).

    `U(s -> t) = mean over i in s of #{j in t, j <= i} / #{j <= i}`, without `j <= i` where attention is not causal.
    A capture keeps the same numbers, and knows windows and masks besides.

    Parameters
    ----------
    inside : ndarray of bool
        (token, segment): the tokens of each segment.
    queries : ndarray of int64
        Tokens of s.
    causal : bool
    seen : ndarray of bool, optional
        (token, token): which keys each query sees, in place of `causal`.

    Returns
    -------
    ndarray
        (segment,).
    """
    n = len(inside)
    if seen is None:
        seen = np.tri(n, dtype=bool) if causal else np.ones((n, n), dtype=bool)
    rows = seen[queries].astype(np.float64)
    shares: Floats = (rows @ inside / rows.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def log_ratio(a: Floats, b: Floats) -> Floats:
    """`log2(a / b)`; NaN where either is 0 or undefined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.log2(a / b)
    return np.where(np.isfinite(found), found, np.nan)


def segment_enrichment(x: NDArray[np.generic]) -> Floats:
    """log2 of the mass on each segment over its even share, against the mean of this quotient, (..., segment).

    0 in every segment is what a head without preference gives. The mean over segments takes out what falls on none,
    and the lengths of segments: a head that weighs the tokens of each segment by a constant has constant values, while
    mass over its even share by itself would still depend on how many tokens the other segments have.
    """
    quotient = segment_distribution(x, over_even=True)
    return log_ratio(quotient, mean_of_defined(quotient)[..., None])


def segment_distribution(x: NDArray[np.generic], *, over_even: bool) -> Floats:
    """How the mass on segments is divided among them, (..., summary) -> (..., segment); sums to 1.

    What falls on no segment, as on a start token, is left out. Segments that are not there are NaN; all are where fewer
    than two are there, or where none has any mass.

    Parameters
    ----------
    over_even : bool
        Divide the mass by its even share first, so that neither the lengths of segments nor the number of tokens that a
        language needs for them count.
    """
    mass, even = segment_masses(x)
    if over_even:
        mass = mass / even
    there = ~np.isnan(mass)
    total = np.where(there, mass, 0.0).sum(axis=-1, keepdims=True)
    return np.where(there.sum(axis=-1, keepdims=True) >= FEWEST_SEGMENTS, share(mass, total), np.nan)


def jensen_shannon(p: Floats, q: Floats) -> Floats:
    """Jensen-Shannon divergence to base 2 of every row of p from every row of q, in [0, 1].

    Lin (1991), IEEE Transactions on Information Theory 37, 145-151.

    Parameters
    ----------
    p, q : ndarray
        (..., item, segment), each row a distribution, NaN where a segment is not there.

    Returns
    -------
    ndarray
        (..., item of p, item of q); NaN between rows that do not have the same segments, and for rows of none.
    """
    p, q = p[..., :, None, :], q[..., None, :, :]
    shape = np.broadcast_shapes(p.shape[:-1], q.shape[:-1])
    found, same, any_there = np.zeros(shape), np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for k in range(p.shape[-1]):  # segment by segment: no (item, item, segment) array
        a, b = p[..., k], q[..., k]
        there = ~np.isnan(a)
        same, any_there = same & (there == ~np.isnan(b)), any_there | there
        a, b = np.nan_to_num(a), np.nan_to_num(b)
        found = found + entr((a + b) / 2) - (entr(a) + entr(b)) / 2
    return np.where(same & any_there, np.clip(found / np.log(2), 0.0, 1.0), np.nan)


def head_features(x: NDArray[np.generic]) -> Floats:
    """Features of a head in a prompt, (..., summary) -> (..., 3 + segment).

    Mass on the first token (the sink); entropy over that of even attention; mean distance over the number of keys seen
    (negative where a head looks ahead); `segment_enrichment`.

    For rows that are means over several query tokens, the number of keys is the geometric mean over these.
    """
    own, even = own_and_even(x)
    keys = np.exp(even[..., ENTROPY])
    first = own[..., FIRST_TOKEN]
    entropy = share(own[..., ENTROPY], even[..., ENTROPY])
    distance = own[..., DISTANCE] / keys
    return np.concatenate([np.stack([first, entropy, distance], axis=-1), segment_enrichment(x)], axis=-1)


def feature_names(segments: tuple[str, ...]) -> tuple[str, ...]:
    """Names along the last axis of `head_features`."""
    return ("first_token", "entropy_share", "relative_distance", *(f"enrichment:{name}" for name in segments))


def profile_similarity(profiles: Floats) -> Floats:
    """Correlation over heads of what is particular to each language.

    From every feature of every head its mean over the languages is removed, or all languages would correlate for the
    heads alone; features are then scaled to the same spread over languages and heads. Deviations from a common mean sum
    to zero, so languages that have nothing in common correlate by -1 / (languages - 1).

    Parameters
    ----------
    profiles : ndarray
        (..., language, head, feature); a head and feature that a language lacks is left out for all.

    Returns
    -------
    ndarray
        (..., language, language); NaN where nothing deviates.
    """
    off = profiles - profiles.mean(axis=-3, keepdims=True)
    whole = ~np.isnan(off).any(axis=-3, keepdims=True)
    off = np.where(whole, off, 0.0)
    spread = np.sqrt(share((off**2).sum(axis=(-3, -2), keepdims=True), whole.sum(axis=-2, keepdims=True)))
    # What is equal in all languages deviates by rounding alone.
    off = np.where(spread > 1e-12, off / np.where(spread > 1e-12, spread, 1.0), 0.0)
    flat = off.reshape(*off.shape[:-2], -1)
    counted = np.broadcast_to(whole, off.shape).reshape(flat.shape)
    flat = np.where(counted, flat - share(flat.sum(-1, keepdims=True), counted.sum(-1, keepdims=True)), 0.0)
    products = flat @ np.swapaxes(flat, -1, -2)
    lengths = np.sqrt(np.diagonal(products, axis1=-2, axis2=-1))
    return share(products, lengths[..., :, None] * lengths[..., None, :])


def intraclass_correlation(x: Floats) -> Floats:
    """ICC(3,1): share of the variance of items that languages agree on, whatever their own means.

    `(MS_items - MS_rest) / (MS_items + (languages - 1) MS_rest)`; Shrout and Fleiss (1979), Psychological Bulletin 86,
    420-428. 0 where languages agree by chance, 1 where they differ by a constant alone, -1 / (languages - 1) at least.

    Parameters
    ----------
    x : ndarray
        (language, item, ...); items that a language lacks are left out.

    Returns
    -------
    ndarray
        (...); NaN with fewer than two languages or items, and where nothing varies.
    """
    whole = ~np.isnan(x).any(axis=0)
    n, n_languages = whole.sum(axis=0), len(x)
    filled = np.where(whole, x, 0.0)
    center = share(filled.sum(axis=(0, 1)), n * n_languages)
    off = np.where(whole, x - center, 0.0)
    items = n_languages * (off.mean(axis=0) ** 2).sum(axis=0)
    languages = n * (share(off.sum(axis=1), n) ** 2).sum(axis=0)
    total = (off**2).sum(axis=(0, 1))
    of_items = share(items, n - 1)
    of_rest = share(np.maximum(total - items - languages, 0.0), (n - 1) * (n_languages - 1))
    varies = total > 1e-24 * np.maximum(1.0, n * n_languages * np.nan_to_num(center) ** 2)
    found = share(of_items - of_rest, of_items + (n_languages - 1) * of_rest)
    return np.where((n > 1) & (n_languages > 1) & varies, found, np.nan)


def mean_profile(features: Floats) -> Floats:
    """(..., item, head, feature) -> (..., head, feature), over the items in which the feature is defined."""
    return mean_of_defined(features, axis=-3)
