"""What a threshold sweep says as a whole: area under the curve, rank stability, conclusion stability."""

import numpy as np
import pandas as pd

from babelscope.analyses.statistics import NOT_TESTABLE, STABLE_SHARE, SUPPORTED, THRESHOLD_DEPENDENT, Floats

PLACE = ["metric", "mode", "variant", "site", "position", "layer", "group"]


def sweep_summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per swept curve of the means over pairs; no row where nothing was swept.

    Returns
    -------
    DataFrame
        `area_matched` and `area_gap` are areas divided by the width of the grid, so in units of the metric.
        `kendall_tau` is the mean over all pairs of thresholds of the rank correlation of language pairs by gap.
        `conclusion_stability` is the share of the grid on which the gap keeps its sign and its interval excludes
        zero. `n_undefined` counts thresholds without a value.
    """
    swept = table[table["threshold"].notna() & table["head"].isna()]
    means = swept[swept["language_a"] == "*"]
    pairs = swept[swept["language_a"] != "*"]
    tau = {_named(key): _rank_stability(part) for key, part in pairs.groupby(PLACE, dropna=False, sort=False)}
    return _table(
        [{**_row(key, part), "kendall_tau": tau.get(_named(key), float("nan"))} for key, part in _curves(means)]
    )


def contrast_summary(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The same for every contrast of groups: `area_gap` is the area of the difference of gaps."""
    swept = contrasts[contrasts["threshold"].notna() & contrasts["head"].isna()].rename(columns={"estimate": "gap"})
    swept = swept.assign(group=swept["group_a"] + " - " + swept["group_b"], matched=np.nan)
    return _table([{**_row(key, part), "kendall_tau": float("nan")} for key, part in _curves(swept)])


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
        "n_thresholds": len(curve),
        "n_undefined": int(curve["gap"].isna().sum()),
        "lowest": float(curve["threshold"].iloc[0]),
        "highest": float(curve["threshold"].iloc[-1]),
        "area_matched": _area(curve, "matched"),
        "area_gap": _area(curve, "gap"),
        "conclusion_stability": share,
        "verdict": verdict,
    }


def _area(curve: pd.DataFrame, column: str) -> float:
    defined = curve[curve[column].notna()]
    if len(defined) < 2:
        return float("nan")
    x = defined["threshold"].to_numpy(dtype=np.float64)
    return float(np.trapezoid(defined[column].to_numpy(dtype=np.float64), x) / (x[-1] - x[0]))


def _rank_stability(pairs: pd.DataFrame) -> float:
    """Mean Kendall tau-b between the rankings of language pairs at any two thresholds."""
    wide = pairs.set_index(["threshold", "language_a", "language_b"])["gap"].unstack(["language_a", "language_b"])
    return mean_kendall_tau(wide.to_numpy(dtype=np.float64))


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
    tau = (signs @ signs.T) / np.outer(length, length)
    return float(tau[np.triu_indices(len(tau), 1)].mean())
