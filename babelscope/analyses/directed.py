"""Verdicts of claims that say that an estimate is above its null."""

import pandas as pd

from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, STABLE_SHARE, SUPPORTED, THRESHOLD_DEPENDENT, verdicts


def directed_verdicts(claims: pd.DataFrame) -> pd.Series:
    """The fixed words for each row of a table of claims, whose interval is drawn around the null.

    An estimate below its null is no support, whatever its p; one that holds at too few thresholds depends on them.
    """
    above, low, high = (claims[name] - claims["null"] for name in ("estimate", "low", "high"))
    words = verdicts(above, low, high, claims["q"], claims["n"])
    words = words.mask((words == SUPPORTED) & (above < 0), NOT_DISTINGUISHABLE)
    return words.mask((words == SUPPORTED) & (claims["stability"] < STABLE_SHARE), THRESHOLD_DEPENDENT)
