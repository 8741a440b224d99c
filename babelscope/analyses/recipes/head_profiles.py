"""What each head does in each language, which languages use heads alike, and which heads follow the item."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.attention import (
    DISTANCE,
    ENTROPY,
    FIRST_TOKEN,
    feature_names,
    head_features,
    intraclass_correlation,
    mass_layers,
    own_and_even,
    profile_similarity,
    segment_masses,
)
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    NOT_TESTABLE,
    Floats,
    Resamples,
    benjamini_hochberg,
    interval,
    max_t,
    mean_of_defined,
    permutation_p,
    resample,
    resampled_means,
    share,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.schema import Result, Site

LEVEL = 0.95
# Profiles and intraclass correlations are computed anew in every resample.
RESAMPLES = 499
ALIKE = "two languages use heads alike, beyond what all languages share (correlation of profiles)"
FOLLOWS = "{} of a head follows the item (intraclass correlation over languages, mean over heads)"
SINK = "mass on the first token (mean over heads; null: even attention)"
# Fewer languages deviate from their mean by the same amount, in opposite directions.
FEWEST_LANGUAGES = 3


@dataclass(frozen=True, slots=True)
class Heads:
    """One site in one group: features of every head, (language, item, head, feature), and what tells them apart.

    Parameters
    ----------
    site : str
    group : str
    cells : list of (int, int)
        Layer and head.
    features : ndarray of float32
    even : ndarray of float32
        The same of even attention.
    flow, even_flow : ndarray of float64
        Mass on each segment, mean over heads, (language, item, layer, segment), and its even share.
    """

    site: str
    group: str
    cells: list[tuple[int, int]]
    features: NDArray[np.float32]
    even: NDArray[np.float32]
    flow: Floats
    even_flow: Floats


@dataclass(frozen=True, slots=True)
class HeadProfiles:
    """Profiles of heads: mass on the first token, entropy, distance, and mass on segments over its even share."""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Profiles of attention heads (our definitions)",
        question="Do languages use heads alike, and which heads follow the item rather than the template?",
        reads=("attn.mass",),
        needs_model=False,
        source="our definitions, after Clark et al. (2019), arXiv:1906.04341, and Shrout and Fleiss (1979)",
    )

    def run(self, study: Study) -> list[Result]:
        """Claims; `..._heads` with the intraclass correlation, and `..._languages` with the means, of every head.

        `..._segments` has the mass on each segment in each layer and language, mean over heads.
        """
        layers = mass_layers(study)
        features = feature_names(study.store.plan.segments)
        claims: list[dict[str, Any]] = []
        heads, languages, segments = [], [], []
        for group in study.groups:
            resamples = resample(
                len(study.groups[group]), study.languages, seed=study.seed, group=group,
                n_boot=min(study.n_boot, RESAMPLES), n_perm=min(study.n_perm, RESAMPLES),
            )  # fmt: skip
            for sites in layers:
                found = _read(study, sites, group)
                claims += _alike(study, found, resamples)
                table, overall = _following(found, features, resamples)
                heads.append(table)
                claims += overall
                languages.append(_means(study, found, features, resamples))
                segments.append(_segments(study, found, sites, resamples))
                claims += _sinks(study, found, resamples)
        table = claims_table(claims)
        table["verdict"] = _verdicts(table)
        about = {
            **study.provenance(), "title": self.info.title, "question": self.info.question, "source": self.info.source,
            "features": features, "resamples": RESAMPLES,
            "p": "profiles: languages of each item exchanged; intraclass correlation: items of each language shuffled; "
            "one-sided, add-one rule",
            "q": "Benjamini-Hochberg: claims over pairs, features and groups of a kind; heads over layers and heads",
            "p_max": "of the highest of all layers and heads under the same shuffles",
            "interval": "percentile bootstrap over items, 95%",
        }  # fmt: skip
        return [
            Result("head_profiles", table, about),
            Result("head_profiles_heads", pd.concat(heads, ignore_index=True), about),
            Result("head_profiles_languages", pd.concat(languages, ignore_index=True), about),
            Result("head_profiles_segments", pd.concat(segments, ignore_index=True), about),
        ]


def _read(study: Study, sites: Sequence[Site], group: str) -> Heads:
    cells, features, even, flows = [], [], [], []
    for number, site in enumerate(sites):
        study.progress(number, len(sites), f"head-profiles {site}")
        x = study.block(site, items=study.groups[group])
        assert site.layer is not None
        cells += [(site.layer, head) for head in range(x.shape[2])]
        features.append(head_features(x).astype(np.float32))
        even.append(_even_features(x).astype(np.float32))
        flows.append([mean_of_defined(np.moveaxis(mass, 2, -1)) for mass in segment_masses(x)])
    own, spread = (np.stack(flow, axis=2) for flow in zip(*flows, strict=True))
    return Heads(sites[0].name, group, cells, np.concatenate(features, 2), np.concatenate(even, 2), own, spread)


def _even_features(x: NDArray[np.generic]) -> Floats:
    """The features that even attention has: 1 / keys, 1, the mean distance, and no enrichment."""
    _, even = own_and_even(x)
    keys = np.exp(even[..., ENTROPY])
    ones, nothing = np.ones_like(keys), np.zeros((*keys.shape, even.shape[-1] - 3))
    first = np.stack([even[..., FIRST_TOKEN], ones, even[..., DISTANCE] / keys], axis=-1)
    return np.concatenate([first, nothing], axis=-1)


def _alike(study: Study, found: Heads, resamples: Resamples) -> Iterator[dict[str, Any]]:
    """One claim for each pair of languages."""
    x = found.features.astype(np.float64)
    n_languages, n, *cell = x.shape
    flat = np.moveaxis(x, 1, 0).reshape(n, -1)
    defined = ~np.isnan(flat)
    filled = np.where(defined, flat, 0.0)

    def similarities(weights: Floats) -> Floats:
        profiles = share(weights @ filled, weights @ defined).reshape(n_languages, *cell)
        return profile_similarity(profiles)

    observed = similarities(np.ones(n))
    enough = n_languages >= FEWEST_LANGUAGES
    drawn = np.stack([similarities(w) for w in resamples.weights]) if enough else observed[None]
    rng, permuted = stream(study.seed, "languages", found.group), []
    for _ in range(len(resamples.permutations) if enough else 1):
        order = rng.permuted(np.broadcast_to(np.arange(n_languages), (n, n_languages)), axis=1)
        exchanged = mean_of_defined(x[order.T, np.arange(n)], axis=1)
        permuted.append(profile_similarity(exchanged))
    for a in range(n_languages):
        for b in range(a + 1, n_languages):
            pair = np.array([p[a, b] for p in permuted])
            low, high = interval(drawn[:, a, b], LEVEL)
            row = {
                "claim": ALIKE, "group": found.group, "site": found.site, "language_a": study.languages[a],
                "language_b": study.languages[b], "n": n,
            }  # fmt: skip
            if enough:
                row |= {
                    "estimate": float(observed[a, b]), "low": float(low), "high": float(high),
                    "null": float(mean_of_defined(pair)), "p": float(permutation_p(observed[a, b], pair)),
                }  # fmt: skip
            yield row


def _following(
    found: Heads, features: Sequence[str], resamples: Resamples
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Intraclass correlation of every head and feature, and the claims of their means over heads."""
    x = found.features.astype(np.float64)
    observed = intraclass_correlation(x)
    languages = np.arange(len(x))[:, None]
    permuted = np.stack([intraclass_correlation(x[languages, order]) for order in resamples.permutations], -1)
    drawn = np.stack([intraclass_correlation(x[:, _drawn(w)]) for w in resamples.weights], -1)
    low, high = interval(drawn, LEVEL)
    n = (~np.isnan(x).any(axis=0)).sum(axis=0)
    tables, claims = [], []
    for k, feature in enumerate(features):
        place = {"group": found.group, "site": found.site, "feature": feature}
        table = pd.DataFrame(found.cells, columns=["layer", "head"]).astype("Int64").assign(**place)
        table["n"], table["estimate"] = n[:, k], observed[:, k]
        table["low"], table["high"], table["null"] = low[:, k], high[:, k], mean_of_defined(permuted[:, k])
        table["p"] = permutation_p(observed[:, k], permuted[:, k])
        table["q"], table["p_max"] = benjamini_hochberg(table["p"]), max_t(observed[:, k], permuted[:, k])
        table["verdict"] = _verdicts(table)
        tables.append(table)
        means = [mean_of_defined(values[:, k], axis=0) for values in (observed, drawn, permuted)]
        ends = interval(means[1], LEVEL)
        claims.append(
            {
                "claim": FOLLOWS.format(feature), "group": found.group, "site": found.site, "language_a": "*",
                "language_b": "*", "n": int(n[:, k].max(initial=0)), "estimate": float(means[0]),
                "low": float(ends[0]), "high": float(ends[1]), "null": float(mean_of_defined(means[2])),
                "p": float(permutation_p(means[0], means[2])),
            }
        )  # fmt: skip
    order = ["feature", "group", "site", "layer", "head", "n", "estimate", "low", "high", "null", "p", "q", "p_max",
             "verdict"]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[order], claims


