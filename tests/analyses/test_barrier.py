"""The barrier, the pull of foreign options and mitigations, on stores whose answers were chosen."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as reference

import babelscope as bs
from babelscope.analyses.behavior.barrier import barrier
from babelscope.analyses.behavior.foreign_pull import foreign_pull
from babelscope.analyses.behavior.mitigations import mitigations
from babelscope.analyses.behavior.settings import Setting, cells_of, has_settings, settings_of
from babelscope.analyses.behavior.transfer import transfer
from babelscope.analyses.inference import mcnemar
from babelscope.errors import BabelScopeError
from tests.analyses.mixing import mixed_store, right, wrong

N = 40
FEW = {"n_boot": 300}


def some(n, share, seed):
    return set(np.flatnonzero(np.random.default_rng(seed).random(n) < share).tolist())


def rows(result, mode="corrected"):
    table = result.table
    table = table[table["mode"] == mode] if "mode" in table else table
    return table.set_index(["setting", "language", "mitigation"]).sort_index()


def test_codes_are_taken_apart():
    found = settings_of(["en", "sw", "gt_question_de", "gt_de", "full_zh", "mixup", "mixup+ids-1234", "en+translate"])
    assert "sw" not in found
    assert found["gt_question_de"] == Setting("gt_question_de", "gt_question", "de")
    assert found["gt_de"].kind == "gt"
    assert found["mixup+ids-1234"] == Setting("mixup+ids-1234", "mixup", "*", "ids-1234")
    assert found["en+translate"] == Setting("en+translate", "base", "en", "translate")


def test_cells_are_foreign_by_their_segment_and_changed_by_their_text(tmp_path):
    store = mixed_store(tmp_path / "s.acts", {"en": right(4), "gt_question_de": right(4)}, same=(0, 2))
    cells = cells_of(store)["gt_question_de"]
    # Item 1: gold is option 2; its question and right option are as in English.
    assert cells.foreign.tolist() == [[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 0, 0, 0, 1]]
    np.testing.assert_array_equal(cells.changed[1], [0, np.nan, 0, np.nan, np.nan])
    np.testing.assert_array_equal(cells.changed[3], [0, np.nan, np.nan, np.nan, 1])
    assert cells.languages == {"de"}
    assert np.isnan(cells_of(store)["en"].changed).all()


def test_every_number_is_counted_by_hand(tmp_path):
    choices = {"en": wrong(8, {7}), "full_de": wrong(8, {0, 7}), "full_fr": wrong(8, {1, 7}),
               "gt_de": wrong(8, {0, 1, 2}), "gt_fr": wrong(8, {0, 3})}  # fmt: skip
    found = rows(barrier(mixed_store(tmp_path / "s.acts", choices, same=(2,)), mode="corrected", **FEW))
    de, both = found.loc["gt", "de", ""], found.loc["gt", "*", ""]
    assert (de["n"], de["accuracy"], de["chance"]) == (8, 5 / 8, 1 / 4)
    assert de["gap_en"] == pytest.approx(7 / 8 - 5 / 8)
    assert de["gap_mono"] == pytest.approx(6 / 8 - 5 / 8)
    assert (de["base"], de["mono"], both["mono"]) == ("en", "full_de", "full_de full_fr")
    assert both["accuracy"] == pytest.approx((5 + 6) / 16)
    assert both["gap_en"] == pytest.approx(7 / 8 - 11 / 16)
    assert both["gap_mono"] == pytest.approx(6 / 8 - 11 / 16)
    # In items 1 and 3 option 2 is as in English: it is the right one of item 1 alone.
    assert de["mix_rate"] == pytest.approx(7 / 8)
    assert de["n_changed"] == 7
    assert de["accuracy_changed"] == pytest.approx(5 / 7)
    assert de["gap_changed"] == pytest.approx(6 / 7 - 5 / 7)
    # Right in English and in gt_de: items 3, 4, 5, 6 of seven; gt_de alone is right in item 7.
    assert de["xltr"] == pytest.approx((4 / 7 - 1 / 4) / (3 / 4))
    assert de["xltr_null"] == pytest.approx((5 / 8 - 1 / 4) / (3 / 4))
    assert de["p"] == pytest.approx(reference([[4, 3], [1, 0]], exact=True).pvalue)
    assert math.isnan(found.loc["full", "de", ""]["gap_mono"])
    assert found.loc["full", "de", ""]["gap_en"] == pytest.approx(1 / 8)
    assert math.isnan(found.loc["base", "en", ""]["gap_en"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_that_of_statsmodels(pairs):
    a, b = np.array(pairs, float).T
    table = [[((a == i) & (b == j)).sum() for j in (1, 0)] for i in (1, 0)]
    assert mcnemar(a, b) == pytest.approx(reference(table, exact=True).pvalue)


def test_a_gap_counts_the_items_alone_that_have_all_its_terms(tmp_path):
    choices = {"en": wrong(8, {0, 1}), "full_de": right(8), "gt_de": [math.nan, *wrong(8, {2})[1:]]}
    store = mixed_store(tmp_path / "s.acts", choices, leave_out={("full_de", 3)})
    found = rows(barrier(store, mode="corrected", **FEW)).loc["gt", "de", ""]
    assert found[["n", "n_undefined", "n_en", "n_mono"]].tolist() == [7, 1, 7, 6]
    assert found["gap_en"] == pytest.approx(6 / 7 - 6 / 7)
    assert found["gap_mono"] == pytest.approx(6 / 6 - 5 / 6)


def test_a_planted_barrier_is_found_and_weak_skill_alone_is_none(tmp_path):
    weak = some(N, 0.5, 0)
    planted = mixed_store(tmp_path / "a.acts", {
        "en": right(N), "full_de": right(N), "question_de": wrong(N, weak), "mixup": wrong(N, weak),
        "full_fr": right(N),
    })  # fmt: skip
    found = rows(barrier(planted, mode="corrected", **FEW))
    for key in (("question", "de", ""), ("mixup", "*", "")):
        assert (found.loc[key, ["verdict", "verdict_mono"]] == "supported").all()
        assert found.loc[key, "gap_mono_low"] > 0
    # Where German as a whole is as weak as the mixed question, nothing is lost by mixing.
    weaker = mixed_store(tmp_path / "b.acts", {
        "en": right(N), "full_de": wrong(N, weak), "question_de": wrong(N, weak),
    })  # fmt: skip
    found = rows(barrier(weaker, mode="corrected", **FEW)).loc["question", "de", ""]
    assert found["verdict"] == "supported"
    assert (found["gap_mono"], found["verdict_mono"]) == (0, "not distinguishable from the null")


def test_without_a_barrier_few_of_many_stores_show_one(tmp_path):
    hits = 0
    for seed in range(20):
        choices = {code: wrong(N, some(N, 0.4, 50 * seed + i)) for i, code in enumerate(("en", "gt_de", "options_de"))}
        found = rows(barrier(mixed_store(tmp_path / f"{seed}.acts", choices), mode="corrected", n_boot=200))
        hits += (found["verdict"] == "supported").any()
    assert hits <= 3


def test_what_was_not_captured_is_undefined_and_said(tmp_path):
    store = mixed_store(tmp_path / "s.acts", {"gt_de": right(8), "full_de": right(8), "mixup": right(8)})
    result = barrier(store, **FEW)
    found = rows(result)
    assert found["gap_en"].isna().all()
    assert found["mix_rate"].isna().all()
    assert found.loc["gt", "de", ""]["gap_mono"] == 0
    assert math.isnan(found.loc["mixup", "*", ""]["gap_mono"])  # French as a whole was not captured
    assert set(found["verdict"]) == {"not testable with this data"}
    notes = " ".join(result.provenance["notes"])
    assert "the store has no en" in notes
    assert "no gap_mono of mixup" in notes
    assert "no rows as published" in notes
    with pytest.raises(BabelScopeError, match="no item has options"):
        barrier(store, mode="paper")
    with pytest.raises(BabelScopeError, match="no settings of mixed-language"):
        barrier(mixed_store(tmp_path / "t.acts", {"en": right(4)}))


def test_without_texts_languages_are_known_and_changes_are_not(tmp_path):
    store = mixed_store(tmp_path / "s.acts", {"en": right(8), "onewrong_de": wrong(8, {0, 1})}, texts=False)
    found = rows(barrier(store, mode="corrected", **FEW)).loc["onewrong", "de", ""]
    assert math.isnan(found["mix_rate"])
    assert found["gap_en"] == pytest.approx(1 / 4)
    pull = foreign_pull(store, **FEW).table
    assert pull.loc[pull["gold"] == "base", "chosen"].tolist() == [0.25, 0.25]


def test_as_published_is_the_plain_drop_by_the_last_token(tmp_path):
    choices = {"en": right(8), "gt_de": right(8), "mixup": right(8)}
    spelled = {("en", "last"): wrong(8, {0}), ("gt_de", "last"): wrong(8, {1, 2, 3})}
    store = mixed_store(tmp_path / "s.acts", choices, spelled=spelled, leave_out={("en", 7)})
    result = barrier(store, **FEW)
    paper = rows(result, "paper")
    assert set(paper["scoring"]) == {"labels-last"}
    # Each over the items of its own: six of seven, five of eight.
    assert paper.loc["gt", "de", ""]["gap_en"] == pytest.approx(6 / 7 - 5 / 8)
    assert paper[["gap_en_low", "p", "q", "gap_mono"]].isna().all(axis=None)
    assert len(paper) == 3
    assert (rows(result)["gap_en"].dropna() == 0).all()


def test_the_ratio_is_that_of_transfer(tmp_path):
    choices = {"en": wrong(N, some(N, 0.3, 1)), "gt_de": wrong(N, some(N, 0.4, 2))}
    store = mixed_store(tmp_path / "s.acts", choices)
    found = rows(barrier(store, mode="corrected", **FEW)).loc["gt", "de", ""]
    expected = transfer(store, "en", mode="corrected").table.iloc[0]
    for name in ("xltr", "excess"):
        assert found[name] == pytest.approx(expected[name])
    assert found["xltr_null"] == pytest.approx(expected["null"])


def test_a_pull_is_told_from_a_letter_that_is_always_liked(tmp_path):
    # The foreign option of onewrong is the one behind the right one, which `wrong` chooses.
    drawn = mixed_store(tmp_path / "a.acts", {"en": right(N), "onewrong_de": wrong(N, some(N, 0.5, 3))})
    found = foreign_pull(drawn, **FEW).table.set_index(["language", "gold"]).loc["de", "base"]
    assert found["verdict"] == "supported"
    assert found["pull"] == pytest.approx(found["chosen"]) == pytest.approx(len(some(N, 0.5, 3)) / N)
    assert (found["null_uniform"], found["null_base"]) == (0.25, 0)
    liked = mixed_store(tmp_path / "b.acts", {"en": [0] * N, "onewrong_de": [0] * N, "threewrong_de": [0] * N})
    found = foreign_pull(liked, **FEW).table
    assert (found["pull"] == 0).all()
    assert (found["verdict"] == "not distinguishable from the null").all()
    assert found["null_uniform"].unique().tolist() == [0.25, 0.75]


def test_the_pull_of_a_foreign_right_option_alone_is_the_barrier(tmp_path):
    choices = {"en": wrong(N, some(N, 0.2, 4)), "gt_de": wrong(N, some(N, 0.5, 5)), "options_de": right(N),
               "question_de": right(N)}  # fmt: skip
    store = mixed_store(tmp_path / "s.acts", choices)
    pull = foreign_pull(store, **FEW).table
    assert set(pull["setting"]) == {"gt"}  # of options and question all or none are foreign
    assert set(pull["gold"]) == {"foreign", "all"}
    gap = rows(barrier(store, mode="corrected", **FEW)).loc["gt", "de", ""]["gap_en"]
    np.testing.assert_allclose(pull["pull"], -gap)


def test_a_mitigation_that_helps_everywhere_closes_no_gap(tmp_path):
    worse = some(N, 0.6, 6)
    half = {i for i in worse if i % 2}
    choices = {
        "en": wrong(N, half), "gt_de": wrong(N, worse), "en+awareness-1": right(N),
        "gt_de+awareness-1": wrong(N, worse - half), "gt_de+translate": wrong(N, half),
    }  # fmt: skip
    result = mitigations(mixed_store(tmp_path / "s.acts", choices), **FEW)
    found = rows(result)
    both = found.loc["gt", "de", "awareness-1"]
    assert both["change"] == pytest.approx(len(half) / N)
    assert both["verdict"] == "supported"
    assert both["gap_en_without"] == pytest.approx((len(worse) - len(half)) / N)
    assert both["closed"] == pytest.approx(0)
    assert both["verdict_gap"] == "not distinguishable from the null"
    alone = found.loc["gt", "de", "translate"]
    assert alone["change"] > 0
    assert math.isnan(alone["closed"])
    assert "translate: en was not captured so" in result.provenance["notes"][0]
    assert found.loc["base", "en", "awareness-1"]["change"] == pytest.approx(len(half) / N)
    compared = rows(barrier(mixed_store(tmp_path / "t.acts", choices), mode="corrected", **FEW))["base"]
    assert compared.loc["gt", "de", "awareness-1"] == "en+awareness-1"
    assert compared.loc["gt", "de", "translate"] == "en"


def test_evaluate_adds_the_tables_where_languages_are_settings(tmp_path):
    choices = {"en": wrong(8, {0}), "full_de": wrong(8, {1}), "gt_de": wrong(8, {1, 2}), "gt_de+awareness-1": right(8)}
    said = []
    found = bs.evaluate(mixed_store(tmp_path / "s.acts", choices), note=said.append)
    assert [r.name for r in found.results] == [
        "accuracy", "transfer", "rankc", "barrier", "foreign-pull", "mitigations"
    ]  # fmt: skip
    rankc = next(r.table for r in found.results if r.name == "rankc")
    assert rankc[["language_a", "language_b"]].to_numpy().tolist() == [["en", "full_de"]]
    assert "transfer is from en to each setting, not between languages" in said[0]
    assert set(found.barrier()["language"]) == {"en", "*"}
    assert "gap mono" in found.summary()
    found.save(tmp_path / "tables")
    assert (tmp_path / "tables" / "foreign-pull.parquet").exists()
    plain = mixed_store(tmp_path / "t.acts", {"en": right(4), "de": right(4)})
    assert not has_settings(plain)
    assert [r.name for r in bs.evaluate(plain).results] == ["accuracy", "transfer", "rankc"]
    assert bs.evaluate(plain).barrier().empty
