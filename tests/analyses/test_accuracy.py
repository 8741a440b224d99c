from dataclasses import replace

import numpy as np
import pytest

from babelscope import __version__
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.behavior.accuracy import accuracy
from babelscope.errors import BabelScopeError
from babelscope.reports import figures
from babelscope.schema import PromptSet
from tests.store.stores import fill, make_block, make_plan, make_prompts


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


def test_labels_that_could_not_be_told_apart_are_the_reason_for_no_accuracy(tmp_path):
    prompts, reason = make_prompts(2, ("en",)), "the first tokens of the labels one, only do not tell them apart"
    plan = make_plan(prompts)
    block = make_block(plan, "en", 0)
    nothing = np.full(2, np.nan)
    answers = replace(
        block.answers, scores=block.answers.scores * np.nan, choice=np.full(2, -1), correct=nothing,
        undefined=dict.fromkeys(range(2), reason),
    )  # fmt: skip
    with StoreWriter.create(tmp_path / "s.acts", plan, prompts, {}) as writer:
        writer.put(replace(block, answers=answers))
    with pytest.raises(BabelScopeError, match=f"in 2 of 2 prompts {reason}") as caught:
        accuracy(ActivationStore.open(tmp_path / "s.acts"))
    assert "texts" in caught.value.hint
    with pytest.raises(BabelScopeError, match="no item has options"):
        accuracy(ActivationStore.open(tmp_path / "s.acts"), "texts")
