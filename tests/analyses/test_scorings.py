"""Which option counts as the answer, by each scoring, and what becomes of answers that are undefined."""

import math

import pytest

import babelscope as bs
from babelscope.analyses.behavior.rankc import rank_consistency
from babelscope.analyses.behavior.scorings import SCORINGS, chosen
from babelscope.errors import BabelScopeError
from tests.analyses.mixing import mixed_store, right, wrong


def test_each_spelling_counts_by_itself(tmp_path):
    choices = {"en": right(8), "full_de": right(8)}
    spelled = {("en", "bare"): wrong(8, {0, 1}), ("en", "last"): wrong(8, set(range(8)))}
    store = mixed_store(tmp_path / "s.acts", choices, spelled=spelled)
    found = {s: bs.accuracy(store, s).table.set_index("language")["accuracy"]["en"] for s in SCORINGS if "l" in s[:1]}
    assert found == {"labels": 1.0, "labels-bare": 0.75, "labels-spaced": 1.0, "labels-last": 0.0}
    assert bs.accuracy(store, "labels-last").table.set_index("language")["accuracy"]["full_de"] == 1
    assert rank_consistency(store, scoring="labels-last").table["rankc"].notna().all()


def test_what_is_written_is_counted_where_it_can_be_read_and_never_wrong_where_it_cannot(tmp_path):
    written = {"en": ["A", " (B)", "nonsense", "D.", "", "Answer: C", "option 3", "D"], "full_de": ["?"] * 8}
    store = mixed_store(tmp_path / "s.acts", {"en": right(8), "full_de": right(8)}, written=written)
    table = bs.accuracy(store, "written").table.set_index("language")
    # Gold is A, B, C, D, A, B, C, D: read are A, B, D, C, C (by its text), D, of which C for B is wrong.
    assert table.loc["en", ["n", "n_unread"]].tolist() == [6, 2]
    assert table.loc["en", "accuracy"] == pytest.approx(5 / 6)
    assert table.loc["full_de", ["n", "n_unread"]].tolist() == [0, 8]
    assert math.isnan(table.loc["full_de", "accuracy"])
    answers = chosen(store, "written")
    assert answers.loc[answers["choice"].isna(), "correct"].isna().all()
    with pytest.raises(BabelScopeError, match="no order"):
        rank_consistency(store, scoring="written")


def test_undefined_labels_are_counted_beside_the_accuracy(tmp_path):
    store = mixed_store(tmp_path / "s.acts", {"en": [0, math.nan, 2, 3], "full_de": right(4)})
    table = bs.accuracy(store).table.set_index("language")
    assert table.loc["en", ["n", "n_unread"]].tolist() == [3, 1]
    assert table.loc["full_de", ["n", "n_unread"]].tolist() == [4, 0]


def test_what_a_scoring_reads_has_to_be_kept(tmp_path):
    store = mixed_store(tmp_path / "s.acts", {"en": right(4)})
    for scoring, hint in (("written", "--continue"), ("labels-last", "capture again"), ("texts", "--answers texts")):
        with pytest.raises(BabelScopeError) as caught:
            bs.accuracy(store, scoring)
        assert hint in caught.value.hint
    with pytest.raises(BabelScopeError, match="no scoring called 'labels-first'"):
        bs.accuracy(store, "labels-first")
