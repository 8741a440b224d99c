"""What becomes of the attention of each head where context and question are in two languages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from babelscope.analyses.attention import mass_layers
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    Floats,
    benjamini_hochberg,
    interval,
    max_t,
    mean_of_defined,
    permutation_p,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.analyses.switched import (
    dose_response,
    sign_flips,
    slopes,
    switched_languages,
)
from babelscope.analyses.switched_heads import LEVEL, Measured, gap_row, measured, resamples_of
from babelscope.schema import Result

CLAIMS = {
    "gap": "heads follow the item into prompts in two languages (gap of stability)",
    "stability_change": "two languages in one prompt change the pattern (agreement, against that of the two languages)",
    "cross_mass": "preference for the other language (log2 of rho there over rho elsewhere)",
    "cross_mass_change": "preference for the other language, against the same segments in one language (log2)",
    "first_token_change": "mass on the first token, against prompts in one language",
    "crossed_share": "share of the cross-lingual query; null: even attention",
}
DOSE = "{} over the share of tokens in the other language (Spearman)"
SLOPE = "{} per share of tokens in the other language, within items (slope)"
DOSED = ("stability_change", "cross_mass_change")
BINS = 3


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
        layers = mass_layers(study)
        switched = switched_languages(study.languages)
        found = [
            measured(study, sites, one, group) for sites in layers for one in switched
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
        graded = _graded(found)
        rows = [row for one in found if not one.switched.degree for row in _claims(study, one)]
        claims = claims_table([*rows, *(row for degrees in graded for row in _sloping(study, degrees, per_head=False))])
        claims["verdict"] = _verdicts(claims)
        return [
            Result("code_switched_attention", claims, about),
            Result("code_switched_attention_heads", _heads(study, found, graded), about),
            Result("code_switched_attention_dose", _doses(study, found), about),
        ]


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
    weights = resamples_of(study, one.switched.languages, one.group).weights
    if per_head:
        rows, drawn = pd.DataFrame(one.gaps), np.stack(one.drawn)
        rows["p_max"] = max_t(drawn[:, 0], drawn[:, 1:])
        yield "gap", rows
    else:
        yield "gap", pd.DataFrame([gap_row(one.over_heads.cells(), weights)])
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
    weights = resamples_of(study, one.switched.languages, one.group).weights
    for quantity in DOSED:
        values = mean_of_defined(one.differences(quantity), axis=0)
        rng = stream(study.seed, "dose", one.group, one.switched.code)
        yield {
            **_place(one),
            "claim": DOSE.format(quantity),
            **dose_response(doses, values, weights, study.n_perm, rng),
        }


def _graded(found: Sequence[Measured]) -> list[list[Measured]]:
    """Those that differ in how much of the context is switched, and in nothing else."""
    places: dict[tuple[str, ...], list[Measured]] = {}
    for one in found:
        places.setdefault((one.site, one.group, one.switched.context, one.switched.asked), []).append(one)
    return [degrees for degrees in places.values() if len(degrees) > 1]


def _sloping(study: Study, degrees: Sequence[Measured], *, per_head: bool) -> Iterator[dict[str, Any]]:
    """Slopes over what was switched in the same item, one row for each cell, or for the mean over them."""
    one = degrees[0]
    weights = resamples_of(study, one.switched.languages, one.group).weights
    doses = np.stack([mean_of_defined(np.stack(d.doses), axis=0) for d in degrees])[:, None]
    for quantity in DOSED:
        values = np.stack([d.differences(quantity) for d in degrees])
        found = slopes(doses, values if per_head else mean_of_defined(values, axis=1)[:, None])
        flipped = sign_flips(found, study.n_perm, stream(study.seed, "signs", one.group))
        rows = _tested(np.full_like(found, np.nan), found, weights, flipped)
        if per_head:
            yield from _per_head(one, f"{quantity}_slope", rows)
        else:
            yield {**_place(one), "claim": SLOPE.format(quantity), **{str(k): v for k, v in rows.iloc[0].items()}}


def _per_head(one: Measured, quantity: str, rows: pd.DataFrame, degree: str = "*") -> list[dict[str, Any]]:
    cells = pd.DataFrame(one.cells, columns=["layer", "head"])
    table = pd.concat([cells, rows], axis=1).assign(quantity=quantity, degree=degree, **_place(one))
    table["q"] = benjamini_hochberg(table["p"])
    table["verdict"] = _verdicts(table)
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _heads(study: Study, found: Sequence[Measured], graded: Sequence[Sequence[Measured]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for one in found:
        for quantity, table in _rows(study, one, per_head=True):
            rows += _per_head(one, quantity, table, one.switched.degree)
    for degrees in graded:
        rows += _sloping(study, degrees, per_head=True)
    order = ["quantity", *_place(found[0]), "degree", "layer", "head", "n", "level", "estimate", "low", "high", "null",
             "p", "q", "p_max", "verdict"]  # fmt: skip
    return pd.DataFrame(rows)[order].astype({"layer": "Int64", "head": "Int64"})


def _doses(study: Study, found: Sequence[Measured]) -> pd.DataFrame:
    """Mean of what changes in items with few, some and many tokens in the other language."""
    tables = []
    for one in found:
        doses = mean_of_defined(np.stack(one.doses), axis=0)
        weights = resamples_of(study, one.switched.languages, one.group).weights
        for quantity in DOSED:
            values = mean_of_defined(one.differences(quantity), axis=0)
            ranks = pd.Series(doses).rank(method="first").to_numpy()
            parts = np.ceil(ranks / np.count_nonzero(~np.isnan(ranks)) * BINS)
            inside = np.array([np.where(parts == k, values, np.nan) for k in range(1, BINS + 1)])
            flipped = sign_flips(inside, study.n_perm, stream(study.seed, "signs", one.group))
            table = _tested(inside, inside, weights, flipped).drop(columns=["level", "p_max"])
            table["dose"] = [float(mean_of_defined(np.where(parts == k, doses, np.nan))) for k in range(1, BINS + 1)]
            table["q"] = benjamini_hochberg(table["p"])
            tables.append(
                table.assign(
                    quantity=quantity, part=range(1, BINS + 1), degree=one.switched.degree, **_place(one)
                )
            )  # fmt: skip
    order = ["quantity", *_place(found[0]), "degree", "part", "dose", "n", "estimate", "low", "high", "null", "p", "q"]
    return pd.concat(tables, ignore_index=True)[order]


def _verdicts(table: pd.DataFrame) -> pd.Series:
    words = verdicts(table["estimate"], table["low"], table["high"], table["q"], table["n"])
    return words.mask(table["estimate"].notna() & table["p"].isna() & (table["n"] > 0), "")


recipe = CodeSwitchedAttention()
