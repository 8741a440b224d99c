from dataclasses import replace

import pytest

from babelscope import __version__
from babelscope.analyses.behavior.accuracy import accuracy
from babelscope.reports import figures
from babelscope.schema import PromptSet
from tests.store.stores import fill, make_plan, make_prompts


def store_with(covariates, folder):
    """Six items in two languages, each with the covariates at its place."""
    plain = make_prompts(6)
    prompts = PromptSet(
        plain.name, tuple(replace(p, covariates=covariates[int(p.item[-1])]) for p in plain.prompts), plain.source
    )
    return fill(folder / "s.acts", make_plan(prompts), prompts)


def test_items_without_a_task_are_counted_under_their_dataset_or_all(tmp_path):
    named = [{"task": "sums"}, {"task": "sums"}, {"dataset": "facts"}, {"dataset": "facts"}, {}, {"dataset": "facts"}]
    table = accuracy(store_with(named, tmp_path)).table
    counts = table.set_index(["task", "language"])["n"].to_dict()
    assert counts == {(t, g): n for t, n in (("sums", 2), ("facts", 3), ("all", 1)) for g in ("en", "sw")}
    assert table["n"].sum() == 12


def test_without_any_task_all_items_are_one(tmp_path):
    table = accuracy(store_with([{}] * 6, tmp_path)).table
    assert table[["task", "n"]].to_numpy().tolist() == [["all", 6]] * 2
    assert table["accuracy"].tolist() == [pytest.approx(0.5)] * 2  # items 0, 2 and 4 are answered correctly


def test_accuracy_says_where_it_comes_from_and_how_many_items_it_counts(tmp_path):
    store = store_with([{"task": "t"}] * 5 + [{"task": "u"}], tmp_path)
    found = accuracy(store)
    assert found.provenance["version"] == __version__
    assert found.provenance["languages"] == ("en", "sw")
    assert "dataset" in found.provenance["task"]
    (figure,) = figures([found])
    assert "n = 1 to 5" in figure.caption
