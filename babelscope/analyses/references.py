"""What 0 and 1 look like: the gaps of a model that nobody trained, and those of a language with its own paraphrase."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from babelscope.analyses.comparison import compare
from babelscope.analyses.runner import Estimated, Progress, estimated
from babelscope.analyses.statistics import (
    NOT_TESTABLE,
    Floats,
    interval,
    mean_of_defined,
    paired,
    resampled_means,
    stream,
)
from babelscope.analyses.tables import Estimates
from babelscope.schema import Result

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore

# BCP 47 private use: `en-x-para` is English, said in another way.
PRIVATE = "-x-"


def paraphrases(languages: Sequence[str]) -> dict[str, str]:
    """Paraphrase -> the language that it paraphrases, as far as both are there."""
    found = {code: code.partition(PRIVATE)[0] for code in languages if PRIVATE in code}
    return {code: base for code, base in found.items() if base in languages}


def floor(
    store: "ActivationStore", untrained: "ActivationStore", metrics: Sequence[str] | None,
    *, progress: Progress | None = None, **options: Any,
) -> Result:  # fmt: skip
    """Every gap of a model beside that of a model of the same configuration with random weights.

    Returns
    -------
    Result
        `floor`: as `change` of `compare`, with `gap_random` and `gap_model` in place of before and after, and their
        difference `above_floor`.
    """
    found = compare({"random-init": untrained, "model": store}, metrics, progress=progress, **options)[0]
    names = {"gap_before": "gap_random", "gap_after": "gap_model", "change": "above_floor"}
    table = found.table.drop(columns=["before", "after"]).rename(columns=names)
    about = {
        **found.provenance,
        "store": store.fingerprint,
        "definition": "mean over items of the model's gap minus the gap with random weights, each over its own null",
    }
    return Result("floor", table, about)


def ceiling(
    store: "ActivationStore", metrics: Sequence[str] | None, *, progress: Progress | None = None, **options: Any
) -> Result:
    """Every gap between languages beside the gap of a language and its own paraphrase, over the same items.

    Parameters
    ----------
    store : ActivationStore
        With a language `xx` and one `xx-x-...`.
    metrics, progress, options
        As in `analyze`; languages are those that are compared with each other.

    Returns
    -------
    Result
        `ceiling`: per paraphrase, metric, variant, threshold, group, site and layer the mean gap over pairs of
        languages, the gap of the paraphrase, and the share of the second that the first reaches, with the interval of
        a bootstrap over items; the p is that of no difference.
    """
    seed, n_perm = int(options.get("seed", 0)), int(options.get("n_perm", 2000))
    settings: dict[str, Any] = {
        "sites": None, "position": None, "by": "auto", "within": (), "sweep": None, "marked": "refuse", "jobs": 1,
        "n_boot": 2000, **options, "mode": "corrected", "seed": seed, "n_perm": n_perm, "progress": progress,
    }  # fmt: skip
    spoken = settings.pop("languages", None) or [g for g in store.languages if PRIVATE not in g]
    of = paraphrases(store.languages)
    common = store.select(str(store.plan.sites[0]), languages=(*spoken, *of), position=settings["position"]).items
    between = estimated(store, metrics, languages=spoken, only=common, **settings)
    rows: list[dict[str, Any]] = []
    for code, base in of.items():
        own = estimated(store, metrics, languages=(base, code), only=common, **settings)
        rows += [{"paraphrase": code, **row} for row in _shares(between, own, n_perm, seed)]
    about = {
        **between.provenance, "paraphrases": of, "ceiling": "gap of a language and its paraphrase, over their null",
        "share": "gap between languages / ceiling; not given where the ceiling may be zero",
    }  # fmt: skip
    return Result("ceiling", pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"}), about)


def _shares(between: Estimated, own: Estimated, n_perm: int, seed: int) -> Iterator[dict[str, Any]]:
    weights: Mapping[str, Floats] = {group.name: group.resamples.weights for group in between.groups}
    ceilings = {_key(e): e for estimates in own.estimates.values() for e in estimates}
    for estimates in between.estimates.values():
        for e in estimates:
            top = ceilings[_key(e)]
            rng = stream(seed, "ceiling", e.group)
            found = paired(top.gap_items, e.gap_items, weights[e.group], n_perm=n_perm, level=0.95, rng=rng)
            for k, (variant, threshold) in enumerate(e.variants):
                row = {
                    "metric": e.metric, "variant": variant, "threshold": threshold, "group": e.group, "site": e.site,
                    "layer": e.layer, "head": e.head, "n": int(found.n_a[k]),
                }  # fmt: skip
                yield row | _share(e.gap_items[k], top.gap_items[k], weights[e.group]) | {"p": float(found.p[k])}


def _key(e: Estimates) -> tuple[object, ...]:
    return e.metric, e.site, e.layer, e.head, e.group, e.measured


def _share(gap: Floats, top: Floats, weights: Floats) -> dict[str, Any]:
    both = ~(np.isnan(gap) | np.isnan(top))
    gap, top = np.where(both, gap, np.nan), np.where(both, top, np.nan)
    tops = resampled_means(top, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = interval(resampled_means(gap, weights) / tops, 0.95)
        share = mean_of_defined(gap) / mean_of_defined(top)
    known = bool(np.nanquantile(tops, 0.025) > 0) if both.any() else False
    values = (share, low, high) if known else (np.nan, np.nan, np.nan)
    return {
        "gap": float(mean_of_defined(gap)), "ceiling": float(mean_of_defined(top)),
        **dict(zip(("share", "low", "high"), map(float, values), strict=True)),
        "verdict": "" if known else NOT_TESTABLE,
    }  # fmt: skip