def _drawn(counts: Floats) -> NDArray[np.int64]:
    """Items that a resample drew, as often as it drew them."""
    return np.repeat(np.arange(len(counts)), counts.astype(np.int64))


def _means(study: Study, found: Heads, features: Sequence[str], resamples: Resamples) -> pd.DataFrame:
    """Mean feature of each head in each language, beside that of even attention."""
    x = np.moveaxis(found.features.astype(np.float64), 1, -1)  # (language, head, feature, item)
    low, high = interval(resampled_means(x, resamples.weights), LEVEL)
    even = mean_of_defined(np.moveaxis(found.even.astype(np.float64), 1, -1))
    columns = {
        "n": np.count_nonzero(~np.isnan(x), axis=-1), "estimate": mean_of_defined(x), "low": low, "high": high,
        "null": even,
    }  # fmt: skip
    language, cell, feature = np.unravel_index(np.arange(low.size), low.shape)
    places = np.array(found.cells)[cell]
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    table.insert(0, "head", places[:, 1])
    table.insert(0, "layer", places[:, 0])
    table.insert(0, "feature", np.array(features)[feature])
    table.insert(0, "language", np.array(study.languages)[language])
    table.insert(0, "site", found.site)
    table.insert(0, "group", found.group)
    return table


def _segments(study: Study, found: Heads, sites: Sequence[Site], resamples: Resamples) -> pd.DataFrame:
    """Mass on each segment beside its even share: what a layer reads, without choosing heads."""
    x, even = (np.moveaxis(flow, 1, -1) for flow in (found.flow, found.even_flow))  # (language, layer, segment, item)
    low, high = interval(resampled_means(x, resamples.weights), LEVEL)
    language, layer, segment = np.unravel_index(np.arange(low.size), low.shape)
    return pd.DataFrame({
        "group": found.group, "site": found.site, "language": np.array(study.languages)[language],
        "layer": np.array([site.layer for site in sites])[layer],
        "segment": np.array(study.store.plan.segments)[segment],
        "n": np.count_nonzero(~np.isnan(x), axis=-1).ravel(), "estimate": mean_of_defined(x).ravel(),
        "low": low.ravel(), "high": high.ravel(), "null": mean_of_defined(even).ravel(),
    })  # fmt: skip


def _sinks(study: Study, found: Heads, resamples: Resamples) -> Iterator[dict[str, Any]]:
    """Mass on the first token in each language; how far it is from even attention needs no test."""
    own, even = (mean_of_defined(x[..., 0].astype(np.float64)) for x in (found.features, found.even))
    low, high = interval(resampled_means(own, resamples.weights), LEVEL)
    for k, language in enumerate(study.languages):
        yield {
            "claim": SINK, "group": found.group, "site": found.site, "language_a": language, "language_b": "",
            "n": int(np.count_nonzero(~np.isnan(own[k]))), "estimate": float(mean_of_defined(own[k])),
            "low": float(low[k]), "high": float(high[k]), "null": float(mean_of_defined(even[k])),
        }  # fmt: skip


def _verdicts(table: pd.DataFrame) -> pd.Series:
    """Against the null of each row; none for what is told without a test."""
    estimate, low, high = (table[name] - table["null"] for name in ("estimate", "low", "high"))
    words = verdicts(estimate, low, high, table["q"], table["n"])
    return words.mask((words == NOT_TESTABLE) & table["estimate"].notna() & table["p"].isna(), "")


recipe = HeadProfiles()
