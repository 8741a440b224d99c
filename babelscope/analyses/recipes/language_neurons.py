"""Neurons that fire for one language: how many beside chance, how well they detect it, and whether it is the script."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.language_specific import (
    KINDS,
    detectors,
    entropies,
    expected_counts,
    lape,
    script_contrast,
    shared_counts,
)
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    ALPHA,
    MIN_ITEMS,
    NOT_TESTABLE,
    SUPPORTED,
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    permutation_p,
    resampled_means,
    share,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.datasets.scripts import main_script
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

# Every draw counts the firing of all neurons anew, and the counts of all draws are kept: as many as fit here.
MOST_DRAWS, FEWEST_DRAWS, DRAW_BYTES = 499, 99, 400_000_000


@dataclass(frozen=True, slots=True)
class LanguageNeurons:
    """LAPE against permuted labels, detectors by rank, sharing against independence, and the script as explanation.

    Parameters
    ----------
    site : str
        `mlp.act` (the neuron of the paper) or `mlp.neurons`.
    top_rate : float
        Share of all neurons that LAPE takes.
    percentile : float
        Of all rates, above which a neuron counts as active in a language.
    top : int
        Detectors listed per language, from either end.
    """

    site: Literal["mlp.act", "mlp.neurons"] = "mlp.act"
    top_rate: float = 0.01
    percentile: float = 95.0
    top: int = 20

    def __post_init__(self) -> None:
        if not (0 < self.top_rate <= 0.5 and 0 < self.percentile < 100 and self.top >= 1):
            raise BabelScopeError(
                f"top_rate={self.top_rate}, percentile={self.percentile}, top={self.top} choose no neurons",
                "set a rate above 0, to .5 at most, a percentile below 100, and 1 or more to list",
            )

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Language neurons",
        question="Are there neurons of single languages, more than any sorting of prompts would find?",
        reads=("mlp.act",),
        needs_model=False,
        source="Tang et al. (2024), arXiv:2402.16438, section 2.2; Kojima et al. (2024), arXiv:2404.02431",
    )

    def run(self, study: Study) -> list[Result]:
        """`language_neurons`; `_detectors`: the best of every language; `_layers`: LAPE neurons by layer."""
        if len(study.languages) < 2:
            raise BabelScopeError("one language has no neurons of its own", "name two or more with --languages")
        claims: list[dict[str, Any]] = []
        listed, by_layer = [], []
        for group, items in study.groups.items():
            found = _Group(self, study, group, items)
            claims += [*found.counted(), *found.specific(), *found.detected(), *found.shared(), found.scripts()]
            listed.append(found.listed())
            by_layer.append(found.by_layer())
        about = {
            **study.provenance(), "title": self.info.title, "rows": "one per item, at the position of the study",
            "null": "labels of languages permuted within items; items shuffled within languages for "
            "sharing; languages relabeled for scripts",
            "interval": "bootstrap over items (normal, for counts of neurons), 95%",
        }  # fmt: skip
        table = claims_table(claims, family=("claim",))
        gap = [table[name] - table["null"] for name in ("estimate", "low", "high")]
        words = verdicts(gap[0], gap[1], gap[2], table["q"], table["n"])
        # A test by relabeling has a p and no interval.
        words = words.mask(table["low"].isna() & (table["q"] < ALPHA), SUPPORTED)
        table["verdict"] = table["verdict"].where(table["verdict"] != "", words)
        return [
            Result("language_neurons", table, about),
            Result("language_neurons_detectors", pd.concat(listed, ignore_index=True), about),
            Result("language_neurons_layers", pd.concat(by_layer, ignore_index=True), about),
        ]


@dataclass
class _Group:
    """One group of items, read layer by layer."""

    recipe: LanguageNeurons
    study: Study
    name: str
    items: tuple[str, ...]
    places: list[tuple[int | None, int]] = field(default_factory=list)  # layer and number of its neurons

    def __post_init__(self) -> None:
        sites = self.study.layers(self.recipe.site)
        n_languages = len(self.study.languages)
        whole, width = np.ones(len(self.items), dtype=bool), 0
        for site in sites:
            block = self.study.block(site, items=self.items)
            whole &= np.asarray(has_finite_rows(block).all(axis=0))
            width += block.shape[-1]
        self.kept = tuple(item for item, keep in zip(self.items, whole, strict=True) if keep)
        self.n = len(self.kept)
        if self.n < MIN_ITEMS:
            raise BabelScopeError(
                f"group {self.name!r} has {self.n} items with finite activations, fewer than {MIN_ITEMS}",
                "capture more items, or in float32",
            )
        rng = stream(self.study.seed, "language-neurons", self.name)
        n_draws = min(max(DRAW_BYTES // (4 * n_languages * width), FEWEST_DRAWS), MOST_DRAWS)
        base = np.tile(np.arange(n_languages)[:, None], (1, self.n))
        labels = [rng.permuted(base, axis=0) for _ in range(n_draws)]
        shuffles = [rng.permuted(np.tile(np.arange(self.n), (n_languages, 1)), axis=1) for _ in range(n_draws)]
        self.weights = bootstrap_weights(self.n, n_draws, rng) / self.n
        rates, permuted, drawn = [], [], []
        kinds, expected = np.zeros((len(KINDS), self.n)), np.zeros(len(KINDS))
        shuffled = np.zeros((n_draws, len(KINDS)))
        self.tables: list[pd.DataFrame] = []
        for done, site in enumerate(sites, start=1):
            x = self.study.block(site, items=self.kept)
            fires = np.asarray(x, dtype=np.float64) > 0
            own = fires.mean(axis=1)
            rates.append(own.T)
            at = np.arange(self.n)
            permuted.append(np.stack([fires[order, at].mean(axis=1).T for order in labels]).astype(np.float32))
            drawn.append(np.einsum("bq,lqk->bkl", self.weights, fires, optimize=True).astype(np.float32))
            kinds += shared_counts(fires)
            expected += expected_counts(own)
            rows = np.arange(n_languages)[:, None]
            shuffled += np.stack([shared_counts(fires[rows, order]).mean(axis=1) for order in shuffles])
            self.places.append((site.layer, fires.shape[-1]))
            self.tables.append(self._detectors(x, site.layer))
            self.study.progress(done, len(sites), f"language neurons {site}")
        self.rates = np.concatenate(rates)
        self.permuted, self.drawn = np.concatenate(permuted, axis=1), np.concatenate(drawn, axis=1)
        self.kinds, self.expected, self.shuffled = kinds, expected, shuffled
        self.chosen = self._lape(self.rates)
        self.detectors = pd.concat(self.tables, ignore_index=True)
        # By language: effects in one must not lower the bar for another.
        by_language = self.detectors.groupby("language", sort=False)["p"]
        self.detectors["q"] = by_language.transform(benjamini_hochberg)

    def _lape(self, rates: Floats) -> NDArray[np.bool_]:
        return lape(rates, self.recipe.top_rate, self.recipe.percentile)

    def _place(self, claim: str, language: str = "*") -> dict[str, Any]:
        return {
            "claim": claim, "group": self.name, "site": self.recipe.site, "language_a": language,
            "language_b": language, "n": self.n,
        }  # fmt: skip

    def _detectors(self, x: NDArray[np.generic], layer: int | None) -> pd.DataFrame:
        found = detectors(x)
        n_languages, n_neurons = found.auroc.shape
        return pd.DataFrame(
            {
                "language": np.repeat(self.study.languages, n_neurons),
                "layer": pd.array([layer] * (n_languages * n_neurons), dtype="Int64"),
                "neuron": np.tile(np.arange(n_neurons), n_languages), "n": self.n, "auroc": found.auroc.ravel(),
                "average_precision": found.average_precision.ravel(), "p": found.p.ravel(),
            }
        )  # fmt: skip

    def counted(self) -> Iterator[dict[str, Any]]:
        """LAPE neurons of each language beside those of permuted labels."""
        null = np.stack([self._lape(rates).sum(axis=0) for rates in self.permuted])
        again = [self._lape(rates) for rates in self.drawn]
        spread = np.stack([found.sum(axis=0) for found in again]).std(axis=0, ddof=1)
        observed = self.chosen.sum(axis=0)
        # Of the neurons found, the mean share of resamples of items in which each is found again.
        stability = share((np.mean(again, axis=0) * self.chosen).sum(axis=0), observed.astype(np.float64))
        for k, language in enumerate(self.study.languages):
            yield {
                **self._place("LAPE neurons (paper)", language), "estimate": float(observed[k]),
                "low": observed[k] - 1.96 * spread[k], "high": observed[k] + 1.96 * spread[k],
                "null": float(null[:, k].mean()),
                "p": float(permutation_p(np.array(float(observed[k])), null[:, k].astype(np.float64))),
                "stability": float(stability[k]),
            }  # fmt: skip

    def specific(self) -> Iterator[dict[str, Any]]:
        """How far the LAPE neurons of each language are from firing alike in all, summed over them, in nats."""
        observed = self._specificity(self.rates)
        null = np.stack([self._specificity(rates) for rates in self.permuted])
        spread = np.stack([self._specificity(rates) for rates in self.drawn]).std(axis=0, ddof=1)
        for k, language in enumerate(self.study.languages):
            yield {
                **self._place("specificity of LAPE neurons (nats)", language), "estimate": float(observed[k]),
                "low": observed[k] - 1.96 * spread[k], "high": observed[k] + 1.96 * spread[k],
                "null": float(null[:, k].mean()), "p": float(permutation_p(observed[k], null[:, k])),
            }  # fmt: skip

    def _specificity(self, rates: Floats) -> Floats:
        missing = np.log(rates.shape[1]) - np.nan_to_num(entropies(rates), nan=np.log(rates.shape[1]))
        return np.asarray(missing.astype(np.float64) @ self._lape(rates))

    def detected(self) -> Iterator[dict[str, Any]]:
        """Share of neurons whose ranks tell a language, after correction; p is the q of the best."""
        for language, part in self.detectors.groupby("language", sort=False):
            detecting = float((part["q"] < ALPHA).mean())
            yield {
                **self._place("share of neurons that detect the language, q < 0.05", str(language)),
                "estimate": detecting, "null": 0.0, "p": float(part["q"].min()),
            }  # fmt: skip

    def shared(self) -> Iterator[dict[str, Any]]:
        """Neurons per item that fire in no, one, several and all languages, beside independent languages."""
        total = sum(width for _, width in self.places)
        weights = bootstrap_weights(self.n, self.study.n_boot, stream(self.study.seed, "bootstrap", self.name))
        for k, kind in enumerate(KINDS):
            values = self.kinds[k] / total
            low, high = interval(resampled_means(values[None], weights), 0.95)
            shuffled = self.shuffled[:, k] / total
            away = np.abs(shuffled - shuffled.mean())
            yield {
                **self._place(f"neurons firing: {kind}"), "estimate": float(values.mean()), "low": float(low[0]),
                "high": float(high[0]), "null": float(self.expected[k] / total),
                "p": float(permutation_p(np.array(abs(float(values.mean()) - shuffled.mean())), away)),
            }  # fmt: skip

    def scripts(self) -> dict[str, Any]:
        """Overlap of LAPE neurons of languages of one script minus that of different scripts."""
        place = self._place("overlap of LAPE neurons: same script minus other scripts")
        if not self.study.store.has_texts:
            return {**place, "verdict": NOT_TESTABLE}
        prompts = self.study.prompts
        scripts = [main_script(p.text for p in prompts.of(language)) for language in self.study.languages]
        rng = stream(self.study.seed, "scripts", self.name)
        found = script_contrast(self.chosen, scripts, self.study.n_perm, rng)
        if found is None:
            return {**place, "verdict": NOT_TESTABLE}
        observed, null, p = found
        return {**place, "estimate": observed, "null": null, "p": p}

    def listed(self) -> pd.DataFrame:
        """The best detectors of every language, positive (high activation) and negative."""
        keys = ["language", "auroc"]
        ordered = self.detectors.sort_values(keys, ascending=[True, False], kind="stable")
        ends = [
            (part.head(self.recipe.top).assign(end="positive"), part.tail(self.recipe.top).assign(end="negative"))
            for _, part in ordered.groupby("language", sort=False)
        ]
        parts = [part for both in ends for part in both]
        return pd.concat(parts, ignore_index=True).assign(group=self.name, null_auroc=0.5)

    def by_layer(self) -> pd.DataFrame:
        """LAPE neurons of each language in each layer, beside permuted labels."""
        starts = np.cumsum([0, *(width for _, width in self.places)])
        null = np.mean([self._lape(rates) for rates in self.permuted], axis=0)
        rows = [
            (self.name, language, layer, self.n, int(self.chosen[a:b, k].sum()), float(null[a:b, k].sum()))
            for (layer, _), a, b in zip(self.places, starts[:-1], starts[1:], strict=True)
            for k, language in enumerate(self.study.languages)
        ]
        table = pd.DataFrame(rows, columns=["group", "language", "layer", "n", "neurons", "null"])
        return table.astype({"layer": "Int64"})


recipe = LanguageNeurons()
