"""Whether neurons that detect a language are needed by it: ablated in every language, against matched random ones."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.active import has_finite_rows
from babelscope.analyses.dissociation import N_FOLDS, folds, matched_neurons
from babelscope.analyses.dissociation_ablation import Ablations
from babelscope.analyses.language_specific import detectors
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    Floats,
    bootstrap_weights,
    interval,
    permutation_p,
    resampled_means,
    stream,
    verdicts,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Result, Site


@dataclass(frozen=True, slots=True)
class AblationSelectivity:
    """Language by language damage of the neurons that detect a language best.

    Parameters
    ----------
    site : str
        Stored site from which neurons are chosen, `mlp.act` or `mlp.neurons`; `mlp.neurons` is ablated.
    top : int
        Neurons of a set.
    value : str
        `mean` over all languages, which takes the language away and nothing else, or `zero`.
    draws : int
        Matched random sets beside each set.
    """

    site: Literal["mlp.act", "mlp.neurons"] = "mlp.act"
    top: int = 30
    value: Literal["mean", "zero"] = "mean"
    draws: int = 9

    def __post_init__(self) -> None:
        if self.top < 1:
            raise BabelScopeError(f"top={self.top} neurons are none", "set top=30")

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Ablation selectivity",
        question="Are the neurons that detect a language needed by that language, and by no other?",
        reads=("mlp.act",),
        needs_model=True,
        source="a test of our own; compare CRANE, arXiv:2601.04664",
    )

    def run(self, study: Study) -> list[Result]:
        """`ablation_selectivity`, then the matrix of damages."""
        if len(study.languages) < 2:
            raise BabelScopeError("one language cannot be selective", "name two or more with --languages")
        if self.draws < 1:
            raise BabelScopeError(f"draws is {self.draws}", "draw one matched random set or more")
        rows: list[dict[str, Any]] = []
        tables: list[pd.DataFrame] = []
        for group, items in study.groups.items():
            if len(items) < 2 * MIN_ITEMS:
                raise BabelScopeError(
                    f"group {group!r} has {len(items)} items, fewer than {2 * MIN_ITEMS}", "capture more"
                )
            drops = self._drops(study, group, items)
            rows += [{"group": group, **row} for row in _claims(drops, study, group)]
            tables.append(_matrix(_above_random(drops), study.languages).assign(group=group))
        about = {
            **study.provenance(), "title": self.info.title, "site": self.site, "top": self.top, "value": self.value,
            "draws": self.draws, "null": "each set in turn replaced by its matched random ones",
        }  # fmt: skip
        table = claims_table(rows, family=("claim",))
        table["verdict"] = verdicts(table["estimate"], table["low"], table["high"], table["q"], table["n"])
        return [
            Result("ablation_selectivity", table, about),
            Result("ablation_selectivity_matrix", pd.concat(tables, ignore_index=True), about),
        ]

    def _drops(self, study: Study, group: str, items: tuple[str, ...]) -> Floats:
        """(draw, set, language, item): drop of the margin by a set (first) and by its matched random ones."""
        from babelscope.hooks import interventions as iv

        rng = stream(study.seed, "selectivity", group)
        is_test = folds(len(items), rng) >= N_FOLDS // 2
        chosen_on = tuple(item for item, test in zip(items, is_test, strict=True) if not test)
        sets = self._sets(study, chosen_on)
        loaded = study.model
        sites = [Site("mlp.neurons", layer) for layer in range(loaded.ref.n_layers)]
        tested = [item for item, test in zip(items, is_test, strict=True) if test]
        prompts, active = {}, []
        for language in study.languages:
            by_item = {p.item: p for p in study.prompts.of(language)}
            prompts[language] = [by_item[item] for item in tested]
            active.append(
                iv.neuron_gradients(loaded, [by_item[i] for i in chosen_on], sites, study.progress).activation
            )
        means = np.mean([a.mean(axis=0) for a in active], axis=0)
        size = np.mean([np.abs(a).mean(axis=0) for a in active], axis=0).ravel()
        if self.value == "zero":
            means = np.zeros_like(means)
        ablations, every = Ablations(loaded, sites, study.progress), np.concatenate(sets)
        found = np.zeros((1 + self.draws, len(sets), len(study.languages), len(tested)))
        for k, neurons in enumerate(sets):
            random = [matched_neurons(neurons, size, means.shape[1], every, rng) for _ in range(self.draws)]
            if len(random[0]) < len(neurons):
                raise BabelScopeError(
                    f"{self.top} neurons of each language leave a layer too few others to compare with", "lower top"
                )
            for r, removed in enumerate((neurons, *random)):
                for m, language in enumerate(study.languages):
                    found[r, k, m] = ablations.drop(language, prompts[language], removed, means)
        return found

    def _sets(self, study: Study, items: tuple[str, ...]) -> list[NDArray[np.int64]]:
        """The best detectors of each language, as places in (layer, neuron)."""
        z: list[Floats] = []
        for site in study.layers(self.site):
            x = study.block(site, items=items)
            kept = np.asarray(has_finite_rows(x).all(axis=0))
            z.append(np.nan_to_num(detectors(x[:, kept]).z))
        flat = np.concatenate(z, axis=1)
        if len(z) != study.store.plan.model.n_layers:
            raise BabelScopeError(
                f"{study.store.path} holds {self.site} of {len(z)} of {study.store.plan.model.n_layers} layers",
                f"capture all layers with --site {self.site}",
            )
        return [np.argsort(-row, kind="stable")[: self.top] for row in flat]


def own_and_others(damages: Floats) -> tuple[Floats, Floats]:
    """Damage of each set in its own language, and its mean in the others.

    (..., set, language, item) -> twice (..., set, item).
    """
    own = np.moveaxis(np.diagonal(damages, axis1=-3, axis2=-2), -1, -2)
    return own, (damages.sum(axis=-2) - own) / (damages.shape[-2] - 1)


def dominance(damages: Floats) -> Floats:
    """Damage in the own language less that in the others, (item,)."""
    own, others = own_and_others(damages)
    return np.asarray((own - others).mean(axis=-2))


def _above_random(drops: Floats) -> Floats:
    return np.asarray(drops[0] - drops[1:].mean(axis=0))


def _claims(drops: Floats, study: Study, group: str) -> list[dict[str, Any]]:
    n_draws, n_sets, _, n_items = drops.shape
    weights = bootstrap_weights(n_items, study.n_boot, stream(study.seed, "bootstrap", group))
    rng = stream(study.seed, "selectivity", group, "labels")
    # Any neurons hurt some languages more than others, in all items alike, so that sets and not items are exchanged:
    # what was chosen for a language must stand out among its matched random sets.
    picked = rng.integers(n_draws, size=(study.n_perm, n_sets))
    own, others = own_and_others(drops)
    rows = []
    for claim, by_set in (
        ("damage in the own language less that in others (nats)", own - others),
        ("damage in the own language over matched random neurons (nats)", own),
        ("damage in other languages over matched random neurons (nats)", others),
    ):
        values = _above_random(by_set).mean(axis=0)
        low, high = interval(resampled_means(values[None], weights), 0.95)
        means = by_set.mean(axis=2)
        shuffled = means[picked, np.arange(n_sets)].mean(axis=1)
        rows.append(
            {
                "claim": claim, "site": "mlp.neurons", "language_a": "*", "language_b": "*", "n": n_items,
                "estimate": float(values.mean()), "low": float(low[0]), "high": float(high[0]), "null": 0.0,
                "p": float(permutation_p(np.array(means[0].mean()), shuffled)),
            }
        )  # fmt: skip
    return rows


def _matrix(damages: Floats, languages: tuple[str, ...]) -> pd.DataFrame:
    n = damages.shape[2]
    mean, error = damages.mean(axis=2), damages.std(axis=2, ddof=1) / np.sqrt(n)
    rows = [
        (a, b, n, mean[k, m], mean[k, m] - 1.96 * error[k, m], mean[k, m] + 1.96 * error[k, m], 0.0)
        for k, a in enumerate(languages)
        for m, b in enumerate(languages)
    ]
    return pd.DataFrame(rows, columns=["neurons_of", "language", "n", "damage", "low", "high", "null"])


recipe = AblationSelectivity()
