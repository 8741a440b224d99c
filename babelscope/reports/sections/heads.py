"""Attention heads: whether they read the same parts of an item in every language."""

import altair as alt
import pandas as pd

from babelscope.reports.answers import summaries
from babelscope.reports.captions import intervals, null_items, spread
from babelscope.reports.charts import (
    MATCHED,
    NULL,
    WIDTH,
    color_of,
    curves,
    data,
    heat,
    menu,
    param_name,
    side_by_side,
    tips,
)
from babelscope.reports.claim_figures import claims
from babelscope.reports.similarity_figures import GAP, layer_figures, metric_figures, pair_figures
from babelscope.reports.source import Figure, Part, Section, Source
from babelscope.schema import Result

HEAD_METRICS = ("attention-stability",)

# Heads whose details a chart carries; all of them are in the table.
MOST_HEADS = 60

SHOWN = ["group", "layer", "head", "n", "matched", "null", "gap", "gap_low", "gap_high", "q", "p_max", "verdict"]


def _maps(result: Result) -> list[Figure]:
    """Map of heads by their gap, and the language pairs of the head that is clicked."""
    table = result.table
    rows = table[table["head"].notna() & (table["mode"] == "corrected")]
    found = []
    for variant, part in rows.groupby("variant", sort=False):
        for group, of_group in part.groupby("group", sort=False):
            means = of_group[of_group["language_a"] == "*"]
            if means.empty:
                continue
            caption = (
                f"Gap over the null, mismatched {null_items([result])}, of each head, {group}; {intervals(means)}. A "
                "dot marks a head with q of .05 or more. Click a head to see its language pairs, gap with interval: "
                f"first those of the head with the largest gap{_limit(len(means))}."
            )
            title = f"{result.name[:1].upper()}{result.name[1:]}, {variant}: head by head, {group}"
            chart = _drill(means[SHOWN], of_group[of_group["language_a"] != "*"], "gap", title)
            answer = summaries(means.assign(place=_place(means)), "group", "gap", band=GAP, each="head", where="place")
            found.append(Figure("heads", "corrected", title, caption, chart, of_group, answer))
    return found


def _limit(n_heads: int) -> str:
    return f"; only the {MOST_HEADS} with the largest have them here, the CSV all" if n_heads > MOST_HEADS else ""


def _place(table: pd.DataFrame) -> pd.Series:
    return table["layer"].astype(str) + "." + table["head"].astype(str)


def _drill(means: pd.DataFrame, pairs: pd.DataFrame, value: str, title: str) -> alt.TopLevelMixin:
    top = means.assign(size=means[value].abs()).nlargest(MOST_HEADS, "size")[["layer", "head"]]
    kept = pairs.merge(top, on=["layer", "head"])
    kept = kept.assign(pair=kept["language_a"] + "-" + kept["language_b"])
    first = top.iloc[0]
    picked = alt.selection_point(
        name=param_name(title),
        fields=["layer", "head"],
        on="click",
        empty=False,
        value=[{k: int(first[k]) for k in ("layer", "head")}],
    )
    cells = heat(means, "layer", "head", value, around=0.0, faint="q", picked=picked)
    if kept.empty:
        return cells
    chosen = kept[["pair", *SHOWN[1:9], "q"]]
    base = alt.Chart(data(chosen)).transform_filter(picked).encode(y=alt.Y("pair:N", title=None, sort=None))
    x = alt.X(f"{value}:Q", title=f"{value} of the chosen head")
    detail = alt.layer(
        base.mark_rule(color=NULL).encode(x=alt.datum(0), y=alt.value(0), y2=alt.value("height")),
        base.mark_rule(strokeWidth=2, color=MATCHED).encode(x=f"{GAP[0]}:Q", x2=f"{GAP[1]}:Q"),
        base.mark_point(filled=True, size=45, opacity=1).encode(x=x, tooltip=tips(chosen)),
    ).properties(width=WIDTH * 0.8, height=alt.Step(13))
    return side_by_side([cells, detail])


