"""Whether reasoning and retrieval rest on different neurons, and which of them languages share."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.dissociation import (
    N_FOLDS,
    corrected_correlation,
    folds,
    jackknifed,
    relative_attribution,
    selectivity,
)
from babelscope.analyses.dissociation_ablation import Ablations, Interaction, Sets, damage, interaction
from babelscope.analyses.recipe import RecipeInfo, claims_table
from babelscope.analyses.statistics import (
    ALPHA,
    MIN_ITEMS,
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    STABLE_SHARE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
    Floats,
    benjamini_hochberg,
    stream,
)
from babelscope.analyses.study import Study
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, Result, Site

if TYPE_CHECKING:
    from babelscope.hooks import LoadedModel

KINDS = ("retrieval", "reasoning")


@dataclass(frozen=True, slots=True)
class ReasoningVsRetrieval:
    """Double dissociation by ablation, and what languages share of the neurons behind it.

    Parameters
    ----------
    reasoning, retrieval : str
        Groups of items.
    shares : str
        Grid of the sizes of a set of neurons, in percent of all, comma-separated.
    source : str
        Language whose neurons are ablated in the others; "" for the first.
    """

    reasoning: str = "knowledge-free"
    retrieval: str = "knowledge"
    shares: str = "0.2,0.5,1,2,5"
    source: str = ""

    info: ClassVar[RecipeInfo] = RecipeInfo(
        title="Reasoning against retrieval",
        question="Do languages share the neurons behind reasoning and keep those behind retrieval apart?",
        reads=(),
        needs_model=True,
        source="open question 1 of arXiv:2406.16655 (section 7): a test of our own",
    )

    def run(self, study: Study) -> list[Result]:
        """`reasoning_vs_retrieval`, then the curves of the ablations and the most selective neurons."""
        experiment = _Experiment(self, study, _grid(self.shares))
        rows = [*experiment.dissociation(), *experiment.sharing(), *experiment.across_languages()]
        about = {
            **study.provenance(), "title": self.info.title, "groups_compared": [self.reasoning, self.retrieval],
            "attribution": "gradient x (activation - mean of the language) at the last token, as a share of all sizes",
            "ablation": "mean over the items of the language at the last token",
            "rule": f"supported: the interval excludes the null and q < {ALPHA}; of the interaction on at least "
            f"{STABLE_SHARE:.0%} of the sizes with one sign, and apart from the interval of random neurons; testable "
            "where both groups have the same templates; fixed before looking",
            "signs": "the interaction is positive where neurons chosen for a kind carry that kind; differences are "
            "positive where languages share more of reasoning",
            "n_dropped": experiment.n_dropped, "templates_shared": experiment.templates,
        }  # fmt: skip
        claims = claims_table(rows, family=("claim",))
        claims["verdict"] = [self._verdict(row, experiment) for row in claims.to_dict("records")]
        return [
            Result("reasoning_vs_retrieval", claims, about),
            Result("reasoning_vs_retrieval_curves", experiment.curves(), about),
            Result("reasoning_vs_retrieval_neurons", experiment.neurons(), about),
        ]

    @staticmethod
    def _verdict(row: dict[Any, Any], experiment: "_Experiment") -> str:
        if row["verdict"]:
            return str(row["verdict"])
        if not experiment.templates or row["n"] < MIN_ITEMS or np.isnan(row["estimate"]) or np.isnan(row["q"]):
            return NOT_TESTABLE
        if row["q"] >= ALPHA or row["low"] <= row["null"] <= row["high"]:
            return NOT_DISTINGUISHABLE
        return SUPPORTED if np.isnan(row["stability"]) or row["stability"] >= STABLE_SHARE else THRESHOLD_DEPENDENT


def _grid(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(sorted({float(part) / 100 for part in text.split(",")}))
    except ValueError:
        shares = ()
    if not shares or shares[0] <= 0 or shares[-1] > 0.25:
        raise BabelScopeError(f"shares={text!r} are no percentages of neurons", "write 0.2,0.5,1,2,5; at most 25")
    return shares


class _Experiment:
    """Attribution on one half of the items, ablation on the other."""

    def __init__(self, recipe: ReasoningVsRetrieval, study: Study, shares: tuple[float, ...]) -> None:
        for name in (recipe.reasoning, recipe.retrieval):
            if name not in study.groups:
                raise BabelScopeError(
                    f"{study.store.path} has no group {name!r} of items",
                    f"it has {', '.join(study.groups)}; group by another covariate with --by, or set the names",
                )
        if recipe.source and recipe.source not in study.languages:
            raise BabelScopeError(f"no language {recipe.source!r} here", f"it has {', '.join(study.languages)}")
        self.study, self.shares = study, shares
        self.source = recipe.source or study.languages[0]
        loaded = study.model
        self.sites = [Site("mlp.neurons", layer) for layer in range(loaded.ref.n_layers)]
        by_key = {(p.language, p.item): p for p in study.prompts.prompts}
        wanted = {"retrieval": recipe.retrieval, "reasoning": recipe.reasoning}
        items = [(kind, item) for kind, name in wanted.items() for item in study.groups[name]]
        self.prompts = {g: [by_key[g, item] for _, item in items] for g in study.languages}
        self.ablations = Ablations(loaded, self.sites, study.progress)
        known = np.any([self.ablations.baseline(g, self.prompts[g]).correct for g in study.languages], axis=0)
        # What the model answers in no language cannot be taken from it.
        self.n_dropped = int((~known).sum())
        self.prompts = {g: [p for p, k in zip(ps, known, strict=True) if k] for g, ps in self.prompts.items()}
        self.is_retrieval = np.array([kind == "retrieval" for kind, _ in items])[known]
        counts = [int(self.is_retrieval.sum()), int((~self.is_retrieval).sum())]
        if min(counts) < 2 * MIN_ITEMS:
            raise BabelScopeError(
                f"{counts[0]} retrieval and {counts[1]} reasoning items are answered in some language, "
                f"fewer than {2 * MIN_ITEMS}",
                "capture more items, or a model that knows more of them",
            )
        self.templates = self._templates(recipe)
        rng = stream(study.seed, "reasoning-vs-retrieval")
        self.folds = np.empty(len(self.is_retrieval), dtype=np.int64)
        for kind in (True, False):
            self.folds[self.is_retrieval == kind] = folds(int((self.is_retrieval == kind).sum()), rng)
        self.is_test = self.folds >= N_FOLDS // 2
        self.rng = rng
        self._attribute(loaded)
        self._ablate()

    def _templates(self, recipe: ReasoningVsRetrieval) -> list[str]:
        """Templates that both groups have; whether a contrast is of more than of templates depends on them."""
        table = self.study.store.covariates
        if "template" not in table:
            return []
        per_group = [
            set(table.loc[list(self.study.groups[name]), "template"].dropna().astype(str))
            for name in (recipe.reasoning, recipe.retrieval)
        ]
        return sorted(per_group[0] & per_group[1]) if per_group[0] == per_group[1] else []

    def _attribute(self, loaded: "LoadedModel") -> None:
        """Selectivity of every neuron in both halves, and importance summed by fold, language by language."""
        from babelscope.hooks import interventions as iv

        self.found, self.sums = dict[str, Sets](), dict[str, list[Floats]]((kind, []) for kind in KINDS)
        self.replicated: list[dict[str, Any]] = []
        for language, prompts in self.prompts.items():
            gradients = iv.neuron_gradients(loaded, prompts, self.sites, self.study.progress)
            attribution = relative_attribution(gradients.activation, gradients.gradient)
            for kind in KINDS:
                mine = self.is_retrieval == (kind == "retrieval")
                sums = [np.abs(attribution[mine & (self.folds == f)]).sum(axis=0) for f in range(N_FOLDS)]
                self.sums[kind].append(np.stack(sums))
            halves = [
                selectivity(attribution[half], self.is_retrieval[half], _covariates(prompts, half))
                for half in (~self.is_test, self.is_test)
            ]
            size = np.abs(gradients.activation).mean(axis=0).ravel()
            self.found[language] = Sets(halves[0], halves[1], size, gradients.activation.mean(axis=0))
        self.n_neurons = len(size)

    def _ablate(self) -> None:
        """Drops of the answer margin in the test half: (size, language, item) for both kinds of sets and controls."""
        test = np.flatnonzero(self.is_test)
        held_out = {g: [ps[i] for i in test] for g, ps in self.prompts.items()}
        self.drops: dict[tuple[str, int, str], Floats] = {}
        self.sizes = sorted({max(1, round(s * self.n_neurons)) for s in self.shares})
        for size in self.sizes:
            for language, sets in self.found.items():
                for name, neurons in sets.of_size(size, self.rng):
                    drop = self.ablations.drop(language, held_out[language], neurons, sets.means)
                    self.drops[name, size, language] = drop
        middle = self.sizes[len(self.sizes) // 2]
        self.middle, self.across = middle, dict[tuple[str, str], dict[str, Floats]]()
        for target in self.study.languages:
            for name, neurons in self.found[self.source].chosen(middle):
                drop = self.ablations.drop(target, held_out[target], neurons, self.found[target].means)
                self.across[name, target] = {"foreign": drop}
            for name, neurons in self.found[target].chosen(middle):
                own = self.ablations.drop(target, held_out[target], neurons, self.found[target].means)
                self.across[name, target]["own"] = own

    def _by_size(self, name: str, size: int) -> Floats:
        """(language, item) drops of one kind of sets."""
        return np.stack([self.drops[name, size, language] for language in self.study.languages])

    def _control(self, size: int, retrieval: NDArray[np.bool_]) -> Interaction:
        of_retrieval, of_reasoning = (self._by_size(f"{kind} control", size) for kind in KINDS)
        return interaction(of_retrieval, of_reasoning, retrieval, self.study)

    def dissociation(self) -> Iterator[dict[str, Any]]:
        """The interaction at the middle size with its stability over the grid, and that of matched random sets."""
        retrieval = self.is_retrieval[self.is_test]
        found = {
            size: interaction(self._by_size("retrieval", size), self._by_size("reasoning", size), retrieval, self.study)
            for size in self.sizes
        }
        sign = np.sign(found[self.middle].estimate)
        stability = float(np.mean([sign * f.low > 0 and sign * f.high > 0 for f in found.values()]))
        place = {"language_a": "*", "language_b": "*", "site": "mlp.neurons", "null": 0.0}
        for size in self.sizes:
            own, control = found[size], self._control(size, retrieval)
            # Any fixed sets of neurons hurt the kinds differently by some luck: the chosen ones must beat random ones.
            beyond = own.low > control.high or own.high < control.low
            mine = {"stability": stability if size == self.middle and len(self.sizes) > 1 else float("nan")}
            yield {
                **place, "claim": f"interaction of neurons and items, {size} neurons", **own.row(), **mine,
                "null": control.estimate, "verdict": "" if beyond else NOT_DISTINGUISHABLE,
            }  # fmt: skip
        control = self._control(self.middle, retrieval)
        yield {**place, "claim": f"the same with matched random neurons, {self.middle} neurons", **control.row()}
        for language, sets in self.found.items():
            chosen = benjamini_hochberg(pd.Series(sets.first.p)).to_numpy() < ALPHA
            again = (sets.second.p < ALPHA) & (np.sign(sets.second.t) == np.sign(sets.first.t))
            yield {
                "claim": "selective neurons that replicate in the other half", "language_a": language,
                "language_b": language, "site": "mlp.neurons", "null": ALPHA / 2,
                "estimate": float(again[chosen].mean()) if chosen.any() else float("nan"), "n": len(self.folds),
                "verdict": NOT_TESTABLE,  # neurons of one model are no sample: a share without a p
            }  # fmt: skip

    def sharing(self) -> Iterator[dict[str, Any]]:
        """Correlation of importances between languages, corrected for reliability, by kind, and the difference."""
        values = {}
        for kind in KINDS:
            mine = self.is_retrieval == (kind == "retrieval")
            counts = np.bincount(self.folds[mine], minlength=N_FOLDS)
            sums = np.stack(self.sums[kind])
            whole = corrected_correlation(sums, counts)
            values[kind] = whole, [corrected_correlation(sums, counts, f) for f in range(N_FOLDS)], int(mine.sum())
        for kind, (whole, without, n) in values.items():
            yield self._shared(f"importance shared by languages: {kind}", n, *astuple(jackknifed(whole, without)))
        difference = [a - b for a, b in zip(values["reasoning"][1], values["retrieval"][1], strict=True)]
        whole = values["reasoning"][0] - values["retrieval"][0]
        name = "importance shared by languages: reasoning minus retrieval"
        yield self._shared(name, len(self.folds), *astuple(jackknifed(whole, difference)))

    def across_languages(self) -> Iterator[dict[str, Any]]:
        """Damage by the neurons of one language in the others, per damage by their own, of each kind."""
        retrieval = self.is_retrieval[self.is_test]
        others = [g for g in self.study.languages if g != self.source]
        if not others:
            return
        found = {}
        for kind in KINDS:
            mine = retrieval == (kind == "retrieval")
            foreign, own = (
                np.stack([self.across[kind, g][which][mine] for g in others]).mean(axis=0)
                for which in ("foreign", "own")
            )
            found[kind] = damage(foreign, own, self.study, kind)
            share, n = found[kind], int(mine.sum())
            low, high = share.bounds()
            name = f"damage by neurons of {self.source} elsewhere, per damage by own: {kind}"
            yield self._shared(name, n, share.estimate, low, high, share.p())
        name = f"damage by neurons of {self.source} elsewhere: reasoning minus retrieval"
        both = found["reasoning"].minus(found["retrieval"])
        yield self._shared(name, len(retrieval), both.estimate, *both.bounds(), both.p())

    @staticmethod
    def _shared(claim: str, n: int, estimate: float, low: float, high: float, p: float) -> dict[str, Any]:
        return {
            "claim": claim, "site": "mlp.neurons", "language_a": "*", "language_b": "*", "n": n, "estimate": estimate,
            "low": low, "high": high, "null": 0.0, "p": p,
        }  # fmt: skip

    def curves(self) -> pd.DataFrame:
        """Mean drop of the margin per kind of set, kind of item, language and size, with n and a 95 % interval."""
        retrieval, rows = self.is_retrieval[self.is_test], []
        for (name, size, language), drop in self.drops.items():
            for kind in KINDS:
                mine = drop[retrieval == (kind == "retrieval")]
                mean, reach = float(mine.mean()), 1.96 * float(mine.std(ddof=1) / np.sqrt(len(mine)))
                rows.append((name, kind, language, size, len(mine), mean, mean - reach, mean + reach))
        columns = ["neurons", "items", "language", "size", "n", "drop", "low", "high"]
        return pd.DataFrame(rows, columns=columns).assign(null=0.0)

    def neurons(self) -> pd.DataFrame:
        """The neurons of the sets of the middle size, with t, p and q in the first half and t, p in the second."""
        parts = []
        width = self.n_neurons // len(self.sites)
        for language, sets in self.found.items():
            q = benjamini_hochberg(pd.Series(sets.first.p)).to_numpy()
            for name, chosen in sets.chosen(self.middle):
                columns = {
                    "language": language, "kind": name, "layer": chosen // width, "neuron": chosen % width,
                    "n": int((~self.is_test).sum()), "t": sets.first.t[chosen], "p": sets.first.p[chosen],
                    "q": q[chosen], "t_other_half": sets.second.t[chosen], "p_other_half": sets.second.p[chosen],
                }  # fmt: skip
                parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)


def _covariates(prompts: Sequence[Prompt], which: NDArray[np.bool_]) -> Floats:
    """Log length, depth, and the gold option, (item, covariate)."""
    chosen = [p for p, keep in zip(prompts, which, strict=True) if keep]
    golds = sorted({p.gold for p in chosen if p.gold is not None})[1:]
    columns = [[np.log(len(p.text)), float(str(p.covariates.get("depth") or 0))] for p in chosen]
    letters = [[float(p.gold == gold) for gold in golds] for p in chosen]
    return np.concatenate([np.array(columns), np.array(letters).reshape(len(chosen), -1)], axis=1)


recipe = ReasoningVsRetrieval()
