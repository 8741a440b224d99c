"""Sentences are made of test results, and say no more than these."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.reports.answers import MOST_PARTS, number, sentence, summaries, summary, without_means

SUPPORTED, NOT = "supported", "not distinguishable from the null"


def rows(*estimates: float, verdicts: list[str] | None = None) -> pd.DataFrame:
    n = len(estimates)
    return pd.DataFrame({
        "layer": range(n), "estimate": estimates, "low": np.array(estimates) - 0.1, "high": np.array(estimates) + 0.1,
        "null": 0.05, "n": 24, "q": 0.01, "verdict": verdicts or [SUPPORTED] * n,
    })  # fmt: skip


def test_one_row_is_said_with_interval_null_n_q_and_verdict() -> None:
    assert summary(rows(0.5)) == "0.500 [0.400, 0.600] (null 0.050, n = 24, q = 0.01), supported"


def test_of_many_rows_the_median_is_shown_and_not_the_largest() -> None:
    table = rows(0.9, 0.2, 0.4, verdicts=[SUPPORTED, NOT, SUPPORTED])
    assert summary(table, each="layer", where="layer") == (
        "supported in 2 of 3 layers; median (2) 0.400 [0.300, 0.500] (null 0.050, n = 24, q = 0.01), range 0.200 to "
        "0.900"
    )


def test_undefined_rows_count_among_all_and_are_never_zeros() -> None:
    table = rows(0.4, float("nan"), verdicts=[SUPPORTED, "not testable with this data"])
    assert summary(table, each="layer").startswith("supported in 1 of 2 layers; median 0.400")
    assert summary(rows(float("nan"))) == "not testable with this data"
    assert summary(table.iloc[:0]) == "not testable with this data"


def test_groups_have_a_part_each_and_many_are_taken_together() -> None:
    table = pd.concat([rows(0.1).assign(group="a"), rows(0.2).assign(group="b")])
    assert summaries(table, "group").startswith("A: 0.100 [")
    assert "; b: 0.200 [" in summaries(table, "group")
    many = pd.concat([rows(0.1 * k).assign(group=f"g{k}") for k in range(MOST_PARTS + 1)])
    assert summaries(many, "group", each="claim").startswith(
        f"Supported in {MOST_PARTS + 1} of {MOST_PARTS + 1} claims"
    )
    assert summaries(table.iloc[:0], "group") == ""


def test_a_single_name_is_left_out() -> None:
    assert sentence({"all": "yes"}) == "Yes."
    assert sentence({"a": "yes", "b": "no"}) == "A: yes; b: no."
    assert sentence({}) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (27.0, "27"),
        (1.0, "1.000"),
        (0.12345, "0.123"),
        (-0.00002, "-2.0e-05"),
        (float("nan"), "undefined"),
    ],
)
def test_numbers_read_as_people_write_them(value: float, text: str) -> None:
    assert number(value) == text


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=9))
def test_the_median_is_one_of_the_rows(estimates: list[float]) -> None:
    said = summary(rows(*estimates))
    middle = sorted(estimates)[(len(estimates) - 1) // 2]
    assert f"median {number(middle)} [" in said


def test_supported_rows_below_the_null_are_said_to_be_there() -> None:
    table = rows(0.4, -0.5, -0.6, verdicts=[SUPPORTED, SUPPORTED, NOT])
    assert summary(table, each="layer").startswith("supported in 2 of 3 layers, 1 of them below the null; median")
    gaps = table.rename(columns={"estimate": "gap"}).assign(null=0.8)  # a similarity, which no gap is compared with
    assert summary(gaps, "gap").startswith("supported in 2 of 3 rows, 1 of them below zero; median")


def test_unlike_things_have_no_median() -> None:
    many = pd.concat(
        [rows(0.1 + 0.1 * k, 0.2 + 0.2 * k).assign(measure=f"m{k}", n=20 + k) for k in range(MOST_PARTS + 1)]
    )
    assert summaries(many, "measure", each="layer", where="layer") == "Supported in 10 of 10 rows, n = 20 to 24."


def test_a_mean_over_languages_is_not_counted_with_them_unless_it_is_all_there_is() -> None:
    table = pd.DataFrame({"setting": ["gt", "gt", "gt", "mixup"], "language": ["de", "zh", "*", "*"]})
    kept = without_means(table, "language", "setting")
    assert list(zip(kept["setting"], kept["language"], strict=True)) == [("gt", "de"), ("gt", "zh"), ("mixup", "*")]
