"""Mixed languages: whether mixing breaks access to what is known, and through which heads."""

import pandas as pd

from babelscope.reports.answers import summaries, without_means
from babelscope.reports.captions import spread
from babelscope.reports.charts import curves, forest, heat
from babelscope.reports.claim_figures import claims
from babelscope.reports.source import Figure, Part, Section, Source

# Columns that tell settings apart, whose languages are counted.
SETTING = ("group", "setting", "mitigation")


def _barrier(source: Source) -> list[Figure]:
    table = source.table("barrier")
    if table is None:
        return []
    rows = table[(table["mode"] == "corrected") & table["gap_en"].notna() & (table["setting"] != "base")]
    if rows.empty:  # the published definition alone, which has no interval
        return []
    rows = rows.assign(null=0.0, what=_setting(rows))
    base = rows["base"].iloc[0]
    caption = (
        f"Accuracy of whole questions in {base} less that of mixed ones, paired by item, with its 95 % interval, n = "
        f"{spread(rows['n'], 'd')}; the tick is no barrier. Point for the gap to the mean of whole questions in the "
        "languages that are mixed: a barrier stands against both."
    )
    chart = forest(_columns(rows, "gap_en"), "what", "gap_en", band=("gap_en_low", "gap_en_high"), column="group",
                   title=f"fall of accuracy against {base}")  # fmt: skip
    single = without_means(rows, "language", *SETTING)
    answer = summaries(single, "group", "gap_en", band=("gap_en_low", "gap_en_high"), each="setting", where="what")
    return [Figure("barrier", "corrected", "Barrier of mixed questions", caption, chart, rows, answer)]


def _setting(rows: pd.DataFrame) -> pd.Series:
    languages = rows["language"].replace("*", "(all)")
    return rows["setting"] + " " + languages + rows["mitigation"].map(lambda m: f" + {m}" if m else "")


def _columns(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    kept = ["what", "group", "n", "accuracy", "null", "q", "verdict"]
    return rows[[*kept, *(c for c in rows if str(c).startswith((value, "gap_mono")))]]


def _pull(source: Source) -> list[Figure]:
    table = source.table("foreign-pull")
    if table is None:
        return []
    rows = table[(table["gold"] == "all") & table["pull"].notna()]
    if rows.empty:
        return []
    caption = (
        "How much oftener a foreign option is chosen than the same option was chosen when nothing was foreign, with "
        f"its 95 % interval, n = {spread(rows['n'], 'd')}; below zero foreign options repel."
    )
    return [_of_settings("pull", "Pull of foreign options", rows, caption, "n_paired", "chosen", "null_uniform",
                         "null_base")]  # fmt: skip


def _mitigations(source: Source) -> list[Figure]:
    table = source.table("mitigations")
    if table is None:
        return []
    rows = table[table["change"].notna()]
    if rows.empty:
        return []
    caption = (
        f"Accuracy with a mitigation less that without, paired by item, 95 % interval, n = {spread(rows['n'], 'd')}."
    )
    return [_of_settings("change", "What mitigations change", rows, caption, "accuracy", "without")]


def _of_settings(value: str, title: str, rows: pd.DataFrame, caption: str, *beside: str) -> Figure:
    """A difference that is zero without an effect, setting by setting; `beside` stand in the tooltips."""
    rows, band = rows.assign(null=0.0, what=_setting(rows)), (f"{value}_low", f"{value}_high")
    shown = rows[["what", "group", "n", *beside, "null", value, *band, "q", "verdict"]]
    chart = forest(shown, "what", value, band=band, column="group")
    single = without_means(rows, "language", *SETTING)
    answer = summaries(single, "group", value, band=band, each="setting", where="what")
    return Figure(value, "corrected", title, caption, chart, rows, answer)


def _matrix(source: Source) -> list[Figure]:
    table = source.table("matrix")
    if table is None:
        return []
    caption = (
        "Accuracy with the context in the language of the column and the question in that of the row, n = "
        f"{spread(table['n'], 'd')}. Point at a cell for its interval, for chance, and for its fall against prompts in "
        "the language of the question and of the context alone."
    )
    chart = heat(table, "context", "question", "accuracy", column="value")
    rows = table[table["question_gap"].notna()]
    answer = summaries(rows.assign(cell=rows["context"] + "-" + rows["question"], verdict=rows["question_verdict"],
                                   q=rows["question_q"], all="all"), "all", "question_gap",
                       band=("question_low", "question_high"), null="", each="cell", where="cell")  # fmt: skip
    title = "Accuracy by language of the context and of the question"
    return [Figure("matrix", "corrected", title, caption, chart, table, answer)]


def _dose(source: Source) -> list[Figure]:
    found = claims("code_switched_attention", "Attention over code-switched prompts")(source)
    table = source.table("code_switched_attention_dose")
    if table is not None:
        caption = (
            "Change of attention in items with few, some and many tokens in the other language, with 95 % intervals, n "
            f"= {spread(table['n'], 'd')}; dashed: no change."
        )
        chart = curves(table, "dose", "estimate", color="quantity", column="group" if "group" in table else "")
        found.append(
            Figure("dose", "corrected", "Attention against the share of foreign tokens", caption, chart, table)
        )
    return found


SETTINGS = "settings of mixed questions (data mix-choice)"
SWITCHED = "code-switched prompts (data pairs), as en-de beside en and de"

section = Section(
    "Mixed languages",
    "Does mixing languages in a prompt break access to what is known, and through which heads?",
    (
        Part("Barrier", "evaluate STORE", ("barrier",), _barrier, prompts=SETTINGS),
        Part("Foreign pull", "evaluate STORE", ("foreign-pull",), _pull, prompts=SETTINGS),
        Part("Mitigations", "evaluate STORE", ("mitigations",), _mitigations,
             prompts=f"{SETTINGS} with --mitigation"),
        Part("Context and question", "evaluate STORE", ("matrix",), _matrix, prompts=SWITCHED),
        Part("Attention of code-switched prompts", "analyze STORE --recipe code-switched-attention",
             ("code_switched_attention",), _dose, ("attn.mass",), SWITCHED),
        Part("Shift of embeddings", "analyze STORE --recipe embedding-shift", ("embedding_shift",),
             claims("embedding_shift", "Is mixed text closer to the original than its controls?"), ("resid.post",),
             "languages of data perturb"),
    ),
)  # fmt: skip
