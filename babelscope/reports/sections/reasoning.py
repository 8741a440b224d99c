"""Reasoning and retrieval: whether neurons of reasoning are shared, and those of knowledge separate."""

import altair as alt

from babelscope.reports.captions import spread
from babelscope.reports.charts import WIDTH, color_of, curves, faceted, tips
from babelscope.reports.claim_figures import claims
from babelscope.reports.source import Figure, Part, Section, Source


def _curves(source: Source) -> list[Figure]:
    table = source.table("reasoning_vs_retrieval_curves")
    if table is None:
        return []
    caption = (
        "Fall of the score of the right answer when the top neurons of a kind are ablated, with its 95 % interval, "
        f"n = {spread(table['n'], 'd')} items; dashed: no fall. Controls are random neurons of the same layers and "
        "output norms. A double dissociation is a crossing: each kind hurts its own items."
    )
    chart = curves(table, "size", "drop", color="neurons", column="items", row="language", zero=True)
    return [
        Figure("dissociation", "corrected", "Ablation of retrieval and of reasoning neurons", caption, chart, table)
    ]


def _neurons(source: Source) -> list[Figure]:
    table = source.table("reasoning_vs_retrieval_neurons")
    if table is None:
        return []
    named = table.assign(unit="L" + table["layer"].astype(str) + " N" + table["neuron"].astype(str))
    chart = (
        alt.Chart()
        .mark_circle(size=40, opacity=0.7)
        .encode(
            x=alt.X("t:Q", title="t in one half of the items"),
            y=alt.Y("t_other_half:Q", title="t in the other half"),
            color=color_of(named, "kind"),
            tooltip=tips(named),
        )
        .properties(width=WIDTH * 0.8, height=WIDTH * 0.8)
    )
    caption = (
        "Selected neurons: effect on the items that they were chosen by, and on the others, "
        f"n = {spread(table['n'], 'd')}. Without an effect the second is around zero."
    )
    return [Figure("selected neurons", "corrected", "Do chosen neurons replicate?", caption,
                   faceted(chart, named, "language"), table)]  # fmt: skip


section = Section(
    "Reasoning and retrieval",
    "Are neurons of reasoning shared between languages, and neurons of knowledge separate?",
    (
        Part("Double dissociation", "analyze STORE --recipe reasoning-vs-retrieval", ("reasoning_vs_retrieval",),
             claims("reasoning_vs_retrieval", "Claims of the dissociation"), ("mlp.neurons",)),
        Part("Curves", "analyze STORE --recipe reasoning-vs-retrieval", ("reasoning_vs_retrieval_curves",), _curves,
             ("mlp.neurons",)),
        Part("Neurons", "analyze STORE --recipe reasoning-vs-retrieval", ("reasoning_vs_retrieval_neurons",), _neurons,
             ("mlp.neurons",)),
        Part("Attribution", "analyze STORE --recipe neuron-attribution", ("neuron_attribution",),
             claims("neuron_attribution", "Neurons that answers rest on"), ("mlp.neurons",)),
        Part("Ablation along the ranking", "analyze STORE --recipe neuron-ablation", ("neuron_ablation",),
             claims("neuron_ablation", "Ablation of the neurons that rank first"), ("mlp.neurons",)),
    ),
)  # fmt: skip
