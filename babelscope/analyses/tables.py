"""Estimates assembled into the tidy tables: one row per cell, corrected p-values, verdicts, contrasts, sweeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from babelscope.analyses.estimates import LEVELS
from babelscope.analyses.statistics import (
    STABLE_SHARE,
    SUPPORTED,
    THRESHOLD_DEPENDENT,
    Floats,
    benjamini_hochberg,
    contrast,
    max_t,
    stream,
    verdicts,
)
from babelscope.schema.results import COLUMNS

# A p-value is corrected together with the layers and pairs of its kind; means over pairs are a family of their own.
FAMILY = ["metric", "mode", "variant", "group", "site", "threshold", "is_mean", "is_overall", "is_head"]
CONTRAST_FAMILY = ["metric", "mode", "variant", "site", "threshold", "is_overall", "is_head"]
# What a reader sees first, means over layers, is one family whatever was compared: without these parts of the keys.
COMPARED = ["variant", "group", "site"]
CURVE = ["metric", "mode", "variant", "group", "site", "layer", "head", "language_a", "language_b"]
CONTRAST_CURVE = ["metric", "mode", "variant", "group_a", "group_b", "site", "layer", "head"]


@dataclass(frozen=True, slots=True)
class Estimates:
    """Columns of one group at one site and layer (None: over layers), each (variant, pair).

    `gap_items` is the (variant, item) gap of the mean over pairs, from which groups are contrasted; `drawn` is the
    (variant, 1 + permutation) mean over pairs, observed and shuffled; `head` is None over heads and without them.
    """

    metric: str
    mode: str
    site: str
    layer: int | None
    group: str
    variants: tuple[tuple[str, float], ...]
    pairs: tuple[tuple[str, str], ...]
    columns: Mapping[str, NDArray[np.generic]]
    gap_items: Floats
    drawn: NDArray[np.float32]
    head: int | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """Variants and thresholds by name: NaN, the threshold of what has none, does not equal itself elsewhere."""
        return tuple(f"{variant} {threshold}" for variant, threshold in self.variants)


def tidy_table(estimates: Sequence[Estimates], position: str) -> pd.DataFrame:
    """Rows of all estimates of one metric, with the columns and types of `babelscope.schema.results.COLUMNS`."""
    highest = _highest(estimates)
    table = pd.concat([_rows(e, p) for e, p in zip(estimates, highest, strict=True)], ignore_index=True)
    table["position"] = position
    is_mean, is_overall = table["language_a"] == "*", table["layer"].isna()
    families = table.assign(is_mean=is_mean, is_overall=is_overall, is_head=table["head"].notna())
    table["q"] = _corrected(families, FAMILY, is_mean & is_overall)
    table["verdict"] = verdicts(table["gap"], table["gap_low"], table["gap_high"], table["q"], table["n"])
    table["stability"] = stable_share(table, CURVE, "gap", "gap_low", "gap_high")
    _judge_curves(table)
    return table[list(COLUMNS)].astype(COLUMNS)


def _highest(estimates: Sequence[Estimates]) -> list[Floats]:
    """P of the mean over pairs among all layers, or all layers and heads, of its kind: (variant,) for each estimate."""
    families: dict[tuple[object, ...], list[int]] = {}
    for k, e in enumerate(estimates):
        if e.layer is not None:
            families.setdefault((e.mode, e.site, e.group, e.measured, e.head is None), []).append(k)
    found = [np.full(len(e.variants), np.nan) for e in estimates]
    for members in families.values():
        drawn = np.stack([estimates[k].drawn for k in members], axis=1).astype(np.float64)
        for k, p in zip(members, max_t(drawn[..., 0], drawn[..., 1:]).T, strict=True):
            found[k] = p
    return found


def _rows(e: Estimates, p_max: Floats) -> pd.DataFrame:
    n_variants, n_pairs = len(e.variants), len(e.pairs)
    values: dict[str, object] = {name: np.asarray(column).reshape(-1) for name, column in e.columns.items()}
    among = np.full((n_variants, n_pairs), np.nan)
    among[:, -1] = p_max if e.pairs[-1] == ("*", "*") else np.nan
    values |= {
        "p_max": among.reshape(-1),
        "head": pd.array([e.head] * (n_variants * n_pairs), dtype="Int64"),
        "metric": e.metric,
        "mode": e.mode,
        "site": e.site,
        "group": e.group,
        "layer": pd.array([e.layer] * (n_variants * n_pairs), dtype="Int64"),
        "variant": np.repeat([name for name, _ in e.variants], n_pairs),
        "threshold": np.repeat([threshold for _, threshold in e.variants], n_pairs),
        "language_a": np.tile([a for a, _ in e.pairs], n_variants),
        "language_b": np.tile([b for _, b in e.pairs], n_variants),
    }
    return pd.DataFrame(values)


def _corrected(table: pd.DataFrame, keys: list[str], headline: pd.Series) -> pd.Series:
    """p-values of each family corrected together; the rows of `headline` are compared whatever `COMPARED` says."""
    families = [table[name].mask(headline, "*") if name in COMPARED else table[name] for name in keys]
    return table.groupby(families, dropna=False)["p"].transform(benjamini_hochberg)


def _judge_curves(table: pd.DataFrame) -> None:
    """What is supported at one threshold, but on too little of the grid, depends on the threshold."""
    unstable = (table["verdict"] == SUPPORTED) & (table["stability"] < STABLE_SHARE)
    table.loc[unstable, "verdict"] = THRESHOLD_DEPENDENT


def stable_share(table: pd.DataFrame, curve: list[str], estimate: str, low: str, high: str) -> pd.Series:
    """Conclusion stability of the curve that a row belongs to; NaN for a curve of one threshold.

    The share of the grid on which the estimate has the sign of its mean over the grid and its interval excludes
    zero. A threshold at which the estimate is undefined supports nothing.
    """
    keys = [table[name] for name in curve]
    mean = table.groupby(keys, dropna=False)[estimate].transform("mean")
    agrees = ((mean > 0) & (table[low] > 0)) | ((mean < 0) & (table[high] < 0))
    curves = agrees.astype("float64").groupby(keys, dropna=False)
    return curves.transform("mean").where(curves.transform("size") > 1)


def contrast_table(
    estimates: Sequence[Estimates], weights: Mapping[str, Floats], *, position: str, n_perm: int, seed: int
) -> pd.DataFrame:  # fmt: skip
    """Mean gap of one group of items minus another's, per layer and over layers.

    Groups are compared by their gaps over their own nulls, never by raw similarity: prompts of two data sets share
    different amounts of template.
    """
    places: dict[tuple[object, ...], list[Estimates]] = {}
    for e in estimates:
        places.setdefault((e.metric, e.mode, e.site, e.layer, e.head), []).append(e)
    # The sets of variants of one place may come as several estimates (macro_layer and pooled).
    rows = [
        _contrast_rows(a, b, weights, n_perm=n_perm, seed=seed)
        for found in places.values()
        for i, a in enumerate(found)
        for b in found[i + 1 :]
        if a.group != b.group and a.measured == b.measured
    ]
    table = pd.concat(rows, ignore_index=True)
    table["position"] = position
    is_overall = table["layer"].isna()
    table["q"] = _corrected(
        table.assign(is_overall=is_overall, is_head=table["head"].notna()), CONTRAST_FAMILY, is_overall
    )
    fewest = table[["n_a", "n_b"]].min(axis=1)
    table["verdict"] = verdicts(table["estimate"], table["low"], table["high"], table["q"], fewest)
    table["stability"] = stable_share(table, CONTRAST_CURVE, "estimate", "low", "high")
    _judge_curves(table)
    order = [*CONTRAST_CURVE[:6], "position", "layer", "head", "threshold", "n_a", "n_b", "estimate", "low", "high"]
    return table[[*order, "p", "q", "stability", "verdict"]]


def _contrast_rows(
    a: Estimates, b: Estimates, weights: Mapping[str, Floats], *, n_perm: int, seed: int
) -> pd.DataFrame:
    found = contrast(
        a.gap_items, b.gap_items, weights[a.group], weights[b.group], n_perm=n_perm, level=LEVELS[a.mode],
        rng=stream(seed, "contrast", a.group, b.group),
    )  # fmt: skip
    n = len(a.variants)
    return pd.DataFrame(
        {
            "metric": a.metric,
            "mode": a.mode,
            "variant": [name for name, _ in a.variants],
            "group_a": a.group,
            "group_b": b.group,
            "site": a.site,
            "layer": pd.array([a.layer] * n, dtype="Int64"),
            "head": pd.array([a.head] * n, dtype="Int64"),
            "threshold": [threshold for _, threshold in a.variants],
            "n_a": found.n_a,
            "n_b": found.n_b,
            "estimate": found.estimate,
            "low": found.low,
            "high": found.high,
            "p": found.p,
        }
    )
