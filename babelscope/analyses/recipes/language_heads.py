"""Attention heads that answers in one language rest on more than those in others, and heads of all languages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from babelscope.analyses.dissociation import N_FOLDS, folds, jackknifed
from babelscope.analyses.language_specific import detectors
from babelscope.analyses.rankings import against_shuffles, rank_correlation, top_overlap
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    ALPHA,
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    SUPPORTED,
    Floats,
    benjamini_hochberg,
    share,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Result, Site

SHUFFLES = 199


@dataclass(frozen=True, slots=True)
class LanguageHeads:
    """Importance of heads for the answer, by language.

    Parameters
    ----------
    top_share : float
        Share of all heads that counts as the top of a language (the paper takes 4 %).
    """

    top_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.top_share <= 0.5:
            raise BabelScopeError(f"top_share={self.top_share} is no share of heads", "set it above 0, to .5 at most")

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Language heads",
        question="Are there attention heads that matter for single languages, and heads that matter for all?",
        reads=(),
        needs_model=True,
        source="the published code of LAHIS, without the optimizer that drifts while it measures",
    )

    def run(self, study: Study) -> list[Result]:
        """`language_heads`, then every head in every language."""
        if len(study.languages) < 2:
            raise BabelScopeError("one language has no heads of its own", "name two or more with --languages")
        from babelscope.hooks import interventions as iv

        loaded = study.model
        sites = [Site("attn.heads", layer) for layer in range(loaded.ref.n_layers)]
        rows: list[dict[str, Any]] = []
        tables: list[pd.DataFrame] = []
        for group, items in study.groups.items():
            signed = []
            for language in study.languages:
                by_item = {p.item: p for p in study.prompts.of(language)}
                prompts = [by_item[item] for item in items]
                signed.append(iv.head_importance(loaded, prompts, sites, study.progress))
            x = np.stack(signed).astype(np.float64)
            heads = _heads(x, study.languages)
            tables.append(heads.assign(group=group))
            place = {"group": group, "site": "attn.heads", "n": len(items)}
            rows += [{**place, **row} for row in (*_of_languages(heads), *self._shared(x, study, group))]
        about = {
            **study.provenance(), "title": self.info.title,
            "importance": "gradient x activation of a head, summed over tokens; |.| as a share of all heads",
            "null": "ranks of languages within items; for shared heads, heads shuffled within layers",
        }  # fmt: skip
        table = claims_table(rows, family=("claim",))
        above = [table[name] - table["null"] for name in ("estimate", "low", "high")]
        words = verdicts(above[0], above[1], above[2], table["q"], table["n"])
        table["verdict"] = table["verdict"].where(table["verdict"] != "", words)
        return [
            Result("language_heads", table, about),
            Result("language_heads_all", pd.concat(tables, ignore_index=True), about),
        ]

    def _shared(self, x: Floats, study: Study, group: str) -> Iterator[dict[str, Any]]:
        n_items, n_heads = x.shape[1], x.shape[3]
        size = _relative(x).reshape(len(x), n_items, -1)
        top = max(1, round(self.top_share * size.shape[-1]))
        at = folds(n_items, stream(study.seed, "heads", group))
        for claim, statistic in (
            ("rank correlation of head importance between languages", rank_correlation),
            (f"share of the top {top} heads that two languages have in common", lambda s: top_overlap(s, top)),
            (f"heads in the top {top} of all languages", lambda s: _in_all(s, top)),
        ):
            rng = stream(study.seed, "heads", group, "shuffles")
            found = against_shuffles(statistic, np.nanmean(size, axis=1), n_heads, SHUFFLES, rng)
            without = [statistic(np.nanmean(size[:, at != f], axis=1)) for f in range(N_FOLDS)]
            bounds = jackknifed(found.value, without)
            yield {
                "claim": claim, "language_a": "*", "language_b": "*", "estimate": found.value, "low": bounds.low,
                "high": bounds.high, "null": found.null, "p": found.p,
            }  # fmt: skip


def _relative(x: Floats) -> Floats:
    """Sizes as shares of all heads of a prompt, (language, item, layer, head)."""
    size = np.abs(x)
    return share(size, size.sum(axis=(2, 3), keepdims=True))


def _robust(x: Floats) -> Floats:
    """Sizes as multiples of the median head of a prompt, (language, item, layer, head).

    Languages are compared by these: shares sum to one, so that a head that gains in one language would make every other
    head one of the remaining languages.
    """
    size = np.abs(x)
    return share(size, np.median(size, axis=(2, 3), keepdims=True))


def _in_all(scores: Floats, top: int) -> float:
    """Heads that are among the top ones of every language."""
    tops = [set(np.argsort(-row, kind="stable")[:top].tolist()) for row in scores]
    return float(len(set.intersection(*tops)))


def _heads(x: Floats, languages: tuple[str, ...]) -> pd.DataFrame:
    n_languages, n_items, n_layers, n_heads = x.shape
    relative = _relative(x).reshape(n_languages, n_items, -1)
    compared = _robust(x).reshape(n_languages, n_items, -1)
    kept = ~np.isnan(compared).any(axis=(0, 2))
    found = detectors(compared[:, kept])
    signed = x.reshape(n_languages, n_items, -1)[:, kept]
    table = pd.DataFrame(
        {
            "language": np.repeat(languages, n_layers * n_heads),
            "layer": pd.array(np.tile(np.repeat(np.arange(n_layers), n_heads), n_languages), dtype="Int64"),
            "head": np.tile(np.arange(n_heads), n_languages * n_layers), "n": int(kept.sum()),
            "importance": relative[:, kept].mean(axis=1).ravel(), "null": 1 / (n_layers * n_heads),
            "signed_mean": signed.mean(axis=1).ravel(),
            "sign_consistency": np.abs(np.sign(signed).mean(axis=1)).ravel(),
            "auroc": found.auroc.ravel(), "p": found.p.ravel(),
        }
    )  # fmt: skip
    # By language: effects in one must not lower the bar for another.
    return table.assign(q=table.groupby("language", sort=False)["p"].transform(benjamini_hochberg))


def _of_languages(heads: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for language, part in heads.groupby("language", sort=False):
        more = (part["q"] < ALPHA) & (part["auroc"] > 0.5)
        known = bool(part["p"].notna().any())
        yield {
            "claim": "share of heads that matter more for the language, q < 0.05", "language_a": str(language),
            "language_b": str(language), "estimate": float(more.mean()) if known else float("nan"), "null": 0.0,
            "p": float(part["q"].min()),
            "verdict": NOT_TESTABLE if not known else SUPPORTED if more.any() else NOT_DISTINGUISHABLE,
        }  # fmt: skip


recipe = LanguageHeads()
