"""Which similarity deserves trust: the one that predicts what the model answers, item by item within a language."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from babelscope.analyses.adjusted import LEXICAL, lexical_covariates, log_odds
from babelscope.analyses.inference import PairCorrelation, pair_correlation
from babelscope.analyses.item_gaps import by_language, group_places, item_gaps
from babelscope.analyses.pairs import language_pairs
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
        rows, layers, languages, across, adjusted = [list[dict[str, Any]]() for _ in range(5)]
        lexical = _lexical(study, self.source)
        names = [name.strip() for name in self.metrics.split(",") if name.strip()]
        for gaps in item_gaps(study, names, self.info.title):
            places = group_places(study)[gaps.group]
            own, known = correct[:, places], lexical[..., places]
            for outcome in OUTCOMES:
                place = {"metric": gaps.metric, "variant": gaps.variant, "outcome": outcome, "group": gaps.group,
                         "site": gaps.site}  # fmt: skip
                within = {x: self._within(study, v, own, outcome, gaps.group) for x, v in gaps.by_layer.items()}
                pairs = {x: _across(study, v, own, outcome, gaps.group) for x, v in gaps.by_layer.items()}
                rows += [_claim(place, within[None]), _pair_claim(place, pairs[None], own.shape[1])]
                for x, v in gaps.by_layer.items():
                    adjusted.append({**place, "layer": x, **self._adjusted(study, v, own, outcome, known)})
                layers += ({**place, **row} for row in _by_layer(within))
                for x, found in within.items():
                    languages += ({**place, "layer": x, **row} for row in _by_language(study.languages, found))
                    across.append({**place, "layer": x, **_pair_columns(pairs[x], found)})
        table, by_layer = pd.DataFrame(rows), pd.DataFrame(layers)
        table["q"] = table.groupby("claim")["p"].transform(benjamini_hochberg)
        table["verdict"] = verdicts(table["estimate"], table["low"], table["high"], table["q"], table["n"])
        family = [by_layer[name] for name in ("metric", "variant", "outcome")]
        by_layer["q"] = by_layer.groupby([*family, by_layer["layer"].isna()])["p"].transform(benjamini_hochberg)
        over_pairs, beside = pd.DataFrame(across), pd.DataFrame(adjusted)
        family = [beside[name] for name in ("metric", "variant", "outcome")]
        beside["q"] = beside.groupby([*family, beside["layer"].isna()])["p"].transform(benjamini_hochberg)
        for row in over_pairs[over_pairs["signs_differ"] & over_pairs["layer"].isna()].to_dict("records"):
            study.note(
                f"{row['metric']} {row['variant']} at {row['site']}, {row['outcome']}: within languages the sign is "
                "another than across them (Simpson's paradox); trust the one within"
            )
        details = {
            "layers": by_layer, "languages": pd.DataFrame(languages), "adjusted": beside, "across": over_pairs,
        }  # fmt: skip
        about = self._about(study)
        return [
            Result("predictive_validity", claims_table(_records(table)), about),
            *(Result(f"predictive_validity_{k}", t.astype({"layer": "Int64"}), about) for k, t in details.items()),
        ]

    def _within(self, study: Study, gaps: Floats, correct: Floats, outcome: str, group: str) -> Prediction:
        """Prediction of an outcome by the gaps (pair, item) of one group."""
        source = study.languages.index(self.source)
        known, items = outcomes(correct, source if outcome == "transfer" else None)
        values = self._by_item(study, gaps)[:, items]
        rng = stream(study.seed, "predictive validity", group, outcome)
        n = len(items)
        weights = bootstrap_weights(n, study.n_boot, rng) if n else np.empty((study.n_boot, 0))
        order = rng.permuted(np.tile(np.arange(n, dtype=np.int32), (study.n_perm, 1)), axis=1)
        return predicted(values, known, weights, order)

    def _by_item(self, study: Study, gaps: Floats) -> Floats:
        source = study.languages.index(self.source) if self.partner == "source" else None
        return by_language(gaps, len(study.languages), source)

    def _adjusted(self, study: Study, gaps: Floats, correct: Floats, outcome: str, lexical: Floats) -> dict[str, Any]:
        """The same beside the lexical covariates (covariate, language, item)."""
        source = study.languages.index(self.source)
        known, items = outcomes(correct, source if outcome == "transfer" else None)
        found = log_odds(self._by_item(study, gaps)[:, items], known, lexical[..., items])
        return {
            "n": found.n_items, "n_answers": found.n_answers, "log_odds": found.estimate, "low": found.low,
            "high": found.high, "null": 0.0, "p": found.p,
        }  # fmt: skip

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
            "adjusted": "change of the log-odds for a standard deviation of the gap within a language, beside "
            f"{' and '.join(LEXICAL)}; logistic regression with an intercept for each language, errors clustered by "
            "item",
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


def _lexical(study: Study, source: str) -> Floats:
    """Lexical covariates of a study; none where the store kept no texts."""
    if not study.store.has_texts:
        study.note("predictive-validity is not adjusted for words: the store kept no texts of its prompts")
        return np.empty((0, len(study.languages), len(study.items)))
    answers = study.store.answers
    n_tokens = dict(zip(zip(answers["language"], answers["item"], strict=True), answers["n_tokens"], strict=True))
    return lexical_covariates(study.prompts, source, n_tokens)


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
