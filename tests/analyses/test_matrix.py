"""The matrix of context and question languages, counted by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from babelscope import workflows
from babelscope.analyses.behavior.matrix import language_matrix, matrices, wide
from babelscope.analyses.inference import mcnemar
from babelscope.analyses.statistics import NOT_DISTINGUISHABLE, SUPPORTED
from babelscope.errors import BabelScopeError
from tests.analyses.test_transfer import store_of
from tests.cli.tiny import process


def answered(right, depth=None):
    """What `classify` returns, for language -> 1 or 0 by item."""
    n = len(next(iter(right.values())))
    rows = [
        {"item": f"q{i}", "language": g, "gold": i % 2, "n_options": 2, "correct": float(x), "depth": depth[i] if depth
         else 0}
        for g, values in right.items() for i, x in enumerate(values)
    ]  # fmt: skip
    assert len(rows) == n * len(right)
    return pd.DataFrame(rows)


def test_every_cell_is_counted_by_hand():
    right = {"en": [1, 1, 1, 0], "fr": [1, 1, 0, 0], "en-fr": [1, 0, 0, 0], "fr-en": [1, 1, 0, 1]}
    table = language_matrix(answered(right), by=None, n_boot=50).table.set_index(["context", "question"])
    assert table["accuracy"].to_dict() == {
        ("en", "en"): 0.75, ("fr", "fr"): 0.5, ("en", "fr"): 0.25, ("fr", "en"): 0.75,
    }  # fmt: skip
    mixed = table.loc[("en", "fr")]
    assert mixed["question_gap"] == pytest.approx(0.25 - 0.5)
    assert mixed["context_gap"] == pytest.approx(0.25 - 0.75)
    assert table.loc[("fr", "en"), "question_gap"] == 0
    assert (table["chance"] == 0.5).all()
    assert (table["majority"] == 0.5).all()
    assert np.isnan(table.loc[("en", "en"), "question_gap"])
    assert table.loc[("en", "en"), "question_verdict"] == ""


def test_rows_are_contexts_and_columns_are_questions():
    right = {"en": [1, 1], "fr": [1, 0], "en-fr": [0, 0]}
    found = wide(language_matrix(answered(right), by=None, n_boot=20).table)
    assert found.loc["en", "fr"] == 0
    assert np.isnan(found.loc["fr", "en"])
    assert list(found.index) == list(found.columns) == ["en", "fr"]


def test_each_depth_has_a_matrix_of_its_own_beside_all():
    right = {"en": [1, 1, 0, 0], "fr": [1, 1, 1, 0], "en-fr": [1, 0, 0, 0]}
    table = language_matrix(answered(right, [0, 0, 1, 1]), n_boot=20).table
    assert list(dict.fromkeys(table["value"])) == ["all", "0", "1"]
    assert wide(table, "0").loc["en", "fr"] == 0.5
    assert wide(table, "1").loc["en", "fr"] == 0
    assert "accuracy, depth 1" in matrices(table)


def test_gaps_are_those_of_items_that_both_answer():
    table = answered({"en": [1, 1, 1], "fr": [0, 1, 1], "en-fr": [1, 1, 0]})
    table = table[~((table["language"] == "fr") & (table["item"] == "q0"))]
    row = language_matrix(table, by=None, n_boot=20).table.set_index(["context", "question"]).loc[("en", "fr")]
    assert row["question_n"] == 2
    assert row["question_gap"] == pytest.approx(0.5 - 1)
    assert row["context_n"] == 3


def test_mcnemar_is_a_sign_test_of_the_items_that_differ():
    a, b = np.array([1, 1, 1, 1, 1, 0, 0.0]), np.array([0, 0, 0, 0, 0, 1, 0.0])
    assert mcnemar(a, b) == pytest.approx(2 * stats.binom.cdf(1, 6, 0.5))
    assert mcnemar(a, a) == 1


def test_a_planted_cost_of_mixing_is_found_and_none_is_not():
    rng = np.random.default_rng(0)
    en, fr = (rng.random(300) < 0.8).astype(int), (rng.random(300) < 0.8).astype(int)
    worse, same = fr * (rng.random(300) < 0.7), (rng.random(300) < 0.8).astype(int)
    table = language_matrix(answered({"en": en, "fr": fr, "en-fr": worse, "fr-en": same}), by=None).table
    cells = table.set_index(["context", "question"])
    assert cells.loc[("en", "fr"), "question_verdict"] == SUPPORTED
    assert cells.loc[("en", "fr"), "question_high"] < 0
    assert cells.loc[("fr", "en"), "question_verdict"] == NOT_DISTINGUISHABLE
    assert (table["question_q"].dropna() >= table["question_p"].dropna() - 1e-12).all()


def test_partly_switched_prompts_have_no_place_and_are_named():
    right = {"en": [1, 1], "fr": [1, 0], "en-fr": [0, 0], "en-fr-25": [1, 1]}
    found = language_matrix(answered(right), by=None, n_boot=20)
    assert len(found.table) == 3
    assert found.provenance["left_out"] == ["en-fr-25"]


def test_what_has_no_mixed_prompt_is_refused():
    with pytest.raises(BabelScopeError, match="its question in another"):
        language_matrix(answered({"en": [1], "fr": [1]}))
    with pytest.raises(BabelScopeError, match="rule"):
        language_matrix(answered({"en": [1], "en-fr": [1]}), by="rule")


def test_evaluate_shows_the_matrix_of_a_store_with_pairs(tmp_path):
    store = store_of(
        tmp_path, {"en": [1, 1, 0, 1], "fr": [1, 0, 1, 1], "en-fr": [0, 0, 1, 1]},
        [{"task": "t", "depth": i % 2} for i in range(4)],
    )  # fmt: skip
    found = workflows.evaluate(store)
    table = {r.name: r.table for r in found.results}["matrix"]
    assert wide(table).loc["en", "fr"] == 0.5
    assert wide(table, "1").loc["en", "fr"] == 0.5
    done = process("evaluate", store.path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "context \\ question" in done.stdout
    assert list(tmp_path.rglob("tables/matrix.csv"))
