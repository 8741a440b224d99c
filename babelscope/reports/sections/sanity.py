"""Floor and ceiling: what random weights and paraphrases give."""

import pandas as pd

from babelscope.reports.answers import summaries
from babelscope.reports.captions import spread
from babelscope.reports.charts import curves
from babelscope.reports.similarity_figures import named
from babelscope.reports.source import Figure, Part, Section, Source
from babelscope.reports.tables import at_one_threshold


def _of_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of whole layers; those of single heads are in the table."""
    rows: pd.DataFrame = table[table["layer"].notna() & table["head"].isna()]
    return rows


def _floor(source: Source) -> list[Figure]:
    table = source.table("floor")
    assert table is not None
    rows = _of_layers(table[table["mode"] == "corrected"])
    found = []
    for (metric, variant), whole in rows.groupby(["metric", "variant"], sort=False):
        part = at_one_threshold(whole)
        if part["layer"].nunique() < 2:
            continue
        kept = ["group", "site", "layer", "n", "q"]
        long = pd.concat(
            part[[*kept]].assign(weights=weights, gap=part[column], null=0.0)
            for weights, column in (("trained", "gap_model"), ("random", "gap_random"))
        )
        caption = (
            f"Gap over the null with the model's weights and with random ones, n = {spread(part['n'], 'd')}. What "
            "random weights reach is made of the input alone. The interval of the difference is in the table."
        )
        chart = curves(long, "layer", "gap", color="weights", band=None, column="group", row="site", zero=True)
        answer = summaries(named(part), "name", "above_floor", null="", each="layer", where="layer")
        title = f"{metric}, {variant}: trained and random weights"
        found.append(Figure("floor", "corrected", title, caption, chart, part, answer))
    return found


def _ceiling(source: Source) -> list[Figure]:
    table = source.table("ceiling")
    assert table is not None
    rows = _of_layers(table)
    found = []
    for (metric, variant), whole in rows.groupby(["metric", "variant"], sort=False):
        part = at_one_threshold(whole)
        if part["layer"].nunique() < 2:
            continue
        caption = (
            "Of the gap that a language has with its own paraphrase, the share that languages reach among each other, "
            f"with its 95 % interval over items, n = {spread(part['n'], 'd')}; dashed: all of it."
        )
        chart = curves(
            part.assign(null=1.0), "layer", "share", color="group", column="site", row="paraphrase", zero=True
        )
        found.append(Figure("ceiling", "corrected", f"{metric}, {variant}: share of the ceiling", caption, chart, part))
    return found


section = Section(
    "Floor and ceiling",
    "What do nothing and everything look like here?",
    (
        Part("Random weights", "analyze STORE --baseline random-init", ("floor",), _floor),
        Part(
            "Paraphrases",
            "analyze STORE",
            ("ceiling",),
            _ceiling,
            prompts="a language that paraphrases another, as en-x-para",
        ),
    ),
)
