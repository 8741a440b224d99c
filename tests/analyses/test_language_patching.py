"""Answers follow the state that they are given, beside states of other items; letters explain themselves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import babelscope as bs
from babelscope import workflows
from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.patching import Pairing, follows, language_said, two_sources
from babelscope.analyses.recipes.language_patching import (
    FROM_MEAN,
    FROM_OTHER,
    FROM_SAME,
    MEAN_OR_ONE,
    SPOKEN,
    LanguagePatching,
)
from babelscope.analyses.statistics import (
    EXPLAINED,
    NOT_DISTINGUISHABLE,
    NOT_TESTABLE,
    SUPPORTED,
    bootstrap_weights,
)
from babelscope.analyses.study import make_study
from babelscope.errors import BabelScopeError
from babelscope.schema import Block, PromptSet, Rows
from tests.analyses.planted import write_store

PATCHED = "organism"


@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_sources_are_other_items_with_answers_apart(n, n_tokens, seed):
    rng = np.random.default_rng(seed)
    answers = [frozenset(rng.choice(n_tokens, rng.integers(1, 3)).tolist()) for _ in range(n)]
    found = two_sources(answers, rng)
    for i, (a, b) in enumerate(found):
        exists = any(
            not answers[i] & answers[j] and not answers[i] & answers[k] and not answers[j] & answers[k]
            for j in range(n) for k in range(n) if len({i, j, k}) == 3
        )  # fmt: skip
        assert (a >= 0) == (b >= 0) == exists
        if exists:
            assert len({i, a, b}) == 3
            assert not answers[i] & answers[a]
            assert not answers[i] & answers[b]
            assert not answers[a] & answers[b]


def test_no_item_is_the_source_of_many():
    found = two_sources([frozenset({k}) for k in range(20)], np.random.default_rng(0))
    assert np.bincount(found.ravel(), minlength=20).max() <= 3


def test_following_is_that_of_both_runs_written_out():
    rng = np.random.default_rng(0)
    answers = [frozenset({k}) for k in range(6)]
    sources = two_sources(answers, rng)
    said = rng.integers(6, size=(6, 2))
    said[2] = -1
    own, other = follows(said, sources, answers)
    for i in range(6):
        if i == 2:
            assert np.isnan([own[i], other[i]]).all()
            continue
        (a, b), (x, y) = sources[i], said[i]
        assert own[i] == (int(x == a) + int(y == b)) / 2
        assert other[i] == (int(y == a) + int(x == b)) / 2


def test_states_that_do_not_matter_are_found_at_the_level_of_the_test():
    rng = np.random.default_rng(0)
    answers = [frozenset({k}) for k in range(16)]
    weights = bootstrap_weights(16, 100, rng)
    p = []
    for _ in range(300):
        sources = two_sources(answers, rng)
        # Some sources' answers are said whatever the state is, others never: the prompt alone decides.
        said = np.stack([rng.choice([*pair, -2 % 16], 2) for pair in sources])
        p.append(Pairing(*follows(said, sources, answers)).columns(weights, 99, rng)["p"])
    assert (np.array(p) <= 0.05).mean() <= 0.088  # 0.999 interval of a rate of 0.05


def test_answers_in_two_languages_that_share_a_token_do_not_count():
    target, other = [frozenset({0}), frozenset({1}), frozenset({2})], [frozenset({0}), frozenset({11}), frozenset({12})]
    sources = np.array([[1, 2], [0, 2], [0, 1]])
    said = np.array([[1, 12], [0, 2], [-1, 11]])
    here, there = language_said(said, sources, target, other)
    np.testing.assert_array_equal(here, [0.5, 1.0, 0.0])
    np.testing.assert_array_equal(there, [0.5, 0.0, 1.0])
    here, _ = language_said(said[:1], np.array([[0, 0]]), target, other)
    assert np.isnan(here).all()


def test_the_mean_over_pairs_is_taken_item_by_item_and_the_interval_is_around_the_null():
    rng = np.random.default_rng(0)
    a, b = (Pairing(rng.random(9), 0.1 * rng.random(9)) for _ in range(2))
    a.share[0] = a.beside[0] = np.nan
    found = Pairing.over([a, b])
    assert found.share[0] == b.share[0]
    np.testing.assert_allclose(found.share[1:], (a.share + b.share)[1:] / 2)
    columns = found.columns(bootstrap_weights(9, 200, rng), 99, rng)
    assert columns["estimate"] == pytest.approx(found.share.mean())
    assert columns["null"] == pytest.approx(found.beside.mean())
    assert columns["low"] < columns["estimate"] < columns["high"]


def test_three_items_are_not_tested():
    columns = Pairing(np.ones(3), np.zeros(3)).columns(np.ones((5, 3)), 9, np.random.default_rng(0))
    assert columns["n"] == 3
    assert np.isnan(columns["p"])


def study(store, **options):
    return make_study(store, n_boot=200, n_perm=199, by=None, model=str(workflows.model_path(PATCHED)), **options)


def run(store, **options):
    results = LanguagePatching().run(study(store, **options))
    assert [r.name for r in results] == ["language_patching", "language_patching_pairs"]
    return results[0].table.set_index(["claim", "layer"]), results[1].table, results[0].provenance


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    prompts = bs.generate("knowledge-bare", languages=["en", "de", "fr"]).select(limit=24)
    return bs.capture(tmp_path_factory.mktemp("captured") / "run.acts", model=PATCHED, prompts=prompts,
                      sites=["resid.post@0,3,5"], self_test=False)  # fmt: skip


def test_answers_of_the_organism_follow_late_states_and_not_the_first(captured):
    table, pairs, about = run(captured)
    n = len(captured.items) - about["n_dropped"]["all"]
    assert about["answers"] == {"all": "words"}
    for claim in (FROM_OTHER, FROM_SAME, FROM_MEAN):
        assert table.loc[(claim, 3), "verdict"] == SUPPORTED
    # Behind the last layer the state is all that is left of a prompt.
    for claim in (FROM_OTHER, FROM_SAME):
        assert table.loc[(claim, 5), "estimate"] == 1
        assert table.loc[(claim, 5), "null"] == 0
    assert table.loc[(FROM_OTHER, 0), "estimate"] < table.loc[(FROM_OTHER, 3), "estimate"]
    assert table.loc[(MEAN_OR_ONE, 5), "verdict"] == NOT_DISTINGUISHABLE
    # It says the answer in the language of the state: nothing brings it back to that of the prompt.
    last = table.loc[(SPOKEN, 5)]
    assert last["estimate"] == 0
    assert last["null"] == 1
    assert last["verdict"] in (NOT_DISTINGUISHABLE, NOT_TESTABLE)
    assert (table["n"] <= n).all()
    assert set(pairs["language_state"]) == {"en", "de", "fr", "mean"}
    assert pairs[pairs["language_state"] == pairs["language_prompt"]]["n_spoken"].eq(0).all()


def rewritten(path, captured, rows):
    """The captured store with other states (language, layer, item, unit)."""
    with StoreWriter.create(path, captured.plan, captured.prompts, {}) as writer:
        for language, values in zip(captured.languages, rows, strict=True):
            n = len(captured.items)
            block = {(captured.plan.sites[0].name, captured.plan.positions[0]): Rows(values)}
            writer.put(Block(language, 0, np.arange(n), block, np.ones(n, dtype=np.int64), ("x",) * n))
    return ActivationStore.open(path)


def states_of(captured):
    return np.stack([captured.select(str(s)).numpy() for s in captured.plan.sites], axis=1)


def test_states_of_other_items_are_not_followed(tmp_path, captured):
    states = states_of(captured)
    mixed = np.stack([np.roll(x, 1 + k, axis=1) for k, x in enumerate(states)])  # every language another shift
    table, _, _ = run(rewritten(tmp_path / "run.acts", captured, mixed))
    for claim in (FROM_OTHER, FROM_SAME, FROM_MEAN):
        for layer in (0, 3, 5):
            assert table.loc[(claim, layer), "verdict"] == NOT_DISTINGUISHABLE


def test_letters_are_the_same_in_every_language_and_explain_what_follows(tmp_path):
    prompts = bs.generate("knowledge", languages=["en", "de"]).select(limit=14)
    store = bs.capture(tmp_path / "run.acts", model=PATCHED, prompts=prompts, sites=["resid.post@5"], self_test=False)
    table, _, about = run(store)
    assert about["answers"] == {"all": "letters"}
    assert table.loc[(FROM_OTHER, 5), "verdict"] == EXPLAINED
    assert table.loc[(SPOKEN, 5), "verdict"] == NOT_TESTABLE
    assert (FROM_MEAN, 5) not in table.index  # the mean over one other language is that language


def test_one_language_and_unanswered_items_are_refused(captured, tmp_path):
    with pytest.raises(BabelScopeError, match="one language"):
        LanguagePatching().run(study(captured, languages=["en"]))
    prompts = bs.generate("knowledge-bare", languages=["en", "de"]).select(limit=6)
    answers = {p.item: p.answer for p in prompts.of("en")}
    others = dict(zip(prompts.items, [*prompts.items[3:], *prompts.items[:3]], strict=True))
    wrong = PromptSet("wrong", tuple(replace(p, answer=answers[others[p.item]]) for p in prompts.prompts))
    unknown = PromptSet("open", tuple(replace(p, answer="") for p in prompts.prompts))
    for name, chosen, problem in (("wrong", wrong, "answered in all of en, de"), ("open", unknown, "has no answers")):
        store = bs.capture(tmp_path / name, model=PATCHED, prompts=chosen, sites=["resid.post@5"], self_test=False)
        with pytest.raises(BabelScopeError, match=problem):
            LanguagePatching().run(study(store))


def test_a_store_without_the_residual_stream_is_told_what_to_capture(tmp_path):
    store = write_store(tmp_path / "run.acts", {"mlp.neurons": np.ones((1, 3, 6, 4), dtype=np.float32)})
    with pytest.raises(BabelScopeError, match=r"resid\.post") as error:
        LanguagePatching().run(make_study(store, by=None))
    assert "--site resid.post" in error.value.hint
