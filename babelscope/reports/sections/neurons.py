"""Neurons of languages: whether they exist, and whether they matter."""

import altair as alt

from babelscope.reports.answers import summaries
from babelscope.reports.captions import spread
from babelscope.reports.charts import HEIGHT, MATCHED, NULL, WIDTH, faceted, heat, tips
from babelscope.reports.claim_figures import claims
from babelscope.reports.source import Figure, Part, Section, Source

MOST_DETECTORS = 25  # of each language


def _counts(source: Source) -> list[Figure]:
    table = source.table("language_neurons_layers")
    if table is None:
        return []
    base = alt.Chart().encode(x=alt.X("layer:O", title="layer"))
    chart = alt.layer(
        base.mark_bar(color=MATCHED, opacity=0.8).encode(
            y=alt.Y("neurons:Q", title="LAPE neurons"), tooltip=tips(table)
        ),
        base.mark_tick(color=NULL, thickness=2, width=12).encode(y="null:Q", tooltip=tips(table)),
    ).properties(width=max(90, WIDTH // 3), height=HEIGHT * 0.7)
    found = source.table("language_neurons")
    answer = ""
    if found is not None:
        answer = summaries(
            found[found["claim"] == "LAPE neurons (paper)"], "group", each="language", where="language_a"
        )
    caption = (
        f"Neurons that LAPE assigns to a language, n = {spread(table['n'], 'd')} items; the tick is the mean count "
        "where the languages of the prompts are permuted."
    )
    return [Figure("language neurons", "corrected", "Language neurons by layer, beside permuted languages", caption,
                   faceted(chart, table, "language", "group"), table, answer)]  # fmt: skip


def _detectors(source: Source) -> list[Figure]:
    table = source.table("language_neurons_detectors")
    if table is None:
        return []
    named = table.assign(neuron="L" + table["layer"].astype(str) + " N" + table["neuron"].astype(str))
    best = named.groupby(["group", "language"], sort=False).head(MOST_DETECTORS)
    picked = alt.selection_point(fields=["neuron"], on="click", empty=False)
    base = alt.Chart().add_params(picked)
    points = base.mark_circle(size=45).encode(
        x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("auroc:Q", scale=alt.Scale(zero=False)),
        color=alt.condition(picked, alt.value(NULL), alt.value(MATCHED)),
        opacity=alt.condition(picked, alt.value(1), alt.value(0.6)),
        tooltip=tips(best),
    )
    caption = (
        f"The {MOST_DETECTORS} neurons that tell each language best from all others (AUROC, null .5), n = "
        f"{spread(table['n'], 'd')} items a language. Click a neuron to see it in all languages whose list it is in; "
        "q is corrected over all neurons. Detecting a language says nothing about its use: see the ablation below."
    )
    chart = faceted(points.properties(width=max(110, WIDTH // 2), height=HEIGHT), best, "language", "group")
    return [Figure("detectors", "corrected", "Neurons that detect a language", caption, chart, table)]


def _ablation(source: Source) -> list[Figure]:
    table = source.table("ablation_selectivity_matrix")
    if table is None:
        return []
    found = source.table("ablation_selectivity")
    answer = ""
    if found is not None:
        own = found[found["claim"].str.startswith("damage in the own language less")]
        answer = summaries(own, "group", each="row")
    caption = (
        "Loss of log-probability of the right answer (nats) when the neurons of one language are ablated, less that by "
        f"matched random neurons, n = {spread(table['n'], 'd')} items. Blue is damage; "
        "off the diagonal it is damage to other languages."
    )
    chart = heat(table, "language", "neurons_of", "damage", title="damage (nats)", column="group", around=0.0)
    return [Figure("ablation", "corrected", "What ablating the neurons of a language damages", caption, chart, table,
                   answer)]  # fmt: skip


section = Section(
    "Neurons of languages",
    "Do neurons of a language exist, and do they matter?",
    (
        Part("LAPE neurons", "analyze STORE --recipe language-neurons --by none", ("language_neurons_layers",), _counts,
             ("mlp.act",)),
        Part("Detectors", "analyze STORE --recipe language-neurons --by none", ("language_neurons_detectors",),
             _detectors, ("mlp.act",)),
        Part("Claims about language neurons", "analyze STORE --recipe language-neurons --by none",
             ("language_neurons",), claims("language_neurons", "Language neurons: all claims"), ("mlp.act",)),
        Part("Ablation", "analyze STORE --recipe ablation-selectivity", ("ablation_selectivity_matrix",), _ablation,
             ("mlp.act",)),
    ),
)  # fmt: skip
