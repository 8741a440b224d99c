"""The contrast of knowledge-free reasoning with retrieval, and how much of it template, rule or letter explain."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import pandas as pd

from babelscope.analyses.grid import parse_sweep
from babelscope.analyses.ladder import Gaps, grid_contrast, part_explained, verdict_on_ladder
from babelscope.analyses.metric import Sweep
from babelscope.analyses.pairs import SMALLEST_STRATUM
from babelscope.analyses.plan import chosen_metrics
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.runner import Estimated, estimated
from babelscope.analyses.statistics import (
    NOT_TESTABLE,
    STABLE_SHARE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
    Contrast,
    benjamini_hochberg,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.analyses.tables import contrast_table
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import Result

# What prompts of one kind can have in common besides their question, from coarse to fine.
LADDER = ("template", "rule", "gold")

Rung = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnowledgeContrast:
    """Difference of two groups' gaps, under nulls that share more and more with the item.

    The first rung compares an item with all items of its group, the next with those of its template, then of its
    template and rule, and so on. What a difference loses from the first rung to a later one was not about the question.

    Parameters
    ----------
    metric : str
        Name of a metric, as nao or cs.
    within : str
        Covariates of the ladder, as `rule,gold`. Default: those of template, rule and gold that vary within a group.
    sweep : str
        Grid over which gaps are averaged. Default: the published one where the metric has a threshold, else none.
    """

    metric: str = "nao"
    within: str = ""
    sweep: str = ""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Knowledge-free reasoning against retrieval, with template, rule and letter matched",
        question="Is the difference between two groups of items about their questions?",
        reads=(),
        needs_model=False,
        source="arXiv:2406.16655, section 5.4, with restricted nulls",
    )

    def run(self, study: Study) -> list[Result]:
        """The claims, then the parts explained as shares, then every rung layer by layer.

        Raises
        ------
        BabelScopeError
            With fewer than two groups, without a covariate that varies, and as `analyze` does.
        """
        if len(study.groups) < 2:
            raise BabelScopeError("one group of items has no contrast", "name a covariate of two values with --by")
        names = self._covariates(study)
        rungs = [names[:k] for k in range(len(names) + 1)]
        found = {rung: self._estimated(study, rung) for rung in rungs if _has_null(study, rung)}
        rows = [row for pair in combinations(study.groups, 2) for row in _ladders(study, rungs, found, pair)]
        _judge(rows)
        layers = pd.concat([_layers(study, rung, part) for rung, part in found.items()], ignore_index=True)
        about = {**study.provenance(), "parameters": repr(self), "ladder": [_named(rung) for rung in rungs], **MEANING}
        return [
            Result("knowledge_contrast", claims_table(row["claim"] for row in rows), about),
            Result("knowledge_contrast_shares", pd.DataFrame([row["share"] for row in rows if "share" in row]), about),
            Result("knowledge_contrast_layers", layers, about),
        ]

    def _covariates(self, study: Study) -> Rung:
        known = study.store.covariates
        if self.within:
            chosen = tuple(dict.fromkeys(name.strip() for name in self.within.split(",") if name.strip()))
            for name in chosen:
                if name not in known:
                    raise unknown_name(f"covariate of the items in {study.store.path}", name, map(str, known.columns))
            return chosen
        varying = tuple(
            name
            for name in LADDER
            if name in known and any(known[name].loc[list(items)].nunique() > 1 for items in study.groups.values())
        )
        if not varying:
            raise BabelScopeError(
                f"none of {', '.join(LADDER)} varies within a group of {study.store.path}",
                "name other covariates of the items with --set within=NAME,NAME",
            )
        return varying

    def _estimated(self, study: Study, within: Rung) -> Estimated:
        return estimated(
            study.store, [self.metric], sites=study.sites, languages=study.languages, position=str(study.position),
            by=study.by, within=within, sweep=self._grid(), mode="corrected", marked="keep", seed=study.seed,
            n_boot=study.n_boot, n_perm=study.n_perm, jobs=study.jobs, progress=study.progress, only=study.items,
        )  # fmt: skip

    def _grid(self) -> Sweep:
        if self.sweep:
            return dict([parse_sweep(self.sweep)])
        (metric,) = chosen_metrics([self.metric], {}).values()
        return dict([parse_sweep("threshold=0.1:0.9:0.1")]) if "threshold" in metric.info.sweepable else {}


MEANING: Mapping[str, str] = {
    "contrast": "mean gap of the first group minus that of the second, each over the mismatched items that the rung "
    "leaves in its null, averaged over the grid",
    "explained": "what the contrast loses from the first rung, over the items that have a null on both",
    "interval": "percentile bootstrap over items, 95%; the same resamples on all rungs",
    "p": "studentized permutation of group labels, two-sided, add-one rule",
    "q": "Benjamini-Hochberg over all contrasts, and over all parts",
    "verdict": "explained by template or letter: supported on the first rung and not, or the other way around, on this "
    "one, with a part explained whose interval lies on the side of the first contrast",
}


def _has_null(study: Study, rung: Rung) -> bool:
    """Whether every group has items enough that share all of a rung."""
    sizes = (study.store.covariates.loc[list(items), list(rung)].value_counts() for items in study.groups.values())
    return not rung or all(len(n) and n.max() >= SMALLEST_STRATUM for n in sizes)


def _named(rung: Rung) -> str:
    return f"within {' and '.join(rung)}" if rung else "all items"


def _ladders(
    study: Study, rungs: list[Rung], found: Mapping[Rung, Estimated], groups: tuple[str, str]
) -> list[dict[str, Any]]:
    """Rows of every metric variant and site: the contrast on each rung, and the part that each explains."""
    gaps = {rung: _gaps(part, groups) for rung, part in found.items()}
    by_name = {g.name: g.resamples.weights for g in found[()].groups}
    weights = (by_name[groups[0]], by_name[groups[1]])
    rows: list[dict[str, Any]] = []
    for place, first in gaps[()].items():
        variant, site = place
        for rung in rungs:
            of = {"group": " - ".join(groups), "site": site, "language_a": "*", "language_b": "*", "null": 0.0}
            claim = {**of, "claim": f"{variant}: contrast, {_named(rung)}", "n": 0, "verdict": NOT_TESTABLE}
            if rung not in found:
                rows.append({"kind": "contrast", "claim": claim})
                continue
            then = gaps[rung][place]
            rng = stream(study.seed, "ladder", *groups)
            contrast, stability = grid_contrast(then, weights, n_perm=study.n_perm, rng=rng)
            row = {"kind": "contrast", "place": (place, groups), "rung": rung, "contrast": contrast}
            row["claim"] = {**claim, **_numbers(contrast), "stability": stability}
            rows.append(row)
            if rung:
                part = part_explained(first, then, weights, n_perm=study.n_perm, rng=rng)
                row["part"] = part
                named = {**of, "claim": f"{variant}: explained, {_named(rung)}", **_numbers(part.loss)}
                share = {"share": part.share, "low": part.share_low, "high": part.share_high}
                about = {"variant": variant, "group": of["group"], "site": site, "within": " and ".join(rung)}
                rows.append({"kind": "part", "claim": named, "share": {**about, "n": named["n"], **share}})
    return rows


def _gaps(part: Estimated, groups: tuple[str, str]) -> dict[tuple[str, str], Gaps]:
    """(variant, site) -> gaps over layers, thresholds apart."""
    overall = {
        (e.group, e.site): e for estimates in part.estimates.values() for e in estimates
        if e.layer is None and e.head is None
    }  # fmt: skip
    found = {}
    for (group, site), e in overall.items():
        if group == groups[0]:
            other = overall[groups[1], site]
            for name in dict.fromkeys(variant for variant, _ in e.variants):
                rows = [k for k, (variant, _) in enumerate(e.variants) if variant == name]
                found[f"{e.metric} {name}", site] = Gaps(e.gap_items[rows], other.gap_items[rows])
    return found


def _numbers(found: Contrast) -> dict[str, Any]:
    return {
        "n": int(min(found.n_a, found.n_b)), "estimate": float(found.estimate), "low": float(found.low),
        "high": float(found.high), "p": float(found.p),
    }  # fmt: skip


def _judge(rows: list[dict[str, Any]]) -> None:
    """Corrected p-values and verdicts, contrasts and parts apart."""
    for kind in ("contrast", "part"):
        claims = [row["claim"] for row in rows if row["kind"] == kind and "estimate" in row["claim"]]
        table = pd.DataFrame(claims, columns=["estimate", "low", "high", "p", "n"])
        q = benjamini_hochberg(table["p"])
        words = verdicts(table["estimate"], table["low"], table["high"], q, table["n"])
        for claim, value, word in zip(claims, q, words, strict=True):
            claim["q"], claim["verdict"] = float(value), str(word)
    first: dict[Any, str] = {}
    for row in rows:
        if "rung" in row:
            claim, place = row["claim"], row["place"]
            if claim["verdict"] == SUPPORTED and claim["stability"] < STABLE_SHARE:
                claim["verdict"] = THRESHOLD_DEPENDENT
            if row["rung"]:
                claim["verdict"] = verdict_on_ladder(first[place], row["contrast"], claim["verdict"], row["part"])
            else:
                first[place] = claim["verdict"]


def _layers(study: Study, rung: Rung, part: Estimated) -> pd.DataFrame:
    table = contrast_table(
        [e for estimates in part.estimates.values() for e in estimates],
        {g.name: g.resamples.weights for g in part.groups},
        position=str(study.position), n_perm=study.n_perm, seed=study.seed,
    )  # fmt: skip
    table.insert(0, "within", _named(rung))
    return table


recipe = KnowledgeContrast()
