"""Which similarity deserves trust: the one that predicts what the model answers, item by item within a language."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.inference import PairCorrelation, pair_correlation
from babelscope.analyses.metric import PairMeasure
from babelscope.analyses.pairs import language_pairs, score_pairs
from babelscope.analyses.plan import Task, chosen_metrics, default_metrics, tasks
from babelscope.analyses.prediction import Prediction, outcomes, pair_outcomes, predicted
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    max_t,
    mean_of_defined,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

OUTCOMES = ("correct", "transfer")


@dataclass(slots=True)
class _Gaps:
    """Gaps of one metric, variant and site in one group: (pair, item) by layer, and their mean over layers."""

    metric: str
    variant: str
    site: str
    group: str
    by_layer: dict[int | None, Floats]


@dataclass(frozen=True, slots=True)
class PredictiveValidity:
    """Correlation of the gap of an item with whether it is right, and with whether it transfers.

    Parameters
    ----------
    metrics : str
        Comma-separated names; "" for those that the store can feed.
    source : str
        The language from which knowledge is to transfer.
    partner : str
        "source": the gap of an item in a language is that of the pair with the source; "all": the mean over all pairs
        with the language.
    """

    metrics: str = ""
    source: str = "en"
    partner: str = "source"

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Predictive validity",
        question="Does a similarity predict which items are right, and which transfer?",
        reads=(),
        needs_model=False,
        source="rank-biserial correlation, Cureton 1956; relabeled languages, Mantel 1967",
    )

    def run(self, study: Study) -> list[Result]:
        """`predictive_validity`, then correlations by layer, within every language, and over pairs of languages.

        Raises
        ------
        BabelScopeError
            If the store holds no answers, lacks the source, or a metric gives no gap per item.
        """
        correct = _correct(study)
        if self.source not in study.languages:
            raise BabelScopeError(
                f"predictive-validity needs the source {self.source}; the languages are {', '.join(study.languages)}",
                f"name another with --set source={study.languages[0]}",
            )
        if self.partner not in ("source", "all"):
            raise BabelScopeError(f"there is no partner {self.partner!r}", "choose source or all")
        rows, layers, languages, across = [list[dict[str, Any]]() for _ in range(4)]
        for gaps in self._gaps(study):
            own = correct[:, _places(study)[gaps.group]]
            for outcome in OUTCOMES:
                place = {"metric": gaps.metric, "variant": gaps.variant, "outcome": outcome, "group": gaps.group,
                         "site": gaps.site}  # fmt: skip
                within = {x: self._within(study, v, own, outcome, gaps.group) for x, v in gaps.by_layer.items()}
                pairs = {x: _across(study, v, own, outcome, gaps.group) for x, v in gaps.by_layer.items()}
                rows += [_claim(place, within[None]), _pair_claim(place, pairs[None], own.shape[1])]
                layers += ({**place, **row} for row in _by_layer(within))
                for x, found in within.items():
                    languages += ({**place, "layer": x, **row} for row in _by_language(study.languages, found))
                    across.append({**place, "layer": x, **_pair_columns(pairs[x], found)})
        table, by_layer = pd.DataFrame(rows), pd.DataFrame(layers)
        table["q"] = table.groupby("claim")["p"].transform(benjamini_hochberg)
        table["verdict"] = verdicts(table["estimate"], table["low"], table["high"], table["q"], table["n"])
        family = [by_layer[name] for name in ("metric", "variant", "outcome")]
        by_layer["q"] = by_layer.groupby([*family, by_layer["layer"].isna()])["p"].transform(benjamini_hochberg)
        over_pairs = pd.DataFrame(across)
        for row in over_pairs[over_pairs["signs_differ"] & over_pairs["layer"].isna()].to_dict("records"):
            study.note(
                f"{row['metric']} {row['variant']} at {row['site']}, {row['outcome']}: within languages the sign is "
                "another than across them (Simpson's paradox); trust the one within"
            )
        details = {"layers": by_layer, "languages": pd.DataFrame(languages), "across": over_pairs}
        about = self._about(study)
        return [
            Result("predictive_validity", claims_table(_records(table)), about),
            *(Result(f"predictive_validity_{k}", t.astype({"layer": "Int64"}), about) for k, t in details.items()),
        ]

    def _gaps(self, study: Study) -> Iterator[_Gaps]:
        """Gaps of every metric and variant, one site and layer in memory at a time."""
        names = [name.strip() for name in self.metrics.split(",") if name.strip()]
        if not names:
            names, _ = default_metrics(study.store, study.sites, study.position, "corrected")
        work = tasks(study.store, chosen_metrics(names, {}), study.sites, study.position, "corrected")
        found: dict[tuple[str, str, str, str], _Gaps] = {}
        for done, task in enumerate(work, start=1):
            measures = _pair_measures(task)
            block = study.block(task.site)
            rows = block.reshape(*block.shape[:2], -1)
            for group, places in _places(study).items():
                no_shuffles = np.empty((0, len(rows), len(places)), dtype=np.int32)
                scores = score_pairs(rows[:, places], measures, no_shuffles).scores
                for k, measure in enumerate(measures):
                    key = (task.name, _named(measure), task.site.name, group)
                    found.setdefault(key, _Gaps(*key, {})).by_layer[task.site.layer] = scores.gap[k]
            study.progress(done, len(work), f"predictive-validity {task.name} {task.site}")
        for gaps in found.values():
            if None not in gaps.by_layer:
                layers = np.stack(list(gaps.by_layer.values()))
                gaps.by_layer[None] = mean_of_defined(layers, axis=0)
            yield gaps

    def _within(self, study: Study, gaps: Floats, correct: Floats, outcome: str, group: str) -> Prediction:
        """Prediction of an outcome by the gaps (pair, item) of one group."""
        source = study.languages.index(self.source)
        known, items = outcomes(correct, source if outcome == "transfer" else None)
        values = _by_item(gaps, len(study.languages), source if self.partner == "source" else None)[:, items]
        rng = stream(study.seed, "predictive validity", group, outcome)
        n = len(items)
        weights = bootstrap_weights(n, study.n_boot, rng) if n else np.empty((study.n_boot, 0))
        order = rng.permuted(np.tile(np.arange(n, dtype=np.int32), (study.n_perm, 1)), axis=1)
        return predicted(values, known, weights, order)

    def _about(self, study: Study) -> dict[str, Any]:
        return {
            **study.provenance(), "title": self.info.title, "source": self.source, "partner": self.partner,
            "correct": "the best-scored option is the gold one",
            "transfer": f"right in a language, of the items that are right in {self.source}",
            "within": "rank-biserial correlation over the items of a language, averaged over languages with "
            f"{MIN_ITEMS} right and {MIN_ITEMS} wrong items; interval: percentile bootstrap over items, 95%; p: "
            "outcomes shuffled between items, alike in all languages, two-sided, add-one rule",
            "across": "Pearson correlation over pairs of languages of mean gap and mean accuracy, or mean over both "
            "directions of the share right there of those right here; interval: jackknife over languages; p: languages "
            "relabeled, two-sided",
            "null": "0: no correlation",
            "q": "Benjamini-Hochberg within a claim over sites and groups; by layer over layers, sites and groups",
            "p_max": "of a layer among all layers: the highest standardized correlation of every shuffle",
        }  # fmt: skip


def _correct(study: Study) -> Floats:
    """(language, item): whether each item of the study was answered correctly; NaN where unknown.

    Raises
    ------
    BabelScopeError
        If no answer is known.
    """
    answers = study.store.answers.pivot(index="language", columns="item", values="correct")
    found: Floats = answers.reindex(index=list(study.languages), columns=list(study.items)).to_numpy(dtype=np.float64)
    if np.isnan(found).all():
        raise BabelScopeError(
            f"{study.store.path} does not know which answers are right",
            "capture prompts with options and a gold one, without --answers none",
        )
    return found


def _places(study: Study) -> dict[str, NDArray[np.int64]]:
    """Places of the items of each group among those of the study."""
    ends = np.cumsum([0, *(len(items) for items in study.groups.values())])
    return {name: np.arange(ends[k], ends[k + 1]) for k, name in enumerate(study.groups)}


def _pair_measures(task: Task) -> tuple[PairMeasure, ...]:
    measures = tuple(m for m in task.metric.measures({}) if isinstance(m, PairMeasure))
    if not measures or task.metric.info.per_head:
        raise BabelScopeError(
            f"metric {task.name} has no gap per item and pair of languages", "name others with --set metrics=cs,nao"
        )
    return measures


def _named(measure: PairMeasure) -> str:
    return measure.variant + ("" if np.isnan(measure.threshold) else f" {measure.threshold:g}")


def _by_item(gaps: Floats, n_languages: int, source: int | None) -> Floats:
    """(language, item): gap of the pair with the source, NaN in the source itself; without one, mean over all pairs."""
    pairs = language_pairs(n_languages)
    found = np.full((n_languages, gaps.shape[1]), np.nan)
    for language in range(n_languages):
        own = [k for k, pair in enumerate(pairs) if language in pair and (source is None or source in pair)]
        if source is None or language != source:
            found[language] = mean_of_defined(gaps[own], axis=0)
    return found


def _across(study: Study, gaps: Floats, correct: Floats, outcome: str, group: str) -> PairCorrelation:
    pairs = language_pairs(len(study.languages))
    behavior = pair_outcomes(correct, pairs, transfer=outcome == "transfer")
    return pair_correlation(
        mean_of_defined(gaps), behavior, pairs, n_perm=study.n_perm,
        rng=stream(study.seed, "relabeled languages", group),
    )  # fmt: skip


def _claim(place: Mapping[str, Any], found: Prediction) -> dict[str, Any]:
    counted = ~np.isnan(found.each)
    return {
        **_common(place, "within languages"), "n": int(found.n[counted].max(initial=0)), "estimate": found.estimate,
        "low": found.low, "high": found.high, "p": found.p,
    }  # fmt: skip


def _pair_claim(place: Mapping[str, Any], found: PairCorrelation, n_items: int) -> dict[str, Any]:
    return {
        **_common(place, "across languages"), "n": n_items, "estimate": found.estimate, "low": found.low,
        "high": found.high, "p": found.p,
    }  # fmt: skip


def _common(place: Mapping[str, Any], where: str) -> dict[str, Any]:
    claim = f"{place['metric']} {place['variant']}: predicts {place['outcome']}, {where}"
    return {
        "claim": claim, "group": place["group"], "site": place["site"],
        "language_a": "*", "language_b": "*", "null": 0.0,
    }  # fmt: skip


def _by_layer(within: Mapping[int | None, Prediction]) -> Iterator[dict[str, Any]]:
    """Correlations within languages of one curve, with the p of each layer among all of them."""
    layers = [x for x in within if x is not None]
    among = dict[int | None, float]()
    if layers:
        found = [within[x] for x in layers]
        highest = max_t(np.abs([f.estimate for f in found]), np.abs(np.stack([f.permuted for f in found])))
        among = dict(zip(layers, map(float, highest), strict=True))
    for layer, found_in in within.items():
        counted = ~np.isnan(found_in.each)
        yield {
            "layer": layer, "n": int(found_in.n[counted].max(initial=0)), "n_languages": int(counted.sum()),
            "correlation": found_in.estimate, "low": found_in.low, "high": found_in.high, "null": 0.0, "p": found_in.p,
            "p_max": among.get(layer, np.nan),
        }  # fmt: skip


def _by_language(languages: Sequence[str], found: Prediction) -> Iterator[dict[str, Any]]:
    for k, language in enumerate(languages):
        yield {
            "language": language, "n": int(found.n[k]), "n_right": int(found.n_right[k]),
            "correlation": float(found.each[k]), "low": float(found.each_low[k]), "high": float(found.each_high[k]),
            "null": 0.0,
        }  # fmt: skip


def _pair_columns(pairs: PairCorrelation, within: Prediction) -> dict[str, Any]:
    sure = (pairs.low > 0 or pairs.high < 0) and (within.low > 0 or within.high < 0)
    return {
        "n_pairs": pairs.n_pairs, "n_languages": pairs.n_languages, "correlation": pairs.estimate, "low": pairs.low,
        "high": pairs.high, "null": 0.0, "p": pairs.p, "within": within.estimate, "within_low": within.low,
        "within_high": within.high, "signs_differ": bool(sure and pairs.estimate * within.estimate < 0),
    }  # fmt: skip


def _records(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    return ({str(k): v for k, v in row.items()} for row in table.to_dict("records"))


recipe = PredictiveValidity()
