"""Ablations of sets of neurons, and what their damage says of two kinds of items."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from babelscope.analyses.dissociation import Selectivity, matched_neurons
from babelscope.analyses.statistics import (
    Floats,
    bootstrap_weights,
    contrast,
    interval,
    mean_of_defined,
    resampled_means,
    stream,
)
from babelscope.schema import Prompt, Site

if TYPE_CHECKING:
    from babelscope.analyses.study import Study
    from babelscope.hooks import LoadedModel
    from babelscope.hooks.interventions import Answered


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """Neurons of one language, by how much they are of retrieval (t > 0) or reasoning (t < 0).

    Parameters
    ----------
    first, second : Selectivity
        In the half of the items that chooses, and in the other.
    size : ndarray
        (layer x neuron,) mean |activation|.
    means : ndarray
        (layer, neuron) mean activation, which ablation puts in place.
    """

    first: Selectivity
    second: Selectivity
    size: Floats
    means: NDArray[np.floating]

    def chosen(self, size: int) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """The `size` most selective neurons of each kind; they are disjoint as long as signs differ."""
        t = np.nan_to_num(self.first.t, nan=0.0)
        yield "retrieval", np.argsort(-t, kind="stable")[:size]
        yield "reasoning", np.argsort(t, kind="stable")[:size]

    def of_size(self, size: int, rng: np.random.Generator) -> Iterator[tuple[str, NDArray[np.int64]]]:
        """These, and random ones of the same layers that are about as active."""
        sets = dict(self.chosen(size))
        every = np.concatenate(list(sets.values()))
        for name, neurons in sets.items():
            yield name, neurons
            yield f"{name} control", matched_neurons(neurons, self.size, self.means.shape[1], every, rng)


@dataclass(slots=True)
class Ablations:
    """A model whose answers are kept as they are without ablation."""

    loaded: "LoadedModel"
    sites: Sequence[Site]
    report: Callable[[int, int, str], None]
    _whole: dict[tuple[str, ...], "Answered"] = field(default_factory=dict)
    _done: int = 0

    def baseline(self, language: str, prompts: Sequence[Prompt]) -> "Answered":
        """Answers of the whole model."""
        from babelscope.hooks import interventions as iv

        key = (language, *(p.item for p in prompts))
        if key not in self._whole:
            self._whole[key] = iv.answered(self.loaded, prompts, {})
        return self._whole[key]

    def drop(
        self, language: str, prompts: Sequence[Prompt], neurons: NDArray[np.int64], means: NDArray[np.floating]
    ) -> Floats:
        """How much smaller the answer margin is with the neurons at their means, (prompt,), nats."""
        from babelscope.hooks import interventions as iv

        width = means.shape[1]
        replaced = {}
        for layer, site in enumerate(self.sites):
            units = neurons[neurons // width == layer] % width
            if len(units):
                replaced[site] = ([int(u) for u in units], means[layer, units])
        self._done += 1
        self.report(self._done, self._done, f"ablate {language}")
        return self.baseline(language, prompts).margin - iv.answered(self.loaded, prompts, replaced).margin


@dataclass(frozen=True, slots=True)
class Interaction:
    """A difference of differences with its interval and p."""

    estimate: float
    low: float
    high: float
    p: float
    n: int

    def row(self) -> dict[str, Any]:
        """As a part of a claim."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high, "p": self.p, "n": self.n}


def interaction(
    by_retrieval: Floats, by_reasoning: Floats, is_retrieval: NDArray[np.bool_], study: "Study"
) -> Interaction:
    """How much more retrieval neurons than reasoning neurons hurt retrieval items, minus the same of reasoning items.

    Averaged over languages item by item; items of each kind are resampled, and kinds are permuted over items.

    Parameters
    ----------
    by_retrieval, by_reasoning : ndarray
        (language, item) drops of the answer margin by the two sets.
    is_retrieval : ndarray of bool
        (item,).
    """
    difference = (by_retrieval - by_reasoning).mean(axis=0)
    a, b = difference[is_retrieval], difference[~is_retrieval]
    streams = [stream(study.seed, "interaction", name) for name in ("retrieval", "reasoning")]
    weights = [bootstrap_weights(len(x), study.n_boot, rng) for x, rng in zip((a, b), streams, strict=True)]
    found = contrast(a[None], b[None], *weights, n_perm=study.n_perm, level=0.95, rng=stream(study.seed, "interaction"))
    return Interaction(
        float(found.estimate[0]), float(found.low[0]), float(found.high[0]), float(found.p[0]), len(difference)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """A ratio of means with its bootstrap draws."""

    estimate: float
    draws: Floats

    def bounds(self) -> tuple[float, float]:
        """95 % percentile interval."""
        low, high = interval(self.draws[None], 0.95)
        return float(low[0]), float(high[0])

    def p(self) -> float:
        """Two-sided bootstrap p of zero, by the add-one rule."""
        if np.isnan(self.estimate):
            return float("nan")
        drawn = self.draws[~np.isnan(self.draws)]
        tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
        return float(min(1.0, 2 * (1 + tail) / (1 + len(drawn))))

    def minus(self, other: "Share") -> "Share":
        """The difference of two ratios of independent items."""
        return Share(self.estimate - other.estimate, self.draws - other.draws)


def damage(foreign: Floats, own: Floats, study: "Study", name: str) -> Share:
    """Mean damage by the neurons of another language per mean damage by the own ones; NaN where the own do none.

    Parameters
    ----------
    foreign, own : ndarray
        (item,) drops of the answer margin.
    """
    weights = bootstrap_weights(len(own), study.n_boot, stream(study.seed, "damage", name))
    tops, bottoms = resampled_means(foreign[None], weights)[0], resampled_means(own[None], weights)[0]
    known = bool(np.quantile(bottoms, 0.025) > 0)
    if not known:
        return Share(float("nan"), np.full(len(tops), np.nan))
    return Share(float(mean_of_defined(foreign) / mean_of_defined(own)), tops / bottoms)
