"""Which language the layers speak: the logit lens on the answers of parallel items, and on the scripts of tokens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.bands import MIDDLE, layer_thirds
from babelscope.analyses.latent import (
    LEVEL,
    AnswerScores,
    AnswerTokens,
    answer_scores,
    mass_rows,
    mean_scores,
)
from babelscope.analyses.latent_tokens import answer_tokens, script_classes
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    Resamples,
    benjamini_hochberg,
    interval,
    mean_of_defined,
    paired,
    resample,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel
    from babelscope.hooks.interventions.lens import Reading

SITE = "resid.post"
LAW_PROMPTS = 4


@dataclass(slots=True)
class _Group:
    """Scores of one group of items, as the layers pass: (layer, language, answer language)."""

    name: str
    rows: NDArray[np.int64]
    resamples: Resamples
    scores: dict[tuple[int, str, str], AnswerScores]


@dataclass(frozen=True, slots=True)
class LatentLanguage:
    """Probability of each item's answer in every language, layer by layer, against the answers of other items.

    Parameters
    ----------
    pivot : str
        The language that the middle layers may speak.
    """

    pivot: str = "en"

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Latent language",
        question="Do the middle layers hold the answer in English before the language of the prompt?",
        reads=(SITE,),
        needs_model=True,
        source="Wendler et al. 2024, arXiv:2402.10588; answers of mismatched items and script mass are ours",
    )

    def run(self, study: Study) -> list[Result]:
        """`latent_language`, and by layer differences, probabilities of answers, masses of scripts, and entropies.

        Raises
        ------
        BabelScopeError
            If the languages lack the pivot, no item has an answer, or the model predicts no next token.
        """
        from babelscope.hooks.interventions.lens import lens, vocabulary_size  # torch is imported here and not before

        name = f"dec.{SITE}" if any(s.name == f"dec.{SITE}" for s in study.store.plan.sites) else SITE
        sites = study.layers(name)
        if self.pivot not in study.languages:
            raise BabelScopeError(
                f"latent-language needs the answers in {self.pivot}; the languages are {', '.join(study.languages)}",
                f"add {self.pivot} to --languages, or name another with --set pivot={study.languages[0]}",
            )
        loaded = study.model
        answers, size = answer_tokens(study, loaded), vocabulary_size(loaded)
        classes, names = script_classes(study, loaded, size)
        groups = _groups(study)
        layers, scripts, entropies = [list[dict[str, Any]]() for _ in range(3)]
        error = np.nan
        for done, site in enumerate(sites, start=1):
            assert site.layer is not None, "resid.post exists once per layer"
            block = study.block(site)
            readings = {
                language: lens(loaded, block[k], answers.tokens, classes, language=language)
                for k, language in enumerate(study.languages)
            }
            for group in groups:
                place = {"group": group.name, "layer": site.layer}
                layers += [{**place, **row} for row in self._scored(group, site.layer, readings, answers)]
                masses = {g: r.masses[group.rows] for g, r in readings.items()}
                scripts += [{**place, **row} for row in mass_rows(masses, names, group.resamples.weights)]
                entropies += [{**place, **row} for row in _entropies(readings, group, size)]
            if site.layer == study.store.plan.model.n_layers - 1 and str(study.position) == "last":
                error = _law_error(study, loaded, readings[study.languages[0]], answers)
            study.progress(done, len(sites), f"latent-language {site}")
        stored = [s.layer for s in sites if s.layer is not None]
        about = self._about(study, answers, error)
        return [
            Result("latent_language", self._claims(study, groups, name, stored), about),
            Result("latent_language_differences", self._differences(study, groups, stored), about),
            Result("latent_language_layers", _corrected(pd.DataFrame(layers)), about),
            Result("latent_language_scripts", pd.DataFrame(scripts), about),
            Result("latent_language_entropy", pd.DataFrame(entropies), about),
        ]

    def _scored(
        self, group: _Group, layer: int, readings: "dict[str, Reading]", answers: AnswerTokens
    ) -> Iterator[dict[str, Any]]:
        """Rows of answers by language of the prompt and of the answer; the scores are kept in the group."""
        languages, pivot = list(readings), list(readings).index(self.pivot)
        part = AnswerTokens(answers.tokens, answers.members[:, :, group.rows])
        for a, language in enumerate(languages):
            probabilities = readings[language].probabilities[group.rows]
            # What is compared with the pivot stands on the items that can be told apart from it.
            against = [pivot if b == a else b for b in range(len(languages))]
            counts = [part.apart(a, b) if b != a else part.answered(a) for b in against]
            S = np.stack([part.matrix(probabilities, b, counts[b]) for b in range(len(languages))])
            for b, found in enumerate(answer_scores(S, group.resamples.permutations[:, a])):
                if b in (a, pivot):
                    group.scores[layer, language, languages[b]] = found
                columns = found.columns(group.resamples.weights)
                probability = float(mean_of_defined(found.matched))
                answered = part.answered(a) & part.answered(against[b])
                yield {
                    "language": language, "answer_language": languages[b], "n": columns["n"],
                    "n_same_tokens": int((answered & ~counts[b]).sum()), "n_no_answer": int((~answered).sum()),
                    "probability": probability, "null": probability - columns["estimate"], "gap": columns["estimate"],
                    "low": columns["low"], "high": columns["high"], "p": columns["p"],
                }  # fmt: skip

    def _claims(self, study: Study, groups: Sequence[_Group], site: str, layers: list[int]) -> pd.DataFrame:
        """Claims on the middle and on the last layer, of every language and of all but the pivot ("*")."""
        n_layers = study.store.plan.model.n_layers
        bands = {
            "middle layers": layer_thirds(layers, n_layers)[MIDDLE],
            "last layer": [x for x in layers if x == n_layers - 1],
        }
        others = [g for g in study.languages if g != self.pivot]
        rows: list[dict[str, Any]] = []
        for group in groups:
            for where, chosen in bands.items():
                for language in [*study.languages, *(["*"] if others else [])]:
                    spoken = others if language == "*" else [language]
                    place = {"group": group.name, "site": site, "language_a": language, "language_b": self.pivot}
                    claims = self._claims_of(study, group, spoken, chosen, where)
                    rows += ({**place, **row, "claim": f"{row['claim']}, {where}"} for row in claims)
        table = pd.DataFrame(rows)
        families = [table["claim"], table["language_a"] == "*"]
        table["q"] = table.groupby(families)["p"].transform(benjamini_hochberg)
        table["verdict"] = verdicts(table["estimate"], table["low"], table["high"], table["q"], table["n"])
        # Every claim has a direction: the opposite of it is no support.
        wrong = (table["estimate"] < 0) & (table["verdict"] != NOT_TESTABLE)
        table.loc[wrong, "verdict"] = NOT_DISTINGUISHABLE
        return claims_table({str(k): v for k, v in row.items()} for row in table.to_dict("records"))

    def _claims_of(
        self, study: Study, group: _Group, spoken: Sequence[str], layers: Sequence[int], where: str
    ) -> Iterator[dict[str, Any]]:
        weights, pivot, named = group.resamples.weights, self.pivot, "the input language"
        if spoken == [pivot]:
            if layers:
                yield {
                    "claim": f"answer in {pivot} above other items",
                    **self._own(group, spoken, layers).columns(weights),
                }
            return
        claim = f"{pivot} above {named}" if where == "middle layers" else f"{named} above {pivot}"
        if not layers:
            yield {"claim": claim, "n": 0, "null": 0.0}
            return
        own, other = self._own(group, spoken, layers), self._in_pivot(group, spoken, layers)
        yield {"claim": f"answer in {named} above other items", **own.columns(weights)}
        yield {"claim": f"answer in {pivot} above other items", **other.columns(weights)}
        if where == "last layer":
            yield {"claim": claim, **_above(study, group, other, own)}
            return
        lows = [
            _above(study, group, self._own(group, spoken, [x]), self._in_pivot(group, spoken, [x]))["low"]
            for x in layers
        ]
        yield {"claim": claim, **_above(study, group, own, other), "stability": float(np.mean([x > 0 for x in lows]))}

    def _own(self, group: _Group, spoken: Sequence[str], layers: Sequence[int]) -> AnswerScores:
        """Of answers in the language of the prompt, over some languages and layers."""
        return mean_scores([group.scores[layer, g, g] for layer in layers for g in spoken])

    def _in_pivot(self, group: _Group, spoken: Sequence[str], layers: Sequence[int]) -> AnswerScores:
        """Of answers in the pivot to the same prompts."""
        return mean_scores([group.scores[layer, g, self.pivot] for layer in layers for g in spoken])

    def _differences(self, study: Study, groups: Sequence[_Group], layers: list[int]) -> pd.DataFrame:
        """How far the gap of the answer in the pivot is above that in the language of the prompt, layer by layer."""
        rows = [
            {"group": group.name, "layer": layer, "language": g, "pivot": self.pivot,
             **_above(study, group, self._own(group, [g], [layer]), self._in_pivot(group, [g], [layer]))}
            for group in groups for layer in layers for g in study.languages if g != self.pivot
        ]  # fmt: skip
        names = ["group", "layer", "language", "pivot", "n", "estimate", "low", "high", "null", "p"]
        return _corrected(pd.DataFrame(rows, columns=names).rename(columns={"estimate": "difference"}))

    def _about(self, study: Study, answers: AnswerTokens, error: float) -> dict[str, Any]:
        pivot = study.languages.index(self.pivot)
        apart = {
            g: int(answers.apart(k, pivot).sum()) for k, g in enumerate(study.languages) if k != pivot
        }  # fmt: skip
        return {
            **study.provenance(), "title": self.info.title, "pivot": self.pivot, "items_apart_from_pivot": apart,
            "lens": "softmax(W_U Norm(h)) through the model's own final norm, unembedding, scales and soft caps",
            "answer": "first tokens of the gold answer, with and without a space before it; items whose tokens in the "
            "two languages intersect do not count (n_same_tokens)",
            "null": "answers of other items of the group in the same language, in the same distributions",
            "middle layers": "the middle third of the model's layers, fixed",
            "interval": "percentile bootstrap over items, 95%",
            "p": "of an answer: items shuffled, add-one rule, one-sided; of one language above another: signs of the "
            "differences of gaps flipped item by item, two-sided",
            "q": "Benjamini-Hochberg within a claim over groups and languages; by layer over all rows of a group",
            "stability": "share of the middle layers whose interval is above zero",
            "last_layer_error": error,
        }  # fmt: skip


def _groups(study: Study) -> list[_Group]:
    groups, start = [], 0
    for name, items in study.groups.items():
        resamples = resample(
            len(items), study.languages, seed=study.seed, group=name, n_boot=study.n_boot, n_perm=study.n_perm
        )
        groups.append(_Group(name, np.arange(start, start + len(items)), resamples, {}))
        start += len(items)
    return groups


def _entropies(readings: "dict[str, Reading]", group: _Group, size: int) -> Iterator[dict[str, Any]]:
    for language, reading in readings.items():
        own = reading.entropy[group.rows]
        low, high = interval(resampled_means(own, group.resamples.weights), LEVEL)
        yield {
            "language": language, "n": int(np.count_nonzero(~np.isnan(own))), "entropy": float(mean_of_defined(own)),
            "low": float(low), "high": float(high), "null": float(np.log2(size)),
        }  # fmt: skip


def _above(study: Study, group: _Group, lower: AnswerScores, upper: AnswerScores) -> dict[str, float]:
    """Mean difference of gaps over items; its shuffles flip signs, so that they know nothing of which is which."""
    found = paired(
        lower.gap, upper.gap, group.resamples.weights, n_perm=study.n_perm, level=LEVEL,
        rng=stream(study.seed, "latent language", group.name),
    )  # fmt: skip
    n = int(found.n_a)
    p = float(found.p) if n >= MIN_ITEMS else np.nan
    return {
        "n": n, "estimate": float(found.estimate), "low": float(found.low), "high": float(found.high), "null": 0.0,
        "p": p,
    }  # fmt: skip


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    table["q"] = table.groupby("group")["p"].transform(benjamini_hochberg)
    return table


def _law_error(study: Study, loaded: "LoadedModel", reading: "Reading", answers: AnswerTokens) -> float:
    """Largest difference between the lens at the last layer and what the model says, of a few prompts."""
    from babelscope.hooks.interventions.lens import said

    decoder = study.store.plan.decoder or "start"
    own = said(loaded, study.prompts.of(study.languages[0])[:LAW_PROMPTS], answers.tokens, decoder)
    return float(np.abs(own - reading.probabilities[: len(own)]).max())


recipe = LatentLanguage()
