"""Tables and facts fit 80 cells, lose nothing, and keep the words of a verdict together."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from babelscope import layout

VERDICTS = (
    "supported", "not distinguishable from the null", "depends on the threshold", "explained by template or letter",
    "not testable with this data",
)  # fmt: skip
WIDE = {
    "metric": "nao", "variant": "overlap", "site": "mlp.act", "group": "knowledge-free - knowledge", "threshold": "0.4",
    "n": "240", "matched": "0.688", "null": "0.512", "gap": "-0.175", "95 % interval": "[-0.152, -0.201]",
    "q": "0.00075", "stability": "1.00",
}  # fmt: skip
TEXTS = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=90)
VALUES = st.one_of(TEXTS, st.floats(), st.integers(-(10**12), 10**12), st.none(), st.booleans())


def widest(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


@given(st.lists(st.lists(VALUES, min_size=9, max_size=9), max_size=5), st.integers(0, 9))
def test_no_line_is_wider_than_80_cells_whatever_a_table_holds(rows: list[list[object]], n: int) -> None:
    names = ["claim", "language_a", "score", "low", "high", "q", "a name of many words", "x" * 9, "verdict"][:n]
    assert widest(layout.table([dict(zip(names, row, strict=False)) for row in rows])) <= layout.WIDTH


@given(st.dictionaries(st.text("abc", min_size=1, max_size=12), TEXTS))
def test_no_fact_is_wider_than_80_cells(about: dict[str, str]) -> None:
    assert widest(layout.facts(about)) <= layout.WIDTH


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_stays_whole_on_its_line_where_the_row_is_too_wide(verdict: str) -> None:
    lines = layout.table([WIDE | {"verdict": verdict}] * 2).splitlines()
    assert sum(verdict in line for line in lines) == 2
    assert max(map(cell_len, lines)) <= layout.WIDTH


def test_every_cell_of_a_wide_table_is_printed() -> None:
    text = layout.table([WIDE | {"verdict": "supported"}], headings=("metric", "variant", "site", "threshold"))
    assert text.splitlines()[1] == "nao, overlap, mlp.act, threshold 0.4"
    for name in ("n", "matched", "null", "gap", "95 % interval", "q", "stability"):
        assert name in text
        assert WIDE[name] in text


def test_rows_stand_below_the_heading_they_share_in_the_order_of_the_first() -> None:
    rows = [{"site": s, "n": n} for s, n in (("a", 1), ("b", 2), ("a", 3), ("b", 4))]
    assert layout.table(rows, headings=("site",)) == "n\na\n1\n3\n\nb\n2\n4"


def test_what_never_fits_is_folded_behind_the_column_that_names_the_rows() -> None:
    codes = [f"l{i}" for i in range(30)]
    text = layout.table([{"language": name, **dict.fromkeys(codes, 0.5)} for name in ("en", "中文")])
    assert widest(text) <= layout.WIDTH
    blocks = text.split("\n\n")
    assert [block.split()[0] for block in blocks] == ["language"] * len(blocks)
    assert sum(block.count("中文") for block in blocks) == len(blocks)
    assert [word for block in blocks for word in block.splitlines()[0].split()[1:]] == codes


def test_letters_of_two_cells_are_counted_as_two() -> None:
    first, second = layout.table([{"name": "日本語", "n": 1}, {"name": "en", "n": 2}]).splitlines()[1:]
    assert cell_len(first) == cell_len(second)
    assert layout.wrapped("日本語日本語", 6) == ["日本語", "日本語"]


def test_bounds_stand_in_one_column_and_an_undefined_one_is_a_dash() -> None:
    rows = [{"gap": 0.1, "gap_low": -0.05, "gap_high": 0.2}, {"gap": math.nan, "gap_low": math.nan, "gap_high": 0.2}]
    assert [line.split("  ")[-1].strip() for line in layout.table(rows).splitlines()] == [
        "gap interval", "[-0.050, 0.200]", "–"]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "column", "shown"),
    [
        (0.12345, "", "0.123"), (np.float32(2.5), "", "2.500"), (0.0004, "", "4.00e-04"), (0.00049, "q", "0.00049"),
        (0.0, "", "0.000"), (3, "", "3"), (np.int64(3), "", "3"), (24.0, "n_a", "24"), (True, "", "yes"),
        (None, "", "–"), (pd.NA, "", "–"), (math.nan, "", "–"), ("", "", "–"), (["a", "b"], "", "a, b"),
        (math.inf, "", "inf"), ("a\x1b[31m", "", "a\\x1b[31m"), (12345678.0, "", "1.23e+07"),
    ],
)  # fmt: skip
def test_a_value_is_shown_as_a_reader_wants_it(value: object, column: str, shown: str) -> None:
    assert layout.cell(value, column) == shown


def test_an_empty_table_is_an_empty_text() -> None:
    assert layout.table([]) == ""
    assert layout.table([{}]) == ""
