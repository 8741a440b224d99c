"""What holds for languages and items of the kind, not for these alone, and where groups are as good as equal."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from babelscope.analyses.inference import MIN_LANGUAGES, equivalence, pair_weights, pigeonhole_means
from babelscope.analyses.item_gaps import item_gaps
from babelscope.analyses.pairs import language_pairs
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    ALPHA,
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    SUPPORTED,
    Floats,
    bootstrap_weights,
    interval,
    mean_of_defined,
    resampled_means,
    stream,
)
from babelscope.analyses.study import Study
from babelscope.schema import Result


@dataclass(frozen=True, slots=True)
class LanguagesInGeneral:
    """Gaps with intervals over items and languages, and equivalence of groups.

    Parameters
    ----------
    metrics : str
        Comma-separated names of metrics with a gap per item; "" for those that the store can feed.
    smallest : float
        The smallest difference of gaps that would matter, stated before looking.
    """

    metrics: str = ""
    smallest: float = 0.05

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Languages in general",
        question="Does a gap hold for languages of the kind, and which groups differ by less than what matters?",
        reads=(),
        needs_model=False,
        source="Owen (2007), Annals of Applied Statistics 1, 386-411; Schuirmann (1987)",
    )

    def run(self, study: Study) -> list[Result]:
        """`languages_in_general`: a row over items and languages per gap, and one per pair of groups."""
        names = [name.strip() for name in self.metrics.split(",") if name.strip()]
        rows: list[dict[str, Any]] = []
        by_group: dict[tuple[str, str], dict[str, Floats]] = {}
        for found in item_gaps(study, names, "languages in general"):
            gaps = found.by_layer[None]
            claim = f"{found.metric} {found.variant}"
            rows.append(_row(study, f"{claim}: gap, items and languages resampled", found.site, found.group, gaps))
            by_group.setdefault((claim, found.site), {})[found.group] = mean_of_defined(gaps, axis=0)
        for (claim, site), groups in by_group.items():
            rows += self._equivalent(claim, site, groups)
        about = {
            **study.provenance(), "title": self.info.title, "smallest": self.smallest,
            "interval": "percentile bootstrap of items and of languages, 95%; of equivalence the t interval at 90 %",
            "p": "share of resamples at or below zero, doubled, add-one rule; of equivalence two one-sided t tests",
            "verdict": f"equivalence is supported where the whole interval lies within {self.smallest} of zero",
        }  # fmt: skip
        return [Result("languages_in_general", claims_table(rows), about)]

    def _equivalent(self, claim: str, site: str, groups: dict[str, Floats]) -> Iterator[dict[str, Any]]:
        for a, b in combinations(groups, 2):
            found = equivalence(groups[a], self.smallest, groups[b])
            p = float(found.p)
            yield {
                "claim": f"{claim}: gaps of two groups differ by less than {self.smallest:g}", "group": f"{a} - {b}",
                "site": site, "language_a": "*", "language_b": "*", "n": int(found.n),
                "estimate": float(found.estimate), "low": float(found.low), "high": float(found.high),
                "null": self.smallest, "p": p, "verdict": _word(p, supported=p < ALPHA),
            }  # fmt: skip


def _word(p: float, *, supported: bool) -> str:
    if np.isnan(p):
        return NOT_TESTABLE
    return SUPPORTED if supported else NOT_DISTINGUISHABLE


def _row(study: Study, claim: str, site: str, group: str, gaps: Floats) -> dict[str, Any]:
    """One gap, (pair, item), with items and languages resampled."""
    n_items, n_languages = gaps.shape[1], len(study.languages)
    items = bootstrap_weights(n_items, study.n_boot, stream(study.seed, "bootstrap", group))
    languages = bootstrap_weights(n_languages, study.n_boot, stream(study.seed, "languages"))
    pairs = pair_weights(languages, language_pairs(n_languages))
    drawn = pigeonhole_means(gaps.T[None], items, pairs)
    low, high = interval(drawn, 0.95)
    alone = interval(resampled_means(mean_of_defined(gaps, axis=0)[None], items), 0.95)
    defined = drawn[~np.isnan(drawn)]
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    p = float(min(1.0, 2 * (1 + tail) / (1 + len(defined)))) if n_languages >= MIN_LANGUAGES else float("nan")
    supported = p < ALPHA and bool(low[0] > 0 or high[0] < 0)
    return {
        "claim": f"{claim} (items alone: [{alone[0][0]:.3f}, {alone[1][0]:.3f}])", "group": group, "site": site,
        "language_a": "*", "language_b": "*", "n": n_items,
        "estimate": float(mean_of_defined(mean_of_defined(gaps, axis=0))), "low": float(low[0]), "high": float(high[0]),
        "null": 0.0, "p": p, "verdict": _word(p, supported=supported),
    }  # fmt: skip


recipe = LanguagesInGeneral()
