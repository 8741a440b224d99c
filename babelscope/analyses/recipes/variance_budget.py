"""Where content is and where language is: the variance of items, of languages, and of both together, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.metric import VECTOR_SITES
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    mean_of_defined,
    permutation_p,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.analyses.variance import PARTS, explained, of_shuffled_items, of_shuffled_languages, squares
from babelscope.errors import BabelScopeError
from babelscope.schema import Result, Site

NEURONS = ("mlp.act", "mlp.neurons")
SCALES = ("summed", "standardized")

# Of a share; the first of n_perm.
PERMUTATIONS = 99


@dataclass(frozen=True, slots=True)
class VarianceBudget:
    """Shares of meaning (item), language and interaction in the variance of every stored site and layer."""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Variance budget",
        question="How much of an activation belongs to the item, how much to the language, how much to both at once?",
        reads=(),
        needs_model=False,
        source="two-way analysis of variance with variance components; a definition of our own",
    )

    def run(self, study: Study) -> list[Result]:
        """`variance_budget`: means over layers; `_layers`: each of them; `_neurons`: every neuron."""
        if len(study.languages) < 2:
            raise BabelScopeError("one language has no variance between languages", "name two or more with --languages")
        names = [name for name in dict.fromkeys(s.name for s in study.store.plan.sites) if _kind(name) in VECTOR_SITES]
        if study.sites is not None:
            names = [name for name in names if name in {text.split("@")[0] for text in study.sites}]
        if not names:
            raise BabelScopeError(f"{study.store.path} holds no site of vectors", "capture with --site resid.post")
        sites = [site for name in names for site in study.layers(name)]
        cells: list[_Cell] = []
        neurons: list[pd.DataFrame] = []
        for done, site in enumerate(sites, start=1):
            for group, items in study.groups.items():
                block = study.block(site, items=items)
                x = np.asarray(block.reshape(*block.shape[:2], -1), dtype=np.float64)
                whole = np.asarray(has_finite_rows(x).all(axis=0))
                if whole.sum() < MIN_ITEMS:
                    study.note(f"{site}, {group}: {whole.sum()} items are finite, fewer than {MIN_ITEMS}: left out")
                else:
                    cells += _cells(x[:, whole], whole, site, group, study)
                    if site.kind in NEURONS:
                        neurons.append(_neurons(x[:, whole], site, group))
            study.progress(done, len(sites), f"variance {site}")
        if not cells:
            raise BabelScopeError(
                f"no group of {study.store.path} has {MIN_ITEMS} items with finite values", "capture in float32"
            )
        layers = _table([cell.row(study) for cell in cells])
        overall = _table([_over_layers(alike).row(study) for alike in _alike(cells)])
        about = {
            **study.provenance(), "title": self.info.title,
            "shares": "variance components over their sum; negative components are noise around none",
            "summed": "sums of squares over units as they are",
            "standardized": "every unit divided by its own deviation",
            "null": "mean over shuffles: items within languages for meaning, languages within items for language",
            "interval": "jackknife pseudo-values over items, percentile bootstrap, 95%",
        }  # fmt: skip
        results = [Result("variance_budget", overall, about), Result("variance_budget_layers", layers, about)]
        if neurons:
            found = pd.concat(neurons, ignore_index=True)
            found["q"] = found.groupby(["group", "site"])["p"].transform(benjamini_hochberg)
            results.append(Result("variance_budget_neurons", found, about))
        return results


def _kind(name: str) -> str:
    return name.removeprefix("enc.").removeprefix("dec.")


@dataclass(frozen=True, slots=True, eq=False)
class _Cell:
    """One share at one site and layer (None: over layers): pseudo-values of all items, shuffled shares."""

    part: str
    scale: str
    site: str
    layer: int | None
    group: str
    pseudo: Floats
    shuffled: Floats

    def row(self, study: Study) -> dict[str, Any]:
        """As a claim; what neither items nor languages explain is what is left and has no test."""
        weights = bootstrap_weights(len(self.pseudo), study.n_boot, stream(study.seed, "bootstrap", self.group))
        low, high = interval(resampled_means(self.pseudo[None], weights), 0.95)
        share, null = float(mean_of_defined(self.pseudo)), float(mean_of_defined(self.shuffled))
        tested = self.part != "interaction"
        return {
            "claim": f"{self.part}, {self.scale}", "group": self.group, "site": self.site, "layer": self.layer,
            "n": int(np.count_nonzero(~np.isnan(self.pseudo))), "language_a": "*", "language_b": "*",
            "estimate": share, "low": float(low[0]), "high": float(high[0]), "null": null if tested else float("nan"),
            "p": float(permutation_p(np.array(share), self.shuffled)) if tested else float("nan"),
        }  # fmt: skip


def _cells(x: Floats, whole: NDArray[np.bool_], site: Site, group: str, study: Study) -> Iterator[_Cell]:
    n, n_perm = x.shape[1], min(PERMUTATIONS, study.n_perm)
    largest = np.abs(x).max(initial=0.0)
    x = x / largest if largest > 0 else x
    for scale in SCALES:
        values = x
        if scale == "standardized":
            spread = x.std(axis=(0, 1))
            values = (x - x.mean(axis=(0, 1)))[..., spread > 0] / spread[spread > 0]
        both, without = squares(values)
        shares, left = both.shares(), without.shares()
        pseudo = np.full((len(PARTS), len(whole)), np.nan)
        pseudo[:, whole] = shares[:, None] + (n - 1) * (left.mean(axis=1, keepdims=True) - left)
        # The same shuffles in every layer, so that means over layers have shuffles too.
        rng = stream(study.seed, "variance", group)
        items = _orders(rng, n_perm, len(x), n, axis=1)
        languages = _orders(rng, n_perm, len(x), n, axis=0)
        meaning = of_shuffled_items(values, items).shares()[0]
        language = of_shuffled_languages(values, languages).shares()[1]
        for k, (part, shuffled) in enumerate(zip(PARTS, (meaning, language, np.full(n_perm, np.nan)), strict=True)):
            yield _Cell(part, scale, site.name, site.layer, group, pseudo[k], shuffled)


def _alike(cells: list[_Cell]) -> list[list[_Cell]]:
    """Cells that differ in their layer alone."""
    found: dict[tuple[str, ...], list[_Cell]] = {}
    for cell in cells:
        found.setdefault((cell.part, cell.scale, cell.site, cell.group), []).append(cell)
    return list(found.values())


def _over_layers(cells: list[_Cell]) -> _Cell:
    pseudo = mean_of_defined(np.stack([c.pseudo for c in cells]), axis=0)
    return replace(cells[0], layer=None, pseudo=pseudo, shuffled=np.stack([c.shuffled for c in cells]).mean(axis=0))


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = claims_table(rows, family=("claim", "group", "site"))
    share, low, high = (table[name] - table["null"] for name in ("estimate", "low", "high"))
    words = verdicts(share, low, high, table["q"], table["n"])
    table["verdict"] = words.mask(table["claim"].str.startswith(PARTS[-1]), "")
    return table


def _orders(rng: np.random.Generator, n_perm: int, n_languages: int, n_items: int, axis: int) -> NDArray[np.int64]:
    """(permutation, language, item): places along the axis, 0 for languages and 1 for items, in another order."""
    places = np.indices((n_languages, n_items))[axis]
    return np.array([rng.permuted(places, axis=axis) for _ in range(n_perm)]).reshape(-1, n_languages, n_items)


def _neurons(x: Floats, site: Site, group: str) -> pd.DataFrame:
    n_languages, n_items, n_units = x.shape
    found = explained(x)
    cells = n_languages * n_items - 1
    return pd.DataFrame(
        {
            "group": group, "site": site.name, "layer": pd.array([site.layer] * n_units, dtype="Int64"),
            "neuron": np.arange(n_units), "n": n_items, "eta2_meaning": found.meaning, "eta2_language": found.language,
            "null_meaning": (n_items - 1) / cells, "null_language": (n_languages - 1) / cells, "f_language": found.f,
            "p": stats.f.sf(found.f, n_languages - 1, (n_languages - 1) * (n_items - 1)),
        }
    )  # fmt: skip


recipe = VarianceBudget()
