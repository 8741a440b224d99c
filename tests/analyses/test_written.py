"""What a model wrote is read as an option, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.analyses.behavior.written import written_option
from babelscope.schema import Prompt, Segment

ASKED = Prompt("a", "en", "Where?\nA. Rome\nB. Paris\nC. A cat\nD. Paris, Texas\nAnswer:", letters=("A", "B", "C", "D"),
               options=("Rome", "Paris", "A cat", "Paris, Texas"))  # fmt: skip
TRANSLATING = Prompt("a", "en", "Wo?\nIn English:", letters=ASKED.letters, options=ASKED.options)
GERMAN = Prompt("a", "de", "Wo?\nAntwort:", (Segment("cue", 4, 12, "de"),), ("1", "2", "3"), ("eins", "zwei", "drei"))


@pytest.mark.parametrize(
    ("prompt", "written", "option"),
    [
        (ASKED, " B", 1), (ASKED, "(b)", 1), (ASKED, " **D**.", 3), (ASKED, "B. Paris", 1), (ASKED, "B Paris", 1),
        (ASKED, "[C]: because", 2), (ASKED, "\uff22", 1), (ASKED, "A\n\nQuestion: next?\nAnswer: D", 0),
        (ASKED, "Paris", 1), (ASKED, "Paris, Texas.", 3), (ASKED, "A cat", 2), (ASKED, "rome, of course", 0),
        (ASKED, "Let me think.\nAnswer: C", 2), (ASKED, "Answer: A\nNo.\nanswer: (B)", 1),
        (ASKED, "I say so.\nAnswer: Paris", 1), (TRANSLATING, "Where?\nA. Rome\nB. Paris\nAnswer: B", 1),
        (TRANSLATING, "C", 2), (GERMAN, " 2.", 1), (GERMAN, "Nun.\nAntwort: 3", 2), (GERMAN, "drei", 2),
        (ASKED, "", None), (ASKED, "\n \n", None), (ASKED, "Bern", None), (ASKED, "Bio?", None), (GERMAN, "2.5", None),
        (ASKED, "A dog", None), (ASKED, "none of them", None), (ASKED, "E", None), (GERMAN, "23", None),
        (ASKED, "Parisian", None),
    ],
)  # fmt: skip
def test_an_answer_is_read_by_label_cue_or_text_and_else_is_none(prompt, written, option):
    assert written_option(prompt, written) == option


def test_options_with_one_text_are_not_told_apart_by_it():
    twice = Prompt("a", "en", "?\nAnswer:", letters=("A", "B"), options=("same", "same"))
    assert written_option(twice, "same") is None
    assert written_option(twice, "B. same") == 1


def test_a_prompt_without_texts_is_read_by_its_labels_alone():
    hidden = Prompt("a", "en", "", letters=("A", "B"))
    assert written_option(hidden, " B\n") == 1
    assert written_option(hidden, "Paris") is None


@given(st.text(max_size=60))
def test_whatever_is_written_is_an_option_or_none(written):
    assert written_option(ASKED, written) in (None, 0, 1, 2, 3)
