"""Which neurons an answer, or a label, rests on, and whether languages rest on the same ones."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.dissociation import N_FOLDS, corrected_correlation, folds, jackknifed
from babelscope.analyses.rankings import (
    against_shuffles,
    neuron_table,
    probe_weights,
    probeless,
    rank_correlation,
    top_overlap,
)
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import MIN_ITEMS, Floats, stream, verdicts
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Result, Site

Method = Literal[
    "gradient_x_activation",
    "integrated_gradients",
    "attribution_patching",
    "direct_logit",
    "probeless",
    "probe_weights",
]
PROBES = {"probeless": probeless, "probe_weights": probe_weights}
SHUFFLES = 199


@dataclass(frozen=True, slots=True)
class NeuronAttribution:
    """Importance of every neuron for the answer in each language, and what languages share of it.

    Parameters
    ----------
    method : str
        gradient_x_activation, integrated_gradients, attribution_patching or direct_logit, for the answer margin;
        probeless or probe_weights, for the gold option, from stored `mlp.neurons` and without the model.
    top : int
        Neurons that are listed and compared.
    steps : int
        Of integrated gradients.
    """

    method: Method = "gradient_x_activation"
    top: int = 50
    steps: int = 8

    def __post_init__(self) -> None:
        if self.top < 1 or self.steps < 1:
            raise BabelScopeError(f"top={self.top}, steps={self.steps}: both count from 1", "set top=50, steps=8")

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Neuron attribution",
        question="Do answers rest on the same neurons in every language?",
        reads=(),
        needs_model=True,
        source="arXiv:1703.01365, arXiv:2104.08696, arXiv:2110.07483: one method each",
    )

    def run(self, study: Study) -> list[Result]:
        """`neuron_attribution`, then the top neurons of every language."""
        if len(study.languages) < 2:
            raise BabelScopeError("one language shares its neurons with nobody", "name two or more with --languages")
        rows: list[dict[str, Any]] = []
        tables: list[pd.DataFrame] = []
        missing: dict[str, float] = {}
        for group, items in study.groups.items():
            found = self._probed(study, items) if self.method in PROBES else self._attributed(study, items)
            rows += [{"group": group, **row} for row in found.claims(study, group, self.top)]
            tables += [t.assign(group=group) for t in found.tables]
            missing[group] = found.missing
        about = {
            **study.provenance(), "title": self.info.title, "method": self.method,
            "score": "gold option" if self.method in PROBES else "logit(gold) - mean logit(others), last token",
            "null": f"neurons shuffled within their layers, {SHUFFLES} times",
            "interval": "jackknife over ten folds of the items, 95%",
        }  # fmt: skip
        if self.method == "integrated_gradients":
            about["completeness"] = {g: f"median |missing| / |difference| = {m:.3f}" for g, m in missing.items()}
        table = claims_table(rows, family=("claim",))
        above = [table[name] - table["null"] for name in ("estimate", "low", "high")]
        table["verdict"] = verdicts(above[0], above[1], above[2], table["q"], table["n"])
        results = [Result("neuron_attribution", table, about)]
        if tables:
            results.append(Result("neuron_attribution_neurons", pd.concat(tables, ignore_index=True), about))
        return results

    def _attributed(self, study: Study, items: tuple[str, ...]) -> "_Importance":
        from babelscope.hooks import interventions as iv

        loaded = study.model
        sites = [Site("mlp.neurons", layer) for layer in range(loaded.ref.n_layers)]
        at = folds(len(items), stream(study.seed, "attribution"))
        sums, tables, missing = [], [], [0.0]
        for language in study.languages:
            by_item = {p.item: p for p in study.prompts.of(language)}
            prompts = [by_item[item] for item in items]
            found = iv.neuron_gradients(loaded, prompts, sites, study.progress)
            values: NDArray[np.floating] = found.attribution
            if self.method == "attribution_patching":
                values = iv.patching_attribution(found.activation, found.gradient, np.roll(found.activation, 1, axis=0))
            elif self.method == "direct_logit":
                values = iv.direct_contributions(loaded, prompts, sites, found.activation, study.progress)
            elif self.method == "integrated_gradients":
                mean = found.activation.mean(axis=0)
                path = iv.integrated_gradients(
                    loaded, prompts, sites, found.activation, mean, self.steps, study.progress
                )
                values = path.attribution
                whole = np.abs(values.sum(axis=-1) + path.missing)
                missing.append(float(np.median(np.abs(path.missing) / np.maximum(whole, 1e-9))))
            tables.append(neuron_table(values, self.top).assign(language=language))
            size = np.abs(values).reshape(len(items), -1)
            sums.append(np.stack([size[at == f].sum(axis=0, dtype=np.float64) for f in range(N_FOLDS)]))
        counts = np.bincount(at, minlength=N_FOLDS)
        return _Importance(np.stack(sums), counts, found.activation.shape[2], tables, max(missing))

    def _probed(self, study: Study, items: tuple[str, ...]) -> "_Importance":
        sites = study.layers("mlp.neurons")
        gold = study.store.covariates["gold"].loc[list(items)]
        if gold.isna().any() or gold.nunique() < 2:
            raise BabelScopeError("items have no gold option to probe for", "use a method for answers, or other items")
        labels = pd.factorize(gold)[0]
        at = folds(len(items), stream(study.seed, "attribution"))
        scores: list[list[Floats]] = [[] for _ in study.languages]
        for done, site in enumerate(sites, start=1):
            x = study.block(site, items=items)
            kept = np.asarray(has_finite_rows(x).all(axis=0))
            if kept.sum() < MIN_ITEMS:
                raise BabelScopeError(f"{site}: fewer than {MIN_ITEMS} items are finite", "capture in float32")
            for own, rows in zip(scores, x, strict=True):
                with warnings.catch_warnings():
                    # A ranking of weights needs no optimum to the last digit.
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    own.append(np.stack([self._probe(rows, labels, kept & (at != f)) for f in (-1, *range(N_FOLDS))]))
            study.progress(done, len(sites), f"{self.method} {site}")
        whole = np.stack([np.concatenate(own, axis=1) for own in scores])  # (language, all and without a fold, neuron)
        return _Importance(whole, np.array([len(items)]), x.shape[-1], [], 0.0)

    def _probe(self, rows: NDArray[np.generic], labels: NDArray[np.int64], which: NDArray[np.bool_]) -> Floats:
        return PROBES[self.method](rows[which], labels[which])


@dataclass(frozen=True, slots=True, eq=False)
class _Importance:
    """Importance of neurons: summed sizes by fold of items, or rankings of all items and without each fold."""

    values: Floats  # (language, fold, neuron); of probes (language, 1 + fold, neuron)
    counts: NDArray[np.int64]  # items of each fold; of probes, of all
    width: int
    tables: list[pd.DataFrame]
    missing: float

    @property
    def _summed(self) -> bool:
        return len(self.counts) > 1

    def _without(self, fold: int | None) -> Floats:
        if not self._summed:
            return self.values[:, 0 if fold is None else 1 + fold]
        kept = [f for f in range(N_FOLDS) if f != fold]
        return np.asarray(self.values[:, kept].sum(axis=1) / self.counts[kept].sum())

    def claims(self, study: Study, group: str, top: int) -> Iterator[dict[str, Any]]:
        """Rank correlation, overlap of the top neurons, and correlation corrected for reliability."""
        place = {"site": "mlp.neurons", "language_a": "*", "language_b": "*", "n": int(self.counts.sum())}
        k = min(top, self.values.shape[-1])
        for claim, statistic in (
            ("rank correlation of importance", rank_correlation),
            (f"share of the top {k} in common", lambda scores: top_overlap(scores, k)),
        ):
            rng = stream(study.seed, "rankings", group)
            found = against_shuffles(statistic, self._without(None), self.width, SHUFFLES, rng)
            bounds = jackknifed(found.value, [statistic(self._without(f)) for f in range(N_FOLDS)])
            yield {
                **place, "claim": claim, "estimate": found.value, "low": bounds.low, "high": bounds.high,
                "null": found.null, "p": found.p,
            }  # fmt: skip
        if self._summed:
            whole = corrected_correlation(self.values, self.counts)
            without = [corrected_correlation(self.values, self.counts, f) for f in range(N_FOLDS)]
            bounds = jackknifed(whole, without)
            claim = "correlation of importance, corrected for reliability"
            yield {
                **place, "claim": claim, "estimate": whole, "low": bounds.low, "high": bounds.high, "null": 0.0,
                "p": bounds.p,
            }  # fmt: skip


recipe = NeuronAttribution()
