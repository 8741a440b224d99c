"""The same items in several stores, as before and after training: what changed, item by item."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from babelscope.analyses.estimates import LEVELS
from babelscope.analyses.inference import mcnemar
from babelscope.analyses.plan import chosen_position
from babelscope.analyses.runner import Estimated, Progress, estimated
from babelscope.analyses.statistics import (
    ALPHA,
    Floats,
    benjamini_hochberg,
    bootstrap_weights,
    interval,
    mean_of_defined,
    paired,
    resampled_means,
    stream,
    verdicts,
)  # fmt: skip
from babelscope.analyses.tables import Estimates
from babelscope.errors import BabelScopeError
from babelscope.schema import Result

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore

FAMILY = ["metric", "mode", "variant", "site", "threshold", "is_overall", "is_head"]


def compare(
    stores: Mapping[str, "ActivationStore"],
    metrics: Sequence[str] | None = None,
    *,
    progress: Progress | None = None,
    n_boot: int = 2000,
    n_perm: int = 2000,
    seed: int = 0,
    **options: Any,
) -> list[Result]:
    """What changed between the first store and each other one, over the items and languages that all of them have.

    Parameters
    ----------
    stores : mapping
        Name -> store, the one that the others are compared with first.
    metrics, progress, n_boot, n_perm, seed, options
        As in `analyze`.

    Returns
    -------
    list of Result
        `change`: per metric, variant, threshold, group, site and layer (none: over layers) the gap over its own null
        in both stores, and the mean of the differences of the items with interval, p and q. `accuracy_change`, where
        all stores have answers: per language, with McNemar's exact test.

    Raises
    ------
    BabelScopeError
        If there are fewer than two stores or four common items, and as `analyze` does.
    """
    if len(stores) < 2:
        raise BabelScopeError("one store cannot be compared", "name two or more, as before.acts after.acts")
    languages = options.pop("languages", None) or _common_languages(stores)
    only = _common_items(stores, languages, options)
    settings: dict[str, Any] = {
        "sites": None, "position": None, "by": "auto", "within": (), "sweep": None, "mode": "both", "marked": "refuse",
        "jobs": 1, **options, "languages": languages, "seed": seed, "n_boot": n_boot, "n_perm": n_perm, "only": only,
    }  # fmt: skip
    found = {name: estimated(store, metrics, progress=progress, **settings) for name, store in stores.items()}
    first, *others = found
    table = pd.concat([_changes(first, name, found, seed) for name in others], ignore_index=True)
    is_overall = table["layer"].isna()
    families = table.assign(is_overall=is_overall, is_head=table["head"].notna())
    keys = [families[name] for name in FAMILY]
    table["q"] = table.groupby([table["after"], *keys], dropna=False)["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["change"], table["low"], table["high"], table["q"], table["n"])
    about = {
        **{k: v for k, v in found[first].provenance.items() if k not in ("store", "groups")},
        "stores": {name: store.fingerprint for name, store in stores.items()},
        "same_prompts": len({store.plan.prompts_sha256 for store in stores.values()}) == 1,
        "definition": "mean over items of the gap after minus the gap before, each over the null of its own store",
        "p": "signs of the items' differences flipped, two-sided, add-one rule",
        "q": "Benjamini-Hochberg within one pair of stores, metric, mode, variant, site and threshold; rows over "
        "layers and rows of single layers apart",
    }
    results = [Result("change", table, about)]
    answers = _accuracy_changes(stores, languages, only, seed, n_boot)
    return results if answers is None else [*results, answers]


def _common_languages(stores: Mapping[str, "ActivationStore"]) -> tuple[str, ...]:
    first, *others = stores.values()
    return tuple(g for g in first.languages if all(g in other.languages for other in others))


def _common_items(
    stores: Mapping[str, "ActivationStore"], languages: Sequence[str], options: Mapping[str, Any]
) -> tuple[str, ...]:
    common: tuple[str, ...] | None = None
    for store in stores.values():
        position = chosen_position(store, options.get("position"))
        site = (options.get("sites") or [str(store.plan.sites[0])])[0]
        items = set(store.select(str(site), languages=tuple(languages), position=str(position)).items)
        common = tuple(item for item in common or store.items if item in items)
    if not common:
        raise BabelScopeError(
            f"no item is in all of {', '.join(stores)} in {', '.join(languages) or 'any language of all'}",
            "capture the same prompts with both models",
        )
    return common


def _changes(first: str, name: str, found: Mapping[str, Estimated], seed: int) -> pd.DataFrame:
    before, after = found[first], found[name]
    weights = {group.name: group.resamples.weights for group in before.groups}
    if weights.keys() != {group.name for group in after.groups}:
        raise BabelScopeError(
            f"{first} and {name} group their items differently", "name the covariate with --by, or --by none"
        )
    later = {key: e for estimates in after.estimates.values() for e in estimates for key in [_key(e)]}
    # A model of other depth has other layers under the same numbers; means over layers can be compared all the same.
    same_depth = _layers(before) == _layers(after)
    rows = []
    for estimates in before.estimates.values():
        for a in estimates:
            b = later.get(_key(a))
            if b is not None and (a.layer is None or same_depth):
                rows.append(_rows(a, b, weights[a.group], int(before.provenance["n_perm"]), seed))
    if not rows:
        raise BabelScopeError(f"{first} and {name} share no metric and site", "capture the same sites with both models")
    table = pd.concat(rows, ignore_index=True)
    table.insert(0, "before", first)
    table.insert(1, "after", name)
    return table


def _layers(found: Estimated) -> set[int | None]:
    return {e.layer for estimates in found.estimates.values() for e in estimates}


def _key(e: Estimates) -> tuple[object, ...]:
    return e.metric, e.mode, e.site, e.layer, e.head, e.group, e.measured


def _rows(a: Estimates, b: Estimates, weights: Floats, n_perm: int, seed: int) -> pd.DataFrame:
    found = paired(
        a.gap_items, b.gap_items, weights, n_perm=n_perm, level=LEVELS[a.mode], rng=stream(seed, "change", a.group)
    )
    n = len(a.variants)
    return pd.DataFrame(
        {
            "metric": a.metric, "mode": a.mode, "variant": [name for name, _ in a.variants], "group": a.group,
            "site": a.site, "layer": pd.array([a.layer] * n, dtype="Int64"),
            "head": pd.array([a.head] * n, dtype="Int64"),
            "threshold": [threshold for _, threshold in a.variants], "n": found.n_a,
            "gap_before": mean_of_defined(a.gap_items), "gap_after": mean_of_defined(b.gap_items),
            "change": found.estimate, "low": found.low, "high": found.high, "p": found.p,
        }
    )  # fmt: skip


def _accuracy_changes(
    stores: Mapping[str, "ActivationStore"], languages: Sequence[str], only: Sequence[str], seed: int, n_boot: int
) -> Result | None:
    correct = {}
    for name, store in stores.items():
        answers = store.answers
        answers = answers[answers["item"].isin(only) & answers["language"].isin(list(languages))]
        correct[name] = answers.set_index(["language", "item"])["correct"].astype(float)
    first, *others = correct
    rows = []
    for name in others:
        both = pd.DataFrame({"a": correct[first], "b": correct[name]}).dropna()
        for language, part in both.groupby(level="language", sort=False):
            rows.append((first, name, language, *_change(part["a"].to_numpy(), part["b"].to_numpy(), seed, n_boot)))
    if not rows:
        return None
    columns = ["before", "after", "language", "n", "accuracy_before", "accuracy_after", "change", "low", "high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table["q"] = table.groupby("after", sort=False)["p"].transform(benjamini_hochberg)
    table["verdict"] = verdicts(table["change"], table["low"], table["high"], table["q"], table["n"])
    about = {
        "stores": {name: store.fingerprint for name, store in stores.items()}, "version": version("babelscope"),
        "interval": "percentile bootstrap over items, 95 %", "p": "McNemar, exact, two-sided",
        "q": "Benjamini-Hochberg over the languages of one pair of stores", "unit": "item", "scoring": "labels",
    }  # fmt: skip
    return Result("accuracy_change", table, about)


def _change(a: Floats, b: Floats, seed: int, n_boot: int) -> tuple[int, float, float, float, float, float, float]:
    weights = bootstrap_weights(len(a), n_boot, stream(seed, "accuracy"))
    low, high = interval(resampled_means((b - a)[None], weights), 1 - ALPHA)
    return len(a), float(a.mean()), float(b.mean()), float((b - a).mean()), float(low[0]), float(high[0]), mcnemar(a, b)
