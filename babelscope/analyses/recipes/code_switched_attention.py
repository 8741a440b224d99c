"""What becomes of the attention of each head where context and question are in two languages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.attention import check_summaries
from babelscope.analyses.estimates import Cells, LayerMean, columns, mean_over_pairs, pair_cells
from babelscope.analyses.metrics.attention_stability import metric
from babelscope.analyses.pairs import score_pairs
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.scoring import MAX_T_PERMUTATIONS
from babelscope.analyses.statistics import (
    Floats,
    Resamples,
    benjamini_hochberg,
    interval,
    max_t,
    mean_of_defined,
    permutation_p,
    resample,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.analyses.switched import (
    Switched,
    changes,
    dose,
    dose_response,
    even_crossed,
    other_segments,
    sign_flips,
    switched_languages,
)
from babelscope.schema import Result, Site

CLAIMS = {
    "gap": "heads follow the item into prompts in two languages (gap of stability)",
    "stability_change": "two languages in one prompt change the pattern (agreement, against that of the two languages)",
    "cross_mass": "preference for the other language (log2 of rho there over rho elsewhere)",
    "cross_mass_change": "preference for the other language, against the same segments in one language (log2)",
    "first_token_change": "mass on the first token, against prompts in one language",
    "crossed_share": "share of the cross-lingual query; null: even attention",
}
DOSE = "{} over the share of tokens in the other language (Spearman)"
DOSED = ("stability_change", "cross_mass_change")
BINS = 3
LEVEL = 0.95


@dataclass(slots=True)
class Measured:
    """One pair of languages in one group at all layers and heads, (cell, item) each; cells are (layer, head).

    `gaps` are rows of the gap per cell, `drawn` its (cell, 1 + permutation) means.
    """

    switched: Switched
    group: str
    site: str
    cells: list[tuple[int, int]] = field(default_factory=list)
    values: dict[str, list[tuple[Floats, Floats]]] = field(default_factory=dict)
    doses: list[Floats] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    drawn: list[Floats] = field(default_factory=list)
    over_heads: LayerMean = field(default_factory=LayerMean)

    def levels(self, quantity: str) -> Floats:
        """(cell, item)."""
        return np.concatenate([level for level, _ in self.values[quantity]], axis=-1).T

    def differences(self, quantity: str) -> Floats:
        """(cell, item)."""
        return np.concatenate([found for _, found in self.values[quantity]], axis=-1).T


@dataclass(frozen=True, slots=True)
class CodeSwitchedAttention:
    """Stability of heads between prompts in one and in two languages, and mass that crosses the languages."""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Attention over code-switched prompts (our definitions: the paper publishes none)",
        question="What does a head do differently where context and question are in two languages?",
        reads=("attn.mass",),
        needs_model=False,
        source="our definitions; arXiv:2310.15258 names pattern stability and publishes no formula",
    )

    def run(self, study: Study) -> list[Result]:
        """Claims per pair of languages; `..._heads` for every layer and head; `..._dose` by share of other tokens."""
        names = [s.name for s in study.store.plan.sites if s.kind == "attn.mass"] or ["attn.mass"]
        layers = {name: study.layers(name) for name in dict.fromkeys(names)}
        check_summaries(study.store)
        switched = switched_languages(study.languages)
        found = [
            _measured(study, sites, one, group) for sites in layers.values() for one in switched
            for group in study.groups
        ]  # fmt: skip
        about = {
            **study.provenance(), "title": self.info.title, "question": self.info.question,
            "source": self.info.source, "position": str(study.position),
            "p": "gap: items of each language shuffled, one-sided; dose: doses shuffled, two-sided; all others: signs "
            "of items flipped, two-sided; add-one rule",
            "q": "Benjamini-Hochberg: claims over pairs of languages and groups, heads over layers and heads",
            "p_max": "of the highest of all layers and heads under the same shuffles or flips",
            "interval": "percentile bootstrap over items, 95%",
        }  # fmt: skip
        rows = [row for one in found for row in _claims(study, one)]
        claims = claims_table(rows)
        claims["verdict"] = _verdicts(claims)
        return [
            Result("code_switched_attention", claims, about),
            Result("code_switched_attention_heads", _heads(study, found), about),
            Result("code_switched_attention_dose", _doses(study, found), about),
        ]


def _measured(study: Study, sites: Sequence[Site], switched: Switched, group: str) -> Measured:
    places = [study.languages.index(language) for language in switched.languages]
    items = study.groups[group]
    by_item = {p.item: p for p in study.prompts.of(switched.code)}
    segments = study.store.plan.segments
    other = other_segments([by_item[i] for i in items], segments, study.position)
    resamples = _resamples(study, switched.languages, group)
    found = Measured(switched, group, sites[0].name)
    for number, site in enumerate(sites):
        study.progress(number, len(sites), f"{switched.code} {site}")
        x = np.asarray(study.block(site, items=items))[places]
        assert site.layer is not None
        found.cells += [(site.layer, head) for head in range(x.shape[2])]
        for quantity, pair in changes(x, other).items():
            found.values.setdefault(quantity, []).append(pair)
        found.doses.append(dose(x[2], other))
        crossed = Site("attn.crossed", site.layer, site.stack)
        if crossed in study.store.plan.sites:
            own = np.asarray(study.block(crossed, items=items), dtype=np.float64)[places[2]]
            found.values.setdefault("crossed_share", []).append((even_crossed(x[2], other), own))
        for head in range(x.shape[2]):
            _follow(found, x[:, :, head], resamples)
    return found


def _resamples(study: Study, languages: Sequence[str], group: str) -> Resamples:
    return resample(
        len(study.groups[group]), languages, seed=study.seed, group=group, n_boot=study.n_boot, n_perm=study.n_perm
    )


def _follow(found: Measured, x: NDArray[np.generic], resamples: Resamples) -> None:
    """The gap of one head between each of the two languages and their mixture."""
    every = pair_cells(score_pairs(x, metric.measures({})[:1], resamples.permutations))
    mixed = [1, 2]  # of the pairs of (context, question, both)
    cells = mean_over_pairs(
        Cells(
            every.matched[:, mixed], every.gap[:, mixed], every.whole[:, mixed], every.observed[:, mixed],
            every.permuted[:, mixed], {},
        )
    )  # fmt: skip
    found.over_heads.add(cells)
    found.gaps.append(_gap(cells, resamples.weights))
    found.drawn.append(np.concatenate([cells.observed[0], cells.permuted[0, 0, :MAX_T_PERMUTATIONS]]))


def _gap(cells: Cells, weights: Floats) -> dict[str, Any]:
    own = {name: np.asarray(values).item() for name, values in columns(cells, weights, LEVEL).items()}
    return {
        "n": int(own["n"]), "level": own["matched"], "estimate": own["gap"], "low": own["gap_low"],
        "high": own["gap_high"], "null": 0.0, "p": own["p"],
    }  # fmt: skip


def _tested(level: Floats, values: Floats, weights: Floats, flipped: Floats) -> pd.DataFrame:
    """One row per cell of (cell, item): the mean against 0."""
    estimate = mean_of_defined(values)
    low, high = interval(resampled_means(values, weights), LEVEL)
    return pd.DataFrame(
        {
            "n": np.count_nonzero(~np.isnan(values), axis=-1), "level": mean_of_defined(level), "estimate": estimate,
            "low": low, "high": high, "null": 0.0, "p": permutation_p(np.abs(estimate), np.abs(flipped)),
            "p_max": max_t(np.abs(estimate), np.abs(flipped)),
        }
    )  # fmt: skip


def _shares(even: Floats, values: Floats, weights: Floats) -> pd.DataFrame:
    """The share of the cross-lingual query beside that of even attention, which is too rough a null for a p."""
    low, high = interval(resampled_means(values, weights), LEVEL)
    return pd.DataFrame(
        {
            "n": np.count_nonzero(~np.isnan(values), axis=-1), "level": mean_of_defined(values),
            "estimate": mean_of_defined(values), "low": low, "high": high, "null": mean_of_defined(even),
            "p": np.nan, "p_max": np.nan,
        }
    )  # fmt: skip


def _rows(study: Study, one: Measured, *, per_head: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """Quantity, and its rows for every cell, or for the mean over them."""
    weights = _resamples(study, one.switched.languages, one.group).weights
    if per_head:
        rows, drawn = pd.DataFrame(one.gaps), np.stack(one.drawn)
        rows["p_max"] = max_t(drawn[:, 0], drawn[:, 1:])
        yield "gap", rows
    else:
        yield "gap", pd.DataFrame([_gap(one.over_heads.cells(), weights)])
    for quantity in one.values:
        level, values = one.levels(quantity), one.differences(quantity)
        if not per_head:
            level, values = (mean_of_defined(x, axis=0)[None] for x in (level, values))
        if quantity == "crossed_share":
            yield quantity, _shares(level, values, weights)
        else:
            flipped = sign_flips(values, study.n_perm, stream(study.seed, "signs", one.group))
            yield quantity, _tested(level, values, weights, flipped)


def _place(one: Measured) -> dict[str, Any]:
    return {
        "group": one.group, "site": one.site, "language_a": one.switched.context, "language_b": one.switched.asked,
    }  # fmt: skip


def _claims(study: Study, one: Measured) -> Iterator[dict[str, Any]]:
    for quantity, rows in _rows(study, one, per_head=False):
        yield {**_place(one), "claim": CLAIMS[quantity], **{str(k): v for k, v in rows.iloc[0].items()}}
    doses = mean_of_defined(np.stack(one.doses), axis=0)
    weights = _resamples(study, one.switched.languages, one.group).weights
    for quantity in DOSED:
        values = mean_of_defined(one.differences(quantity), axis=0)
        rng = stream(study.seed, "dose", one.group, one.switched.code)
        yield {
            **_place(one),
            "claim": DOSE.format(quantity),
            **dose_response(doses, values, weights, study.n_perm, rng),
        }


def _heads(study: Study, found: Sequence[Measured]) -> pd.DataFrame:
    tables = []
    for one in found:
        cells = pd.DataFrame(one.cells, columns=["layer", "head"]).astype("Int64")
        for quantity, rows in _rows(study, one, per_head=True):
            table = pd.concat([cells, rows], axis=1).assign(quantity=quantity, **_place(one))
            table["q"] = benjamini_hochberg(table["p"])
            table["verdict"] = _verdicts(table)
            tables.append(table)
    order = ["quantity", *_place(found[0]), "layer", "head", "n", "level", "estimate", "low", "high", "null", "p", "q",
             "p_max", "verdict"]  # fmt: skip
    return pd.concat(tables, ignore_index=True)[order]


def _doses(study: Study, found: Sequence[Measured]) -> pd.DataFrame:
    """Mean of what changes in items with few, some and many tokens in the other language."""
    tables = []
    for one in found:
        doses = mean_of_defined(np.stack(one.doses), axis=0)
        weights = _resamples(study, one.switched.languages, one.group).weights
        for quantity in DOSED:
            values = mean_of_defined(one.differences(quantity), axis=0)
            ranks = pd.Series(doses).rank(method="first").to_numpy()
            parts = np.ceil(ranks / np.count_nonzero(~np.isnan(ranks)) * BINS)
            inside = np.array([np.where(parts == k, values, np.nan) for k in range(1, BINS + 1)])
            flipped = sign_flips(inside, study.n_perm, stream(study.seed, "signs", one.group))
            table = _tested(inside, inside, weights, flipped).drop(columns=["level", "p_max"])
            table["dose"] = [float(mean_of_defined(np.where(parts == k, doses, np.nan))) for k in range(1, BINS + 1)]
            table["q"] = benjamini_hochberg(table["p"])
            tables.append(table.assign(quantity=quantity, part=range(1, BINS + 1), **_place(one)))
    order = ["quantity", *_place(found[0]), "part", "dose", "n", "estimate", "low", "high", "null", "p", "q"]
    return pd.concat(tables, ignore_index=True)[order]


def _verdicts(table: pd.DataFrame) -> pd.Series:
    words = verdicts(table["estimate"], table["low"], table["high"], table["q"], table["n"])
    return words.mask(table["estimate"].notna() & table["p"].isna() & (table["n"] > 0), "")


recipe = CodeSwitchedAttention()
