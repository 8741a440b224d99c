"""A prompt is cut into its tokens without losing a letter, and attention without losing weight."""

import itertools
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from babelscope.reports.attention_view import AttendedText, AttentionView, pieces_of, view_json


def test_pieces_worked_by_hand() -> None:
    # <s>, "Was", " ist" whose span leaves the space out, and three bytes of one character.
    pieces, of_token = pieces_of("Was ist 字", [(0, 0), (0, 3), (4, 7), (8, 9), (8, 9), (8, 9)])
    assert pieces == ["", "Was ", "ist ", "字"]
    assert of_token == [0, 1, 2, 3, 3, 3]


@given(st.text(min_size=1, max_size=40), st.lists(st.integers(0, 39), max_size=12), st.integers(0, 3))
def test_joined_pieces_are_the_text(text: str, cuts: list[int], n_special: int) -> None:
    edges = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    spans = [*[(0, 0)] * n_special, *itertools.pairwise(edges), (0, 0)]
    pieces, of_token = pieces_of(text, spans)
    assert "".join(pieces) == text
    assert len(of_token) == len(spans)
    assert set(of_token) == set(range(len(pieces)))


def test_no_text_can_end_the_script_it_stands_in() -> None:
    text = AttendedText("en", ("</script><script>alert(1)//",), np.ones((1, 1, 1), np.float32))
    written = view_json([AttentionView("</script>", (3,), (text,))])
    assert "<" not in written
    assert json.loads(written)[0]["texts"][0]["pieces"] == ["</script><script>alert(1)//"]
    assert json.loads(written)[0]["layers"] == [3]


def test_weights_are_written_with_three_digits() -> None:
    weights = np.array([[[0.311, 0.10234, 0.58666]]], np.float32)
    text = view_json([AttentionView("q1", (0,), (AttendedText("en", ("a", "b", "c"), weights),))])
    assert '"weights":[[[0.311,0.102,0.587]]]' in text