def _profiles(source: Source) -> list[Figure]:
    """How heads spread their attention over the parts of an item in each language, head by head."""
    table = source.table("head_profiles_languages")
    if table is None:
        return []
    found = []
    for group, part in table.groupby("group", sort=False):
        spread_of = (
            part.groupby(["feature", "layer", "head"])["estimate"].agg(lambda v: v.max() - v.min()).reset_index()
        )
        top = spread_of.groupby(["layer", "head"])["estimate"].max().nlargest(MOST_HEADS).reset_index()
        rows = part.merge(top[["layer", "head"]], on=["layer", "head"])
        rows = rows.assign(place=_place(rows))
        names = sorted(rows["place"].unique(), key=lambda v: [int(x) for x in v.split(".")])
        title = f"What a head reads, language by language, {group}"
        picked = menu(title, "layer.head", names, f"{top['layer'].iloc[0]}.{top['head'].iloc[0]}")
        base = (
            alt.Chart(data(rows.drop(columns=["group", "site"])))
            .add_params(picked)
            .transform_filter(f"datum.place == {picked.name}")
            .encode(y=alt.Y("language:N", title=None, sort=None), color=color_of(rows, "language"))
        )
        layered = alt.layer(
            # Altair looks for a parameter of a stacked figure under the name of its first layer.
            base.mark_tick(color=NULL, thickness=2, height=11)
            .encode(x="null:Q", color=alt.value(NULL))
            .properties(name=f"view_{picked.name}"),
            base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q"),
            base.mark_point(filled=True, size=45, opacity=1).encode(
                x=alt.X("estimate:Q", title=None), tooltip=tips(rows)
            ),
        ).properties(width=WIDTH * 0.65, height=alt.Step(12))
        chart = layered.facet(facet=alt.Facet("feature:N", title=None), columns=3).resolve_scale(x="independent")
        caption = (
            f"What a head reads in each language, {group}, with 95 % intervals over items, "
            f"n = {spread(part['n'], 'd')}; tick: even attention. Choose a head: "
            f"the {len(names)} whose languages differ most."
        )
        found.append(Figure("head profiles", "corrected", title, caption, chart, part))
    return found


def _important(source: Source) -> list[Figure]:
    table = source.table("language_heads_all")
    if table is None:
        return []
    found = []
    claimed = source.table("language_heads")
    for group, part in table.groupby("group", sort=False):
        caption = (
            f"Share of a head in the answers of each language, {group}, n = {spread(part['n'], 'd')} items; a dot "
            "marks a head that does not matter more for this language than for the others (q of .05 or more). Null: "
            "even shares."
        )
        chart = heat(part.drop(columns="group"), "layer", "head", "importance", column="language", faint="q")
        answer = ""
        if claimed is not None:
            rows = claimed[(claimed["group"] == group) & claimed["claim"].str.startswith("share of heads that matter")]
            answer = summaries(rows, "claim", each="language", where="language_a")
        found.append(Figure("head importance", "corrected", f"Heads that matter, by language, {group}", caption, chart,
                            part, answer))  # fmt: skip
    return found


def _flow(source: Source) -> list[Figure]:
    """What a layer reads in each language, segment by segment."""
    table = source.table("head_profiles_segments")
    if table is None:
        return []
    found = []
    for group, part in table.groupby("group", sort=False):
        rows = part[part["estimate"].notna()]
        if rows.empty:
            continue
        caption = (
            f"Attention that each part of a prompt gets, mean over the heads of a layer, {group}, with 95 % intervals "
            f"over items, n = {spread(rows['n'], 'd')}; dashed: even attention, which longer parts get more of. What "
            "is left to 1 goes to the first token, to special tokens and to what stands between the parts."
        )
        chart = curves(rows.drop(columns="group"), "layer", "estimate", color="segment", column="language", row="site",
                       title="share of attention", zero=True)  # fmt: skip
        title = f"From which parts of an item a layer reads, {group}"
        found.append(Figure("segment flow", "corrected", title, caption, chart, rows))
    return found


section = Section(
    "Attention heads",
    "Do heads read the same parts of an item in every language?",
    (
        Part("Stability head by head", "analyze STORE --metric attention-stability", ("attention-stability",),
             metric_figures("attention-stability", parts=(_maps, layer_figures, pair_figures)), ("attn.mass",)),
        Part("Profiles of heads", "analyze STORE --recipe head-profiles", ("head_profiles_languages",), _profiles,
             ("attn.mass",)),
        Part("Flow between segments", "analyze STORE --recipe head-profiles", ("head_profiles_segments",), _flow,
             ("attn.mass",)),
        Part("Claims about profiles", "analyze STORE --recipe head-profiles", ("head_profiles",),
             claims("head_profiles", "Profiles of heads: all claims"), ("attn.mass",)),
        Part("Heads that matter", "analyze STORE --recipe language-heads", ("language_heads_all",), _important,
             ("attn.heads",)),
    ),
)  # fmt: skip
