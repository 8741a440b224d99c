"""What a threshold sweep says as a whole: area under the curve, rank stability, conclusion stability."""

import numpy as np
import pandas as pd

from babelscope.analyses.statistics import NOT_TESTABLE, STABLE_SHARE, SUPPORTED, THRESHOLD_DEPENDENT, Floats

PLACE = ["metric", "mode", "variant", "site", "position", "layer", "group"]

# Shares of neurons span orders of magnitude: from 0.5 % to 1 % is as far as from 5 % to 10 %.
LOGARITHMIC = "_top"


def sweep_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per swept curve of the means over pairs; no row where nothing was swept.

    Returns
    -------
    DataFrame
        `n` is the smallest number of items at any threshold. `area_matched` and `area_gap` are areas over the grid (or
        its logarithm: `axis`) divided by its width, so in units of the metric; `gap_min` and `gap_max` are the ends
        of the gap. `kendall_tau` is the mean over all pairs of thresholds of the rank correlation of
        language pairs by gap; `kendall_tau_layers` that of the layers, in rows over layers; `kendall_tau_groups` that
        of the groups. `conclusion_stability` is the share of the grid on which the gap keeps its sign and its interval
        excludes zero. `n_undefined` counts thresholds without a value.
    """
    swept = table[table["threshold"].notna() & table["head"].isna()]
    means = swept[swept["language_a"] == "*"]
    pairs = _rank_stability(swept[swept["language_a"] != "*"], ["language_a", "language_b"], PLACE)
    layers = _rank_stability(means[means["layer"].notna()], ["layer"], _without("layer"))
    groups = _rank_stability(means, ["group"], _without("group"))
    rows = []
    for key, part in _curves(means):
        named = dict(zip(PLACE, _named(key), strict=True))
        ranks = {
            "kendall_tau": _of(pairs, named, PLACE),
            "kendall_tau_layers": _of(layers, named, _without("layer")) if part["layer"].isna().all() else np.nan,
            "kendall_tau_groups": _of(groups, named, _without("group")),
        }
        rows.append({**_row(key, part), **ranks})
    return _table(rows)


def contrast_summary(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The same for every contrast of groups: `area_gap` is the area of the difference of gaps."""
    swept = contrasts[contrasts["threshold"].notna() & contrasts["head"].isna()].rename(columns={"estimate": "gap"})
    fewest = swept[["n_a", "n_b"]].min(axis=1)
    swept = swept.assign(group=swept["group_a"] + " - " + swept["group_b"], matched=np.nan, n=fewest)
    layers = _rank_stability(swept[swept["layer"].notna()], ["layer"], _without("layer"))
    rows = []
    for key, part in _curves(swept):
        named = dict(zip(PLACE, _named(key), strict=True))
        tau = _of(layers, named, _without("layer")) if part["layer"].isna().all() else np.nan
        rows.append({**_row(key, part), "kendall_tau": np.nan, "kendall_tau_layers": tau, "kendall_tau_groups": np.nan})
    return _table(rows)


def _without(name: str) -> list[str]:
    return [part for part in PLACE if part != name]


def _of(found: dict[tuple[str, ...], float], named: dict[str, str], place: list[str]) -> float:
    return found.get(tuple(named[part] for part in place), float("nan"))


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    # Group keys come back as objects; saved and loaded again they would be floats.
    return table.astype({"layer": "Int64"}) if rows else table


def _named(key: tuple[object, ...]) -> tuple[str, ...]:
    """A key that equals itself also where a part is missing."""
    return tuple(str(part) for part in key)


def _curves(table: pd.DataFrame) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    grouped = table.groupby(PLACE, dropna=False, sort=False)
    return [(key, part.sort_values("threshold")) for key, part in grouped if len(part) > 1]


def _row(key: tuple[object, ...], curve: pd.DataFrame) -> dict[str, object]:
    share = float(curve["stability"].iloc[0])
    supported = (curve["verdict"] == SUPPORTED) | (curve["verdict"] == THRESHOLD_DEPENDENT)
    if curve["gap"].isna().all():
        verdict = NOT_TESTABLE
    elif supported.any():
        verdict = SUPPORTED if share >= STABLE_SHARE else THRESHOLD_DEPENDENT
    else:
        verdict = str(curve["verdict"].iloc[0])
    return {
        **dict(zip(PLACE, key, strict=True)),
        "n": int(curve["n"].min()),
        "n_thresholds": len(curve),
        "n_undefined": int(curve["gap"].isna().sum()),
        "lowest": float(curve["threshold"].iloc[0]),
        "highest": float(curve["threshold"].iloc[-1]),
        "axis": "log" if _logarithmic(curve) else "linear",
        "area_matched": _area(curve, "matched"),
        "area_gap": _area(curve, "gap"),
        "gap_min": float(curve["gap"].min()),
        "gap_max": float(curve["gap"].max()),
        "conclusion_stability": share,
        "verdict": verdict,
    }


def _area(curve: pd.DataFrame, column: str) -> float:
    defined = curve[curve[column].notna()]
    if len(defined) < 2:
        return float("nan")
    x = defined["threshold"].to_numpy(dtype=np.float64)
    x = np.log(x) if _logarithmic(curve) else x
    return float(np.trapezoid(defined[column].to_numpy(dtype=np.float64), x) / (x[-1] - x[0]))


def _logarithmic(curve: pd.DataFrame) -> bool:
    return str(curve["variant"].iloc[0]).endswith(LOGARITHMIC)


def _rank_stability(table: pd.DataFrame, ranked: list[str], place: list[str]) -> dict[tuple[str, ...], float]:
    """Mean Kendall tau-b between the rankings of something by gap at any two thresholds, for each place."""
    found = {}
    for key, part in table.groupby(place, dropna=False, sort=False):
        names = part[ranked].astype(str).agg("/".join, axis=1)
        wide = part.assign(ranked=names).set_index(["threshold", "ranked"])["gap"].unstack("ranked")
        found[_named(key)] = mean_kendall_tau(wide.to_numpy(dtype=np.float64))
    return found


def mean_kendall_tau(rankings: Floats) -> float:
    """Mean tau-b over all pairs of rows of (row, object) scores; NaN with fewer than two comparable rows.

    A row with an undefined score or with nothing but ties ranks nothing and does not count.
    """
    rows = rankings[~np.isnan(rankings).any(axis=1)]
    a, b = np.triu_indices(rows.shape[1], 1)
    signs = np.sign(rows[:, a] - rows[:, b])
    length = np.sqrt((signs**2).sum(axis=1))
    signs, length = signs[length > 0], length[length > 0]
    if len(signs) < 2:
        return float("nan")
    tau = np.clip((signs @ signs.T) / np.outer(length, length), -1, 1)
    return float(tau[np.triu_indices(len(tau), 1)].mean())
