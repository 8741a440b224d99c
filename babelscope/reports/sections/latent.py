"""Latent language: whether the model passes through another language, and whether it matters."""

import altair as alt

from babelscope.reports.answers import summaries, without_means
from babelscope.reports.captions import spread
from babelscope.reports.charts import HEIGHT, WIDTH, color_of, curves, faceted, heat, menu, tips
from babelscope.reports.claim_figures import claims
from babelscope.reports.source import Figure, Part, Section, Source


def _lens(source: Source) -> list[Figure]:
    found = []
    table = source.table("latent_language_layers")
    claimed = source.table("latent_language")
    for group, part in () if table is None else table.groupby("group", sort=False):
        rows = part[part["probability"].notna()]
        if rows.empty:
            continue
        caption = (
            "Probability of the right answer in each language by the logit lens, prompts in the language above, "
            f"{group}; dashed: the answers of other items; n = {spread(rows['n'], 'd')}. Answers whose first tokens "
            "are the same in two languages tell nothing and are left out."
        )
        band = rows.assign(lower=rows["null"] + rows["low"], upper=rows["null"] + rows["high"])
        chart = curves(
            band, "layer", "probability", color="answer_language", band=("lower", "upper"), column="language"
        )
        answer = ""
        if claimed is not None:
            mine = claimed[(claimed["group"] == group) & claimed["claim"].str.contains("middle layers")]
            single = without_means(mine, "language_a", "claim")
            answer = summaries(single, "claim", each="language", where="language_a")
        found.append(Figure("lens", "corrected", f"Answers read off the layers, {group}", caption, chart, rows, answer))
    return found


def _scripts(source: Source) -> list[Figure]:
    found = []
    table = source.table("latent_language_scripts")
    for group, part in () if table is None else table.groupby("group", sort=False):
        base = alt.Chart().mark_area(opacity=0.85)
        chart = base.encode(
            x=alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("mass:Q", title="probability", stack=True),
            color=color_of(part, "script"),
            tooltip=tips(part),
        ).properties(width=WIDTH * 0.7, height=HEIGHT * 0.8)
        caption = (
            f"Probability of tokens in each script by the logit lens, prompts in the language above, {group}, n = "
            f"{spread(part['n'], 'd')}. Point at a band for its interval and for its null, the prompts of other "
            "languages."
        )
        found.append(Figure("scripts", "corrected", f"Scripts read off the layers, {group}", caption,
                            faceted(chart, part, "language"), part))  # fmt: skip
    table = source.table("latent_language_entropy")
    if table is not None:
        caption = (
            "Entropy of the next token by the logit lens (bits) with its 95 % interval; dashed: even probabilities. "
            f"n = {spread(table['n'], 'd')}."
        )
        chart = curves(table, "layer", "entropy", color="language", column="group", title="entropy (bits)")
        found.append(Figure("entropy", "corrected", "Entropy of the lens", caption, chart, table))
    return found


def _patching(source: Source) -> list[Figure]:
    table = source.table("language_patching_pairs")
    assert table is not None
    found = claims("language_patching", "Answers after the state of another language was put in")(source)
    layers = [int(v) for v in sorted(table["layer"].unique())]
    for group, part in table.groupby("group", sort=False):
        cells = heat(part.drop(columns="group"), "language_state", "language_prompt", "estimate", around=0.0, faint="q")
        title = f"States put into prompts of other languages, {group}"
        picked = menu(title, "layer", layers, layers[-1])
        chart = cells.transform_filter(f"datum.layer == {picked.name}").add_params(picked)  # type: ignore[attr-defined]
        caption = (
            "How far answers follow the state of another item, read in the language of the column and put into a "
            f"prompt of the row, {group}; n = {spread(part['n'], 'd')}. Choose a layer; a dot marks q of .05 or more."
        )
        found.append(Figure("patching", "corrected", title, caption, chart, part))
    return found


section = Section(
    "Latent language",
    "Does the model pass through another language, and does it matter?",
    (
        Part("Logit lens", "analyze STORE --recipe latent-language", ("latent_language_layers",), _lens,
             ("resid.post",)),
        Part("Scripts and entropy", "analyze STORE --recipe latent-language", ("latent_language_scripts",), _scripts,
             ("resid.post",)),
        Part("Patching", "analyze STORE --recipe language-patching", ("language_patching_pairs",), _patching,
             ("resid.post",)),
    ),
)  # fmt: skip
