"""Variance: where content is, and where language is."""

import altair as alt
import pandas as pd

from babelscope.reports.answers import MOST_PARTS, effect, sentence
from babelscope.reports.captions import spread
from babelscope.reports.charts import GREY, HEIGHT, MATCHED, WIDTH, faceted, kind, tips
from babelscope.reports.source import Figure, Part, Section, Source

SHARES = ("meaning", "language", "interaction")
COLORS = [MATCHED, "#E69F00", GREY]

# Points of a scatter beyond these cost more to load than they show.
MOST_NEURONS = 400


def _layers(source: Source) -> list[Figure]:
    table = source.table("variance_budget_layers")
    if table is None:
        return []
    split = table["claim"].str.split(", ", n=1, expand=True)
    rows = table.assign(share=split[0], scale=split[1])
    found = []
    for scale, part in rows.groupby("scale", sort=False):
        caption = (
            f"Shares of the variance over items and languages, {scale} over units, n = {spread(part['n'], 'd')} items. "
            "Meaning is what an item has in common in all languages, language what a language has in common in all "
            "items, interaction the rest. Point at a band for its interval and for its null, shuffled items or "
            "languages."
        )
        shown = part[["share", "group", "site", "layer", "estimate", "low", "high", "null", "q", "n"]]
        chart = (
            alt.Chart()
            .mark_area(opacity=0.85, line=False)
            .encode(
                x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d")),
                y=alt.Y("estimate:Q", title="share of variance", stack=True, scale=alt.Scale(domain=[0, 1])),
                color=alt.Color("share:N", title=None, scale=alt.Scale(domain=list(SHARES), range=COLORS)),
                tooltip=tips(shown),
            )
        )
        figure = faceted(chart.properties(width=WIDTH, height=HEIGHT), shown, "group", "site")
        title = f"Variance of content, language and their interaction, {scale}"
        found.append(Figure("variance", "corrected", title, caption, figure, part, _answer(part)))
    return found


def _answer(part: pd.DataFrame) -> str:
    """In how many layers there is more content than language, with the middle layer's shares."""
    said = {}
    first = part[part["site"] == part["site"].iloc[0]]
    for (group, site), rows in first.groupby(["group", "site"], sort=False):
        wide = rows.pivot(index="layer", columns="share", values="estimate")
        more = int((wide["meaning"] > wide["language"]).sum())
        layer = wide.index[len(wide) // 2]
        middle = rows[rows["layer"] == layer].set_index("share")
        shares = " and ".join(f"{s} {effect(middle.loc[s], 'estimate', ('low', 'high'))}" for s in SHARES[:2])
        said[f"{group}, {site}"] = (
            f"more content than language in {more} of {len(wide)} layers; in the middle one, {layer}, {shares}"
        )
    return sentence(dict(list(said.items())[:MOST_PARTS]))


def _neurons(source: Source) -> list[Figure]:
    table = source.table("variance_budget_neurons")
    if table is None:
        return []
    both = ["eta2_meaning", "eta2_language"]
    known = table.dropna(subset=both)
    most = pd.concat([known.nlargest(MOST_NEURONS // 2, name) for name in both])
    chosen = most.drop_duplicates(["group", "site", "layer", "neuron"])
    named = chosen.assign(unit="L" + chosen["layer"].astype(str) + " N" + chosen["neuron"].astype(str))
    picked = alt.selection_point(fields=["layer"], bind="legend")
    scatter = (
        alt.Chart()
        .mark_circle(size=40, opacity=0.7)
        .encode(
            x=alt.X("eta2_language:Q", title="share of language"),
            y=alt.Y("eta2_meaning:Q", title="share of content"),
            color=alt.Color("layer:O", scale=alt.Scale(scheme="viridis")),
            opacity=alt.condition(picked, alt.value(0.8), alt.value(0.05)),
            tooltip=[alt.Tooltip(f"{c}:{kind(named, c)}") for c in named.columns],
        )
        .add_params(picked)
        .properties(width=WIDTH, height=WIDTH)
    )
    caption = (
        f"The {len(chosen)} of {len(table)} neurons with the largest shares, a point each: variance of its activations "
        f"explained by the item and by the language, n = {spread(table['n'], 'd')} items. Click a layer in the legend; "
        "point at a neuron for the shares that shuffled labels give and for its q."
    )
    return [Figure("variance of neurons", "corrected", "Content and language, neuron by neuron", caption,
                   faceted(scatter, named, "group", "site"), table)]  # fmt: skip


section = Section(
    "Variance",
    "Where is content, where is language?",
    (
        Part("Variance budget", "analyze STORE --recipe variance-budget", ("variance_budget_layers",), _layers,
             ("resid.post", "mlp.act", "mlp.neurons")),
        Part("Neuron by neuron", "analyze STORE --recipe variance-budget", ("variance_budget_neurons",), _neurons,
             ("mlp.act", "mlp.neurons")),
    ),
)  # fmt: skip
