"""Probes: what can be read off a layer, in which languages, once language is removed."""

import pandas as pd

from babelscope.reports.answers import summaries
from babelscope.reports.captions import spread
from babelscope.reports.charts import curves, forest, heat, menu
from babelscope.reports.source import Figure, Part, Section, Source


def _scores(source: Source) -> list[Figure]:
    table = source.table("probe")
    assert table is not None
    target = str(table["target"].iloc[0])
    means = table[table["pairs"] != "one"]
    found = []
    if means["layer"].nunique() > 1:
        caption = (
            f"Balanced accuracy on items that the probe ({table['probe'].iloc[0]}) has not seen, fitted and tested in "
            "one language (within) and in two (across); bands are 95 % intervals over items, "
            f"n = {spread(means['n'], 'd')}; dashed: probes fitted to shuffled labels. "
            "Point for the control task and for selectivity."
        )
        shown = means.drop(columns=["language_a", "language_b", "target", "probe", "position"])
        chart = curves(shown, "layer", "score", color="pairs", column="variant", row="site", title="balanced accuracy")
        answer = _said(means)
        found.append(Figure("probes", "corrected", f"Probes for {target}: by layer", caption, chart, means, answer))
    ones = table[(table["pairs"] == "one") & (table["language_a"] != "*")]
    for (site, variant), part in ones.groupby(["site", "variant"], sort=False):
        found.append(
            _matrix(part, f"Probes for {target}: fitted in one language, tested in another, {site}, {variant}")
        )
    return found


def _said(means: pd.DataFrame) -> str:
    named = means.assign(name=means["variant"] + ", " + means["pairs"])
    return summaries(named, "name", "score", each="layer", where="layer")


def _matrix(part: pd.DataFrame, title: str) -> Figure:
    layers = [int(v) for v in sorted(part["layer"].dropna().unique())]
    shown = part[["language_a", "language_b", "layer", "n", "score", "low", "high", "null", "control", "selectivity",
                  "transfer", "q", "p_max", "verdict"]].rename(
        columns={"language_a": "fitted in", "language_b": "tested in"}
    )  # fmt: skip
    chart = heat(shown, "tested in", "fitted in", "score", title="balanced accuracy", faint="q")
    how = ""
    if len(layers) > 1:
        picked = menu(title, "layer", layers, layers[-1])
        chart = chart.transform_filter(f"datum.layer == {picked.name}").add_params(picked)  # type: ignore[attr-defined]
        how = " Choose a layer: the last one is shown first, not the best."
    caption = (
        f"Balanced accuracy, n = {spread(part['n'], 'd')}; a dot marks q of .05 or more.{how} Point at a cell for its "
        "interval, for shuffled labels, and for the control task."
    )
    return Figure("probe matrix", "corrected", title, caption, chart, part)


def _erasure(source: Source) -> list[Figure]:
    table = source.table("erasure")
    assert table is not None
    long = table.melt(
        id_vars=[c for c in table.columns if c not in ("before", "after")], value_vars=["before", "after"],
        var_name="when", value_name="score",
    )  # fmt: skip
    caption = (
        f"Before and after language was erased (LEACE), n = {spread(table['n'], 'd')}; dashed: chance. The change with "
        "its interval is in the tooltip and in the table."
    )
    if long["layer"].nunique() > 1:
        chart = curves(long, "layer", "score", color="when", band=None, null="chance", column="value", row="site")
    else:
        rows = table.assign(null=0.0)
        chart = forest(rows, "value", "change", column="site", title="change by erasing language")
    answer = summaries(table, "value", "change", null="", each="layer", where="layer")
    return [Figure("erasure", "corrected", "What is left when language is erased", caption, chart, table, answer)]


def _lengths(source: Source) -> list[Figure]:
    table = source.table("description-length")
    assert table is not None
    caption = (
        f"Compression of the labels by the online code, n = {spread(table['n'], 'd')}; bands are extremes over orders "
        "of items, no interval over items; dashed: shuffled labels."
    )
    chart = curves(table, "layer", "compression", color="language", band=("worst_order", "best_order"), column="site")
    answer = summaries(table.assign(all="all"), "all", "compression", band=("worst_order", "best_order"),
                       each="layer and language", where="layer")  # fmt: skip
    return [
        Figure("description length", "corrected", "Description length of the labels", caption, chart, table, answer)
    ]


section = Section(
    "Probes",
    "What can be read off a layer, in which languages, once language is removed?",
    (
        Part("Probes", "probe STORE --target gold-letter", ("probe",), _scores, ("resid.post",)),
        Part("Erasing language", "probe STORE --target gold-letter --variant raw --variant erased --out STORE.erased",
             ("erasure",), _erasure, ("resid.post",)),
        Part("Description length", "probe STORE --target gold-letter --mdl --out STORE.mdl", ("description-length",),
             _lengths, ("resid.post",)),
    ),
)  # fmt: skip
