"""Whether the neurons that an attribution names carry the answer, kept or removed, beside other neurons."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.directed import directed_verdicts
from babelscope.analyses.dissociation import N_FOLDS, folds
from babelscope.analyses.faithfulness import (
    Frame,
    advantage,
    control_sets,
    log_weights,
    ratio,
    replaced_units,
    set_sizes,
)
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    MIN_ITEMS,
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    stream,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, Result, Site

Score = Literal["gradient", "integrated_gradients", "direct_logit"]
Value = Literal["mean", "zero", "resample"]
CONTROLS = {"random": "random neurons of the same layers", "matched": "others of the same layers, about as active"}
MODES = {"keep": "the chosen alone keep more than", "remove": "without the chosen more is lost than without"}
FOREIGN = f"without neurons of another language more is lost than without {CONTROLS['random']}"
OWN = "without the own neurons more is lost than without those of another language"

# Control sets are drawn anew for each of so many parts of the items.
DRAWS = 4


@dataclass(frozen=True, slots=True)
class NeuronAblation:
    """Faithfulness curves of chosen neurons and controls, and what neurons of one language carry in another.

    Parameters
    ----------
    score : str
        By which neurons are chosen: `gradient`, the effect of the ablation to first order; `integrated_gradients`
        from the mean, or zero; `direct_logit`, what a neuron writes straight into the answer.
    value : str
        What an ablated neuron holds: its `mean` in the language, `zero`, or that of another item (`resample`).
    shares : str
        Sizes of sets, in percent of all neurons, comma-separated.
    steps : int
        Of integrated gradients.
    """

    score: Score = "gradient"
    value: Value = "mean"
    shares: str = "0.2,1,5,20"
    steps: int = 8

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Neuron ablation",
        question="Do the neurons that an attribution names carry the answer, and those of one language in another?",
        reads=(),
        needs_model=True,
        source="faithfulness: Wang et al. 2022, arXiv:2211.00593; Mueller et al. 2025, arXiv:2504.13151",
    )

    def run(self, study: Study) -> list[Result]:
        """`neuron_ablation`; `_curves` of faithfulness and `_areas` under them; `_languages`: of one in another.

        Raises
        ------
        BabelScopeError
            With too few items that are answered in some language, and as `answer_margin`.
        """
        claims: list[dict[str, Any]] = []
        curves, areas, pairs = [list[dict[str, Any]]() for _ in range(3)]
        dropped = {}
        for name, items in study.groups.items():
            group = _Group(self, study, name, items)
            dropped[name] = group.n_dropped
            claims += [*group.faithful(), *group.elsewhere()]
            curves += group.curves()
            areas += group.areas()
            pairs += group.pairs()
        about = {
            **study.provenance(), "title": self.info.title, "score": self.score, "value": self.value,
            "answer": "logit(gold) - mean logit(others), last token", "position": "last", "n_dropped": dropped,
            "faithfulness": "(y - none) / (full - none), the answer margin as a share of what is between the model and "
            "it without any neuron at the last token; undefined where the interval of full - none reaches zero",
            "chosen": "on half of the items; ablated on the other half",
            "controls": f"drawn anew in {DRAWS} parts of the items",
            "estimate": "nats kept beyond the model without neurons, or lost from the whole one: mean over log size",
            "interval": "bootstrap over items of the difference from the null, drawn around the null, 95%",
            "p": "chosen and control swapped, item by item, two-sided",
        }  # fmt: skip
        table = claims_table(claims, family=("claim",))
        table["verdict"] = directed_verdicts(table)
        by_pair = pd.DataFrame(pairs, columns=list(PAIR_COLUMNS))
        by_pair["q"] = by_pair.groupby("group")["p"].transform(benjamini_hochberg)
        return [
            Result("neuron_ablation", table, about),
            Result("neuron_ablation_curves", pd.DataFrame(curves), about),
            Result("neuron_ablation_areas", pd.DataFrame(areas), about),
            Result("neuron_ablation_languages", by_pair, about),
        ]


PAIR_COLUMNS = ("group", "language_chosen", "language", "size", "n", "taken", "low", "high", "null", "p")


@dataclass(frozen=True, slots=True, eq=False)
class _Language:
    """One language: its test prompts, neurons by score, and what they hold when ablated."""

    prompts: Sequence[Prompt]
    score: Floats  # (layer x neuron,)
    size: Floats  # (layer x neuron,) mean |activation|
    values: NDArray[np.floating]  # (prompt, layer, neuron)
    frame: Frame


class _Group:
    """Neurons chosen on one half of the items of a group, ablated on the other."""

    def __init__(self, recipe: NeuronAblation, study: Study, name: str, items: Sequence[str]) -> None:
        from babelscope.hooks import interventions as iv

        self.recipe, self.study, self.name = recipe, study, name
        self.loaded = study.model
        self.sites = [Site("mlp.neurons", layer) for layer in range(self.loaded.ref.n_layers)]
        by_key = {(p.language, p.item): p for p in study.prompts.prompts}
        prompts = {g: [by_key[g, item] for item in items] for g in study.languages}
        known = np.any([iv.answered(self.loaded, ps, {}).correct for ps in prompts.values()], axis=0)
        # What the model answers in no language cannot be taken from it.
        self.n_dropped = int((~known).sum())
        if known.sum() < 2 * MIN_ITEMS:
            raise BabelScopeError(
                f"group {name!r}: {known.sum()} items are answered in some language, fewer than {2 * MIN_ITEMS}",
                "capture more items, or a model that knows more of them",
            )
        self.rng = stream(study.seed, "neuron-ablation", name)
        is_test = folds(int(known.sum()), self.rng) >= N_FOLDS // 2
        self.n = int(is_test.sum())
        self.weights = bootstrap_weights(self.n, study.n_boot, stream(study.seed, "bootstrap", name))
        self.languages: dict[str, _Language] = {}
        for g, ps in prompts.items():
            kept = [p for p, k in zip(ps, known, strict=True) if k]
            halves = [[p for p, t in zip(kept, is_test, strict=True) if t == test] for test in (False, True)]
            self.languages[g] = self._chosen(*halves)
            study.progress(len(self.languages), len(prompts), f"choose neurons {g}")
        self.width = next(iter(self.languages.values())).values.shape[-1]
        self.sizes = set_sizes(recipe.shares, self.width * len(self.sites))
        self.middle = self.sizes[len(self.sizes) // 2]
        self.margins = {g: self._curves(g) for g in self.languages}
        self.across = dict(self._across())

    def _chosen(self, choosing: Sequence[Prompt], testing: Sequence[Prompt]) -> _Language:
        """Scores of the neurons of a language, and the ends of its curves."""
        from babelscope.hooks import interventions as iv

        found = iv.neuron_gradients(self.loaded, choosing, self.sites)
        a = found.activation
        mean = np.zeros_like(a[0]) if self.recipe.value == "zero" else a.mean(axis=0)
        instead, values = np.broadcast_to(mean, a.shape), np.broadcast_to(mean, (len(testing), *mean.shape))
        if self.recipe.value == "resample":
            instead = np.roll(a, 1, axis=0)
            values = a[self.rng.integers(len(a), size=len(testing))]
        if self.recipe.score == "integrated_gradients":
            part = iv.integrated_gradients(self.loaded, choosing, self.sites, a, mean, self.recipe.steps).attribution
        elif self.recipe.score == "direct_logit":
            part = iv.direct_contributions(self.loaded, choosing, self.sites, a - instead)
        else:
            part = iv.patching_attribution(a, found.gradient, instead).astype(np.float32)
        score = part.mean(axis=0, dtype=np.float64).ravel()
        nothing = {site: (range(a.shape[2]), values[:, k]) for k, site in enumerate(self.sites)}
        ends = [iv.answered(self.loaded, testing, replaced).margin for replaced in ({}, nothing)]
        return _Language(testing, score, np.abs(a).mean(axis=0, dtype=np.float64).ravel(), values, Frame(*ends))

    def _answered(self, language: str, sets: Sequence[NDArray[np.int64]], keep: bool) -> Floats:
        """Margins (item,) with all but some neurons ablated (`keep`), or these; of several sets, each for its part."""
        from babelscope.hooks import interventions as iv

        own, found = self.languages[language], []
        for rows, chosen in zip(np.array_split(np.arange(self.n), len(sets)), sets, strict=True):
            units = replaced_units(chosen, keep, len(self.sites), self.width)
            replaced = {
                site: (units[k].tolist(), own.values[rows, k][:, units[k]]) for k, site in enumerate(self.sites)
            }
            found.append(iv.answered(self.loaded, [own.prompts[i] for i in rows], replaced).margin)
        return np.concatenate(found)

    def _sets(self, language: str, size: int) -> dict[str, list[NDArray[np.int64]]]:
        own = self.languages[language]
        return control_sets(own.score, own.size, size, self.width, min(DRAWS, self.n), self.rng)

    def _curves(self, language: str) -> dict[tuple[str, str], Floats]:
        """Margins (size, item) by mode and kind of set; NaN where a layer has too few other neurons to match."""
        found: dict[tuple[str, str], list[Floats]] = {}
        for done, size in enumerate(self.sizes, start=1):
            for kind, sets in self._sets(language, size).items():
                whole = all(len(chosen) == size for chosen in sets)
                for mode in MODES:
                    margin = self._answered(language, sets, mode == "keep") if whole else np.full(self.n, np.nan)
                    found.setdefault((mode, kind), []).append(margin)
            self.study.progress(done, len(self.sizes), f"ablate {language}")
        return {key: np.stack(margins) for key, margins in found.items()}

    def _across(self) -> Iterator[tuple[tuple[str, str], dict[str, Floats]]]:
        """Margins (item,) in one language without the neurons of another, and without as many random ones."""
        for a in self.languages:
            for b in self.languages:
                if a != b:
                    sets = self._sets(a, self.middle)
                    yield (a, b), {kind: self._answered(b, sets[kind], False) for kind in ("chosen", "random")}

    def _parts(self, language: str, mode: str, kind: str) -> Floats:
        frame = self.languages[language].frame
        margins = self.margins[language][mode, kind]
        return frame.kept(margins) if mode == "keep" else frame.taken(margins)

    def _place(self, claim: str, a: str = "*", b: str = "*") -> dict[str, Any]:
        return {"claim": claim, "group": self.name, "site": "mlp.neurons", "language_a": a, "language_b": b}

    def _advantage(self, part: Floats, other: Floats, sizes: Sequence[int]) -> dict[str, Any]:
        rng = stream(self.study.seed, "neuron-ablation p", self.name)
        return asdict(advantage(part, other, sizes, self.weights, self.study.n_perm, rng))

    def faithful(self) -> Iterator[dict[str, Any]]:
        """Chosen neurons against controls, kept and removed, in each language and over them."""
        for mode, says in MODES.items():
            for kind, named in CONTROLS.items():
                for language in ["*", *self.languages]:
                    spoken = list(self.languages) if language == "*" else [language]
                    part, other = (
                        np.mean([self._parts(g, mode, which) for g in spoken], axis=0) for which in ("chosen", kind)
                    )
                    yield {
                        **self._place(f"{says} {named}", language, language), **self._advantage(part, other, self.sizes)
                    }  # fmt: skip

    def elsewhere(self) -> Iterator[dict[str, Any]]:
        """Neurons of another language against random ones, and against the own, over pairs of languages."""
        if not self.across:
            return
        taken = {
            kind: np.mean([self.languages[b].frame.taken(m[kind]) for (_, b), m in self.across.items()], axis=0)
            for kind in ("chosen", "random")
        }
        at = self.sizes.index(self.middle)
        own = np.mean([self._parts(b, "remove", "chosen")[at] for _, b in self.across], axis=0)
        for claim, part, other in (
            (FOREIGN, taken["chosen"], taken["random"]),
            (OWN, own, taken["chosen"]),
        ):
            yield {**self._place(claim), **self._advantage(part[None], other[None], [self.middle])}

    def pairs(self) -> Iterator[dict[str, Any]]:
        """What neurons of each language take from each other one, nats."""
        for (a, b), margins in self.across.items():
            part, other = (self.languages[b].frame.taken(margins[kind])[None] for kind in ("chosen", "random"))
            found = self._advantage(part, other, [self.middle])
            place = {"group": self.name, "language_chosen": a, "language": b, "size": self.middle}
            rest = {name: found[name] for name in ("n", "low", "high", "null", "p")}
            yield {**place, "taken": found["estimate"], **rest}

    def curves(self) -> Iterator[dict[str, Any]]:
        """Faithfulness by size."""
        for k, size in enumerate(self.sizes):
            yield from ({"size": size, **row} for row in self._faithfulness([k], np.ones(1)))

    def areas(self) -> Iterator[dict[str, Any]]:
        """Areas under the curves over log size."""
        yield from self._faithfulness(range(len(self.sizes)), log_weights(self.sizes))

    def _faithfulness(self, at: Sequence[int], weights: Floats) -> Iterator[dict[str, Any]]:
        """(y - none) / (full - none) of all sets, averaged over some sizes, beside random ones of the same layers."""
        for language, own in self.languages.items():
            found = {
                key: ratio(weights @ own.frame.kept(m[list(at)]), own.frame, self.weights)
                for key, m in self.margins[language].items()
            }
            for (mode, kind), value in found.items():
                yield {
                    "group": self.name, "language": language, "mode": mode, "neurons": kind, "n": self.n,
                    "faithfulness": value.estimate, "low": value.low, "high": value.high,
                    "null": found[mode, "random"].estimate,
                }  # fmt: skip


recipe = NeuronAblation()
