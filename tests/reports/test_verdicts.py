"""The verdict table counts what was tested, and never shows the best of many."""

import json

import numpy as np
import pandas as pd

from babelscope.analyses.recipe import claims_table
from babelscope.reports import Source, verdicts
from babelscope.reports.verdicts import verdict_rows
from babelscope.schema import Result
from babelscope.workflows import Analysis
from tests.reports.conftest import FREE, KNOWLEDGE

SUPPORTED, NOT = "supported", "not distinguishable from the null"


def claims(*estimates: float, verdicts: tuple[str, ...] | None = None, layer: bool = False) -> Result:
    table = claims_table(
        {"claim": "heads agree", "group": "all", "site": "attn.heads", "language_a": f"l{i}", "language_b": f"l{i}",
         "layer": i if layer else None, "n": 20, "estimate": e, "low": e - 1, "high": e + 1, "null": 0.0, "p": 0.01,
         "verdict": (verdicts or (SUPPORTED,) * len(estimates))[i]}
        for i, e in enumerate(estimates)
    )  # fmt: skip
    return Result("some_recipe", table, {})


def test_every_metric_group_site_and_contrast_has_a_row(analysis: Analysis) -> None:
    table = verdicts([Source(analysis.results, analysis.store)])
    rows = analysis.headline()
    assert len(table) == len(rows)
    assert table["estimate"].tolist() == rows["gap"].tolist()
    assert table["verdict"].tolist() == rows["verdict"].tolist()
    abouts = set(table["about"])
    assert {f"{FREE}, resid.post", f"{KNOWLEDGE}, mlp.act"} <= abouts
    assert f"{FREE} - {KNOWLEDGE}, resid.post" in abouts


def test_a_claim_of_many_languages_is_counted_with_its_median() -> None:
    found = verdicts([Source((claims(3.0, 1.0, 2.0, verdicts=(SUPPORTED, NOT, SUPPORTED)),))])
    row = found.iloc[0]
    assert (row["analysis"], row["claim"], row["rows"], row["supported"]) == ("some-recipe", "heads agree", 3, 2)
    assert (row["estimate"], row["low"], row["high"]) == (2.0, 1.0, 3.0)
    assert row["verdict"] == ""
    shown = verdict_rows(found)[0]
    assert shown["effect"] == "2 [1.000, 3], median"
    assert (shown["verdict"], shown["holds"]) == ("supported in 2 of 3", "some")


def test_rows_of_single_layers_count_only_where_there_is_no_row_over_all() -> None:
    layers = claims(1.0, 2.0, layer=True)
    assert verdicts([Source((layers,))])["rows"].tolist() == [2]
    whole = claims(5.0)
    both = Result("some_recipe", pd.concat([layers.table, whole.table], ignore_index=True), {})
    assert verdicts([Source((both,))])["estimate"].tolist() == [5.0]


def test_what_could_not_be_tested_is_undefined_and_said_so() -> None:
    found = verdicts([Source((claims(np.nan, verdicts=("not testable with this data",)),))])
    assert verdict_rows(found)[0] | {"claim": ""} == {
        "store": "STORE", "analysis": "some-recipe", "claim": "", "about": "all, attn.heads", "effect": "undefined",
        "null": "–", "n": "0", "q": "–", "stability": "–", "verdict": "not testable with this data", "holds": "no",
    }  # fmt: skip


def test_the_json_beside_a_report_holds_the_same_table(analysis: Analysis, report) -> None:
    written = json.loads(report.with_suffix(".json").read_text("utf-8"))["verdicts"]
    table = verdicts([Source(analysis.results, analysis.store)])
    assert [row["estimate"] for row in written] == table["estimate"].tolist()
    assert [row["stability"] for row in written] == [None if pd.isna(v) else v for v in table["stability"]]


def test_a_row_over_all_languages_is_not_counted_with_those_of_single_ones() -> None:
    table = claims(1.0, 2.0, 9.0).table
    table.loc[2, ["language_a", "language_b"]] = "*"
    row = verdicts([Source((Result("some_recipe", table, {}),))]).iloc[0]
    assert (row["rows"], row["estimate"]) == (2, 1.0)


def test_a_setting_that_mixes_all_languages_has_its_verdict() -> None:
    table = pd.DataFrame(
        {"mode": "corrected", "group": "all", "setting": ["base", "gt", "gt", "gt", "mixup"], "mitigation": "",
         "language": ["*", "de", "zh", "*", "*"], "gap_en": [np.nan, 0.1, 0.2, 0.15, 0.4], "gap_en_low": 0.05,
         "gap_en_high": 0.5, "n": 20, "q": 0.01, "verdict": SUPPORTED}
    )  # fmt: skip
    found = verdicts([Source((Result("barrier", table, {}),))])
    assert found["about"].tolist() == ["all, gt", "all, mixup"]
    assert found["rows"].tolist() == [2, 1]
    assert found["estimate"].tolist() == [0.1, 0.4]


def test_an_undefined_contrast_is_no_similarity(analysis: Analysis) -> None:
    contrast = analysis["contrast"]
    undefined = Result("contrast", contrast.table.assign(estimate=np.nan, low=np.nan, high=np.nan), {})
    results = tuple(undefined if r.name == "contrast" else r for r in analysis.results)
    rows = verdicts([Source(results, analysis.store)]).set_index("about")
    assert "gaps of two groups differ" in rows.loc[f"{FREE} - {KNOWLEDGE}, mlp.act", "claim"]
