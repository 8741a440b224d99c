"""The verdict table: every claim that was tested, with its effect, its null, its corrected p and a fixed word."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from babelscope.reports.answers import NOT_TESTABLE, SUPPORTED, number, without_means
from babelscope.reports.source import Source
from babelscope.reports.tables import DASH, contrasted, headline

COLUMNS = ("store", "analysis", "claim", "about", "estimate", "low", "high", "null", "n", "q", "stability", "rows",
           "supported", "below", "verdict")  # fmt: skip

Rows = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True, slots=True)
class Tested:
    """How claims stand in a result that is no metric's and no recipe's.

    Parameters
    ----------
    table, claim, value : str
    band : (str, str)
    null : str
        Column; "" where the value is compared with zero.
    about : tuple of str
        Columns that say what a claim is about; rows that agree in them are counted together.
    rows : callable
        The rows that count.
    """

    table: str
    claim: str
    value: str
    band: tuple[str, str]
    null: str
    about: tuple[str, ...]
    rows: Rows = lambda table: table


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["mode"] == "corrected"]


def _single(table: pd.DataFrame) -> pd.DataFrame:
    """Settings in one language, of which those in all are means; a setting that mixes all has no others."""
    return without_means(table[table["setting"] != "base"], "language", "group", "setting", "mitigation")


BEHAVIOR = (
    Tested("transfer", "answers transfer beyond what independent answers would share", "excess",
           ("excess_low", "excess_high"), "", ("group",), _corrected),
    Tested("rankc", "languages rank the options alike, beyond other items", "gap", ("gap_low", "gap_high"), "",
           ("group",)),
    Tested("trend", "accuracy or transfer follows the dial", "slope", ("low", "high"), "null", ("measure", "dial")),
    Tested("barrier", "mixed questions are answered worse, or better, than whole ones in the base language", "gap_en",
           ("gap_en_low", "gap_en_high"), "", ("group", "setting", "mitigation"), lambda t: _single(_corrected(t))),
    Tested("foreign-pull", "a foreign option is chosen oftener, or less often", "pull", ("pull_low", "pull_high"), "",
           ("group", "setting", "mitigation"), lambda t: _single(t[t["gold"] == "all"])),
    Tested("mitigations", "a mitigation changes accuracy", "change", ("change_low", "change_high"), "",
           ("group", "mitigation"), _single),
    Tested("translation", "translations are closer to their own reference", "score", ("low", "high"), "null",
           ("measure",)),
    Tested("probe", "a probe reads the target off a layer", "score", ("low", "high"), "null",
           ("target", "variant", "pairs", "site"), lambda t: t[t["pairs"] != "one"]),
    Tested("erasure", "erasing language changes what can be read", "change", ("low", "high"), "", ("value", "site")),
)  # fmt: skip


def verdicts(sources: Sequence[Source]) -> pd.DataFrame:
    """Every claim of the sources, one row each; claims made of many rows (layers, languages) are counted.

    Returns
    -------
    DataFrame
        The columns of `COLUMNS`. Where `rows` is above 1, estimate, interval, null, n and q are those of the median
        row, `supported` counts the rows with that verdict, `below` those of them whose effect is below the null, and
        `verdict` is theirs where all agree, else "".
    """
    found = [{"store": s.name, **row} for s in sources for row in _of_source(s)]
    return pd.DataFrame(found, columns=list(COLUMNS))


def _of_source(source: Source) -> Iterator[dict[str, object]]:
    yield from _of_metrics(source)
    for result in source.results:
        if "claim" in result.table and not result.name.endswith("_layers"):
            yield from ({"analysis": result.name.replace("_", "-"), **row} for row in _of_recipe(result.table))
    for tested in BEHAVIOR:
        table = source.table(tested.table)
        if table is not None:
            yield from ({"analysis": tested.table, **row} for row in _of_table(tested, tested.rows(table)))


def _of_metrics(source: Source) -> Iterator[dict[str, object]]:
    contrasts = contrasted(source.results)
    for row in headline(source.results).to_dict("records"):
        is_contrast = row["group"] in contrasts
        threshold = f", threshold {row['threshold']:g}" if pd.notna(row["threshold"]) else ""
        said = "gaps of two groups differ" if is_contrast else "matched items are more alike than mismatched ones"
        yield {
            "analysis": row["metric"], "claim": f"{row['variant']}{threshold}: {said}", "about": f"{row['group']}, "
            f"{row['site']}",
            "estimate": row["gap"], "low": row["gap_low"], "high": row["gap_high"],
            "null": 0.0 if is_contrast else row["null"], "n": row["n"], "q": row["q"], "stability": row["stability"],
            "rows": 1, "supported": int(row["verdict"] == SUPPORTED), "below": 0, "verdict": row["verdict"],
        }  # fmt: skip


def _of_recipe(table: pd.DataFrame) -> Iterator[dict[str, object]]:
    tested = without_means(table[table["verdict"].astype(bool)], "language_a", "claim", "group", "site")
    whole = tested[tested["layer"].isna()]
    for names, rows in (whole if len(whole) else tested).groupby(["claim", "group", "site"], sort=False):
        about = ", ".join(str(name) for name in names[1:] if name)
        yield _counted(rows, str(names[0]), about, "estimate", ("low", "high"), "null")


def _of_table(tested: Tested, rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    for names, part in rows.groupby(list(tested.about), sort=False):
        about = ", ".join(str(name) for name in names if name)
        yield _counted(part, tested.claim, about, tested.value, tested.band, tested.null)


def _counted(
    rows: pd.DataFrame, claim: str, about: str, value: str, band: tuple[str, str], null: str
) -> dict[str, object]:
    """One row of the verdict table: that of the median where there are several."""
    known = rows[rows[value].notna()].sort_values(value, kind="stable")
    held, under = rows["verdict"] == SUPPORTED, rows[value] < (rows[null] if null else 0.0)
    words = list(dict.fromkeys(rows["verdict"].astype(str)))
    row = {"claim": claim, "about": about, "rows": len(rows), "supported": int(held.sum()),
           "below": int((held & under).sum()), "verdict": words[0] if len(words) == 1 else ""}  # fmt: skip
    if known.empty:
        return {**row, "n": 0, "verdict": NOT_TESTABLE}
    middle = known.iloc[(len(known) - 1) // 2]
    return {
        **row, "estimate": middle[value], "low": middle[band[0]], "high": middle[band[1]],
        "null": middle[null] if null else 0.0, "n": middle["n"], "q": middle["q"],
        "stability": middle.get("stability", float("nan")),
    }  # fmt: skip


def verdict_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """The verdict table as text for people, one record per claim."""
    found = []
    for row in table.to_dict("records"):
        several = int(row["rows"]) > 1
        found.append({
            **{name: str(row[name]) for name in ("store", "analysis", "claim", "about")}, "effect": _effect(row),
            "null": _shown(row["null"], number), "n": _shown(row["n"], lambda v: str(int(v))),
            "q": _shown(row["q"], lambda v: f"{v:.2g}"), "stability": _shown(row["stability"], lambda v: f"{v:.2f}"),
            "verdict": _counts(row) if several else str(row["verdict"]),
            "holds": "yes" if row["supported"] == row["rows"] else "some" if row["supported"] else "no",
        })  # fmt: skip
    return found


def _counts(row: Mapping[Hashable, Any]) -> str:
    """In how many rows a claim is supported, and in how many of them by an effect below the null."""
    below = f", {row['below']} of them below the null" if row["below"] else ""
    return f"supported in {row['supported']} of {row['rows']}{below}"


def _shown(value: Any, text: Callable[[float], str]) -> str:
    return DASH if pd.isna(value) else text(float(value))


def _effect(row: Mapping[Hashable, Any]) -> str:
    if pd.isna(row["estimate"]):
        return "undefined"
    text = number(row["estimate"])
    if pd.notna(row["low"]):
        text += f" [{number(row['low'])}, {number(row['high'])}]"
    return f"{text}, median" if int(row["rows"]) > 1 else text
