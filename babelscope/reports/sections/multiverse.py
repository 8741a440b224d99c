"""Multiverse: how fragile a claim is."""

import altair as alt

from babelscope.reports.answers import summaries
from babelscope.reports.charts import GREY, HEIGHT, MATCHED, NULL, WIDTH, data, faceted, tips
from babelscope.reports.source import Figure, Part, Section, Source


def _universes(source: Source) -> list[Figure]:
    table = source.table("multiverse_universes")
    if table is None:
        return []
    claimed = source.table("multiverse")
    found = []
    for (claim, group), part in table.groupby(["of_claim", "group"], sort=False):
        rows = part.drop(columns=["of_claim", "group"])
        rows = rows.assign(reading=rows["agrees"].map({True: "agrees", False: "does not"}))
        color = alt.Color(
            "reading:N", title=None, scale=alt.Scale(domain=["agrees", "does not"], range=[MATCHED, GREY])
        )
        base = alt.Chart(data(rows)).encode(x=alt.X("rank:Q", title="analysis, ranked"))
        y = alt.Y("estimate:Q", title="estimate")
        chart = alt.layer(
            base.mark_line(color=NULL, strokeDash=[5, 3]).encode(y="null:Q"),
            base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", title="estimate"), y2="high:Q", color=color),
            base.mark_circle(size=22, opacity=1).encode(y=y, color=color, tooltip=tips(rows)),
        ).properties(width=2 * WIDTH, height=HEIGHT)
        caption = (
            f"Every way to analyze the store, {group}: {len(rows)} of them, each with its interval and n; point at one "
            "for its choices. Dashed: no effect. Scales differ between metrics, so compare signs and intervals."
        )
        answer = ""
        if claimed is not None:
            mine = claimed[(claimed["claim"] == claim) & (claimed["group"] == group)]
            answer = (
                "Share of analyses that agree: " + summaries(mine, "group")[:1].lower() + summaries(mine, "group")[1:]
            )
        title = f"{str(claim).capitalize()}, {group}: all analyses"
        found.append(Figure("universes", "corrected", title, caption, chart, part, answer))
    return found


def _choices(source: Source) -> list[Figure]:
    table = source.table("multiverse_choices")
    if table is None:
        return []
    found = []
    for claim, part in table.groupby("of_claim", sort=False):
        rows = part.assign(option=part["choice"] + " = " + part["value"].astype(str))
        base = alt.Chart().encode(y=alt.Y("option:N", title=None, sort=None, axis=alt.Axis(labelLimit=300)))
        x = alt.X("agrees:Q", title="share that agrees", scale=alt.Scale(domain=[0, 1]))
        layered = alt.layer(
            base.mark_tick(color=NULL, thickness=2, height=11).encode(x=alt.X("null:Q", title="share that agrees")),
            base.mark_circle(size=45, color=MATCHED, opacity=1).encode(x=x, tooltip=tips(rows)),
        ).properties(width=WIDTH * 0.75, height=alt.Step(13))
        caption = (
            "Of the analyses that make a choice, the share whose effect has the sign of the whole and an interval "
            "without zero; the tick is what no effect would give. Point for the number of analyses."
        )
        chart = faceted(layered, rows, "group")
        found.append(
            Figure("choices", "corrected", f"{str(claim).capitalize()}: which choices decide", caption, chart, part)
        )
    return found


section = Section(
    "Multiverse",
    "How fragile is a claim?",
    (
        Part("All analyses", "analyze STORE --recipe multiverse", ("multiverse_universes",), _universes,
             ("resid.post", "mlp.act")),
        Part("Choices", "analyze STORE --recipe multiverse", ("multiverse_choices",), _choices,
             ("resid.post", "mlp.act")),
    ),
)  # fmt: skip
