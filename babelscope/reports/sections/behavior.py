"""Behavior: whether an ability passes from language to language, beyond both being easy."""

import altair as alt
import pandas as pd

from babelscope.reports.answers import sentence, summaries
from babelscope.reports.captions import spread
from babelscope.reports.charts import HEIGHT, MATCHED, NULL, faceted, forest, heat, tips
from babelscope.reports.curves import dial_curves
from babelscope.reports.source import Figure, Part, Section, Source


def _accuracy(source: Source) -> list[Figure]:
    table = source.table("accuracy")
    assert table is not None
    base = alt.Chart().encode(x=alt.X("language:N", title="language", sort=None))
    y = alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1]))
    shown = tips(table, "task", "language", "accuracy", "low", "high", "n", "chance")
    layered = alt.layer(
        base.mark_tick(color=NULL, thickness=2, width=14).encode(y="chance:Q"),
        base.mark_rule(color=MATCHED).encode(y=alt.Y("low:Q", title="accuracy"), y2="high:Q"),
        base.mark_point(color=MATCHED, filled=True, opacity=1, size=45).encode(y=y, tooltip=shown),
    ).properties(width=alt.Step(24), height=HEIGHT)
    caption = (
        f"Share of items whose right option scores best, with its Wilson 95 % interval, n = {spread(table['n'], 'd')} "
        "for each point; the dashes mark chance."
    )
    return [Figure("accuracy", "corrected", "What the model can do", caption, faceted(layered, table, "task"), table,
                   _above_chance(table))]  # fmt: skip


def _above_chance(table: pd.DataFrame) -> str:
    said = {}
    for task, rows in table.groupby("task", sort=False):
        above = int((rows["low"] > rows["chance"]).sum())
        said[str(task)] = (
            f"the interval lies above chance, {rows['chance'].mean():.2f}, in {above} of {len(rows)} languages; "
            f"accuracy {rows['accuracy'].min():.2f} to {rows['accuracy'].max():.2f} (n = {spread(rows['n'], 'd')})"
        )
    return sentence(said)


def _transfer(source: Source) -> list[Figure]:
    found = []
    table = source.table("transfer")
    assert table is not None
    rows = table[(table["mode"] == "corrected") & table["xltr"].notna() & (table["language_b"] != "*")]
    if len(rows):
        shown = rows.assign(pair=rows["language_a"] + " to " + rows["language_b"])
        chart = forest(shown, "pair", "xltr", band=("xltr_low", "xltr_high"), column="group", title="XLTR")
        caption = (
            "Of what the model knows in the source language, the share that it knows in the target, with its 95 % "
            f"interval over items, n = {spread(rows['n'], 'd')}; the tick is what independent answers of "
            "the same accuracies would give. Only what lies beyond the tick is transfer."
        )
        answer = summaries(shown, "group", "excess", band=("excess_low", "excess_high"), null="", each="language",
                           where="language_b")  # fmt: skip
        answer = f"Excess over independent answers: {answer[:1].lower()}{answer[1:]}"
        found.append(Figure("transfer", "corrected", "Transfer of knowledge (XLTR)", caption, chart, rows, answer))
    ranks = source.table("rankc")
    if ranks is not None:
        caption = (
            "Consistency of the ranking of options (RankC), corrected for chance, mismatched items as null; a dot "
            "marks a pair with q of .05 or more. Point at a cell for its null, interval and n."
        )
        mirrored = ranks.rename(columns={"language_a": "language_b", "language_b": "language_a"})
        both = pd.concat([ranks, mirrored])[[*ranks.columns]]
        order = list(dict.fromkeys([*ranks["language_a"], *ranks["language_b"]]))
        chart = heat(both, "language_a", "language_b", "corrected", column="group", faint="q", title="RankC, corrected",
                     order=order)  # fmt: skip
        named = ranks.assign(pair=ranks["language_a"] + "-" + ranks["language_b"])
        answer = summaries(named, "group", "gap", band=("gap_low", "gap_high"), each="pair", where="pair")
        found.append(
            Figure("rankc", "corrected", "Agreement of languages on all options", caption, chart, ranks, answer)
        )
    return found


def _curves(source: Source) -> list[Figure]:
    table = source.table("curves")
    assert table is not None
    caption = (
        f"Accuracy and XLTR against {table['dial'].iloc[0]}; bands are 95 % intervals, n = {spread(table['n'], 'd')}; "
        "dashed: chance, and what independent answers would give."
    )
    trend = source.table("trend")
    answer = ""
    if trend is not None:
        answer = summaries(trend, "measure", "slope", each="language", where="language")
    return [Figure("curves", "corrected", "Along the dial", caption, dial_curves(table), table, answer)]


section = Section(
    "Behavior",
    "Does an ability pass from language to language, beyond both being easy?",
    (
        Part("Accuracy", "evaluate STORE", ("accuracy",), _accuracy, prompts="options with a right one (--answers)"),
        Part("Transfer", "evaluate STORE", ("transfer", "rankc"), _transfer),
        Part("Along a dial", "evaluate STORE --by depth --out STORE.depth", ("curves",), _curves,
             prompts="an item covariate with three numbers or more, as depth"),
    ),
)  # fmt: skip
