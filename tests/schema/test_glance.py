"""What nouns show of themselves: short in a terminal, escaped and scrolling in a notebook."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from babelscope.schema import Prompt, PromptSet, Result
from babelscope.schema.glance import COLUMNS, LINES, Glance, Sample, listed, ranged, shortened
from babelscope.schema.sample import sample

EVIL = "<script>alert(1)</script> \" onmouseover='x' & \x1b[31m \u202e"


class Shown(HTMLParser):
    """Tags and texts of a piece of HTML, and the attributes of its cells."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.cells = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.cells += [dict(attrs)] if tag == "td" else []

    def handle_data(self, data):
        self.texts.append(data)


def check(noun):
    """What every noun promises; the HTML that it shows."""
    lines = repr(noun).splitlines()
    assert 1 < len(lines) <= LINES
    assert all(len(line) <= COLUMNS for line in lines)
    shown = Shown(noun._repr_html_())
    assert set(shown.tags) <= {"div", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert shown.cells
    assert all(cell["dir"] == "auto" and set(cell) == {"dir", "style"} for cell in shown.cells)
    assert not re.search(r"(?<![-\w])(color|background)\s*:", noun._repr_html_())  # those of the notebook stay
    assert all(c.isprintable() or c in "\n\u200c\u200d" for c in repr(noun) + "".join(shown.texts))
    return shown


def hostile_prompts(languages=(EVIL, "zh", "ar")):
    return PromptSet(EVIL, tuple(
        Prompt(f"{EVIL}{i}", language, f"{EVIL}\n" * 40, (), ("A", EVIL), (EVIL, EVIL), 1, EVIL, {EVIL: EVIL})
        for language in languages for i in range(30)
    ), {"generator": EVIL})  # fmt: skip


def table(n=50, **columns):
    values = np.linspace(0.1, 0.9, n)
    return pd.DataFrame({
        "metric": "cs", "language_a": ["en", "de"] * (n // 2), "layer": pd.array([0, None] * (n // 2), "Int64"),
        "matched": values, "matched_low": values - 0.01, "matched_high": values + 0.01, "null": 0.05, "extra": 7.0,
        "gap": values - 0.05, "gap_low": values - 0.06, "gap_high": values - 0.04, "n": 40, "verdict": "supported",
        "empty": np.nan, **columns,
    })  # fmt: skip


def test_hostile_texts_are_shown_and_do_nothing():
    assert "<script>alert(1)</script>" in "".join(check(hostile_prompts()).texts)
    named = {"title": EVIL, "source": EVIL, "units": EVIL, "languages": (EVIL,), "seed": 0}
    shown = check(Result(EVIL, table(language_a=EVIL, **{EVIL: EVIL}), named))
    assert "<script>alert(1)</script>" in "".join(shown.texts)


def test_a_result_shows_value_with_interval_null_and_n_before_anything_else():
    found = sample(table())
    assert found.columns == ("language_a", "layer", "gap", "null", "n", "verdict", "matched", "extra")
    assert found.rows[0] == ("en", "0", "0.05 [0.04, 0.06]", "0.05", "40", "supported", "0.1 [0.09, 0.11]", "7")
    assert found.rows[1][:2] == ("de", "all")
    assert (found.total, found.common) == (50, "metric cs")


def test_low_and_high_belong_to_the_column_before_them():
    claims = pd.DataFrame({"claim": ["a", "b"], "estimate": [0.5, np.nan], "low": [0.4, np.nan], "high": [0.6, np.nan],
                           "n": [9, 0], "null": [0.0, np.nan]})  # fmt: skip
    found = sample(claims)
    assert found.columns == ("claim", "estimate", "null", "n")
    assert found.rows == (("a", "0.5 [0.4, 0.6]", "0", "9"), ("b", "undefined", "undefined", "0"))


def test_a_result_says_what_it_is_and_how_much_it_holds():
    about = {"title": "Cosine", "units": "cosine", "source": "arXiv:2406.16655", "languages": ("en", "de"), "seed": 3}
    text = repr(Result("cs", table(), about))
    for part in ("Result cs", "Cosine", "arXiv:2406.16655", "50 rows", "en, de", "0.05 [0.04, 0.06]", "first 4 of 50"):
        assert part in text
    assert "first 8 of 50" in "".join(Shown(Result("cs", table(), about)._repr_html_()).texts)


@pytest.mark.parametrize("rows", [0, 1])
def test_short_tables_have_a_glance_too(rows):
    assert f"holds  {rows} row{'s' * (rows != 1)} x 14 columns" in repr(Result("cs", table(2).head(rows), {}))
    Result("cs", table(2).head(rows), {})._repr_html_()


def test_a_prompt_set_shows_prompts_of_each_language():
    prompts = PromptSet("own", tuple(
        Prompt(f"q{i}", g, text, (), ("A", "B"), ("x", "y"), 1)
        for g, text in (("en", "One?"), ("ar", "واحد؟"), ("zh", "一？")) for i in range(3)
    ))  # fmt: skip
    text = repr(prompts)
    assert "3 items x 3 languages (en, ar, zh), 9 prompts" in text
    assert all(one in text for one in ("One?", "واحد؟", "一？"))
    assert "first 6 of 9" in "".join(check(prompts).texts)


def test_east_asian_letters_take_two_columns():
    assert shortened("一二三四五", 5) == "一二…"
    assert shortened("abcde", 5) == "abcde"
    text = Glance("t", {"zh": "问" * 100}).text()
    assert text.splitlines()[1] == "zh  " + "问" * 37 + "…"


@pytest.mark.parametrize("letter", ["x", "问", "e\u0301", "\u0301"])
def test_no_text_is_too_long_to_be_shown(letter):
    text = letter * 50_000
    prompts = PromptSet(text, (Prompt(text, "en", text, covariates={text: 1}),), {"generator": text})
    result = Result(text, table(4, language_a=text, **{text: text}), {"title": text, "languages": (text,)})
    for noun in (prompts, result):
        assert len(repr(noun)) < 5 * COLUMNS * LINES
        assert len(noun._repr_html_()) < 60_000


def test_plain_text_counts_the_rows_that_it_has_room_for():
    facts = {f"fact {i}": "x" for i in range(6)}
    text = Glance("t", facts, (Sample(("a", "b"), tuple((str(i), "v") for i in range(9)), 20),)).text()
    assert len(text.splitlines()) == LINES
    assert text.endswith("first 3 of 20")
    assert "\n2  v\n" in text


def test_names_are_listed_as_people_write_them():
    assert listed("abcdefghijk", 3) == "a, b, c, and 8 more"
    assert ranged([0, 1, 2, 3]) == "0-3"
    assert ranged([0, 2]) == "0, 2"
    assert ranged([None]) == ""
