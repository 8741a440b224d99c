"""Predictive validity: which internal metric predicts answers and transfer."""

from babelscope.reports.answers import summaries
from babelscope.reports.captions import spread
from babelscope.reports.charts import curves
from babelscope.reports.claim_figures import claims
from babelscope.reports.source import Figure, Part, Section, Source


def _layers(source: Source) -> list[Figure]:
    table = source.table("predictive_validity_layers")
    if table is None:
        return []
    known = table[table["correlation"].notna()]
    if known.empty:
        return []
    rows = known.assign(similarity=known["metric"] + " " + known["variant"])
    caption = (
        "Correlation of an item's gap with its being answered right (or right in both languages), within languages, so "
        f"that easy languages do not decide; bands are 95 % intervals over items, n = {spread(rows['n'], 'd')}; "
        "dashed: 0."
    )
    shown = rows.assign(place=rows["group"] + ", " + rows["site"]).drop(columns=["metric", "variant"])
    chart = curves(shown, "layer", "correlation", color="similarity", column="outcome", row="place")
    answer = summaries(rows, "outcome", "correlation", each="row", where="similarity")
    return [Figure("prediction", "corrected", "Does a similarity predict answers, item by item?", caption, chart, rows,
                   answer)]  # fmt: skip


section = Section(
    "Predictive validity",
    "Which internal metric predicts answers and transfer?",
    (
        Part("Claims", "analyze STORE --recipe predictive-validity", ("predictive_validity",),
             claims("predictive_validity", "Within languages, and across them"), ("resid.post", "mlp.act")),
        Part("By layer", "analyze STORE --recipe predictive-validity", ("predictive_validity_layers",), _layers,
             ("resid.post", "mlp.act")),
    ),
)  # fmt: skip
