"""The first rows of a result table, with what decides first: values with their intervals, nulls, n and verdicts."""

from typing import TYPE_CHECKING

from babelscope.schema.glance import Sample

if TYPE_CHECKING:
    import pandas as pd

# Columns that say what a row is about though they are numbers.
_PLACES = ("layer", "head", "threshold", "step", "top")
# Columns that stand beside a value, in the order in which they are read.
_BESIDE = ("null", "chance", "n", "n_a", "n_b", "q", "p_max", "verdict", "stability", "p")
# Values that are what a table is about, where it has several with an interval.
_EVIDENCE = ("gap", "excess")
_UNDEFINED = {"layer": "all", "head": "all", "threshold": "–", "stability": "–"}


def sample(table: "pd.DataFrame", rows: int = 8) -> Sample:
    """The first rows: what a row is about, its value with its interval, null, n, q and verdict, and then all else.

    Columns without any value are left out, and so are texts that are equal in all rows: these stand below.
    """
    defined = [str(c) for c in table if table[c].notna().any()]
    texts = [c for c in defined if table[c].dtype.kind not in "biufcM" and c not in _BESIDE]
    common = {c: str(table[c].iloc[0]) for c in texts if len(table) > 1 and table[c].nunique(dropna=False) == 1}
    owners = _intervals(defined)
    bounds = {bound for pair in owners.values() for bound in pair}
    keys = [c for c in defined if c not in common and (c in texts or c in _PLACES)]
    beside = [c for c in _BESIDE if c in defined]
    values = sorted(owners, key=lambda c: c not in _EVIDENCE)
    first = [*keys, *values[:1], *beside, *values[1:]]
    columns = [*first, *(c for c in defined if c not in {*first, *common, *bounds})]
    shown = table.head(rows)
    cells = {c: [_text(value, c) for value in shown[c]] for c in defined}
    for owner, (low, high) in owners.items():
        ends = zip(cells[owner], cells[low], cells[high], strict=True)
        cells[owner] = [v if a == "undefined" == b else f"{v} [{a}, {b}]" for v, a, b in ends]
    same = ", ".join(f"{name} {text}" for name, text in common.items() if text)
    texts_of_rows = tuple(zip(*(cells[c] for c in columns), strict=True))
    return Sample(tuple(columns), texts_of_rows, len(table), same, max(1, len(keys)))


def _intervals(columns: list[str]) -> dict[str, tuple[str, str]]:
    """Value -> its bounds: `gap_low` and `gap_high` belong to `gap`, `low` and `high` to the column before them."""
    found = {c: (f"{c}_low", f"{c}_high") for c in columns if f"{c}_low" in columns and f"{c}_high" in columns}
    if {"low", "high"} <= set(columns) and columns.index("low") > 0:
        found[columns[columns.index("low") - 1]] = ("low", "high")
    return found


def _text(value: object, column: str) -> str:
    import pandas as pd  # the nouns load without it: `--help` needs no tables

    if not isinstance(value, str) and pd.isna(value):  # type: ignore[call-overload]
        return _UNDEFINED.get(column, "undefined")
    return f"{value:.3g}" if isinstance(value, float) else str(value)
