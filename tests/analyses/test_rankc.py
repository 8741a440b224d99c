"""RankC against its definition, written down slowly, and on answers whose agreement is known."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelscope.activations_store import ActivationStore, StoreWriter
from babelscope.analyses.behavior.rankc import chance_of, consistency, rank_consistency, weights_of
from babelscope.errors import BabelScopeError
from babelscope.schema import Answers, PromptSet
from tests.store.stores import make_block, make_plan, make_prompts

orders = st.integers(2, 6).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n))))


def slow(a, b):
    n = len(a)
    raw = [np.exp(n - j + 1) for j in range(1, n + 1)]
    shares = [len(set(a[:j]) & set(b[:j])) / j for j in range(1, n + 1)]
    return sum(w / sum(raw) * p for w, p in zip(raw, shares, strict=True))


@settings(max_examples=80, deadline=None)
@given(orders)
def test_it_is_the_published_sum(pair):
    a, b = (np.array(x) for x in pair)
    assert consistency(a, b) == pytest.approx(slow(list(a), list(b)), abs=1e-12)
    assert consistency(a, a) == pytest.approx(1)
    assert consistency(a, b) == pytest.approx(consistency(b, a), abs=1e-12)


def test_chance_is_the_mean_over_all_orders():
    for n in (2, 3, 4, 5):
        first = np.arange(n)
        every = [consistency(first, np.array(p)) for p in permutations(range(n))]
        assert chance_of(n) == pytest.approx(np.mean(every), abs=1e-12)
    assert chance_of(4) == pytest.approx(0.377, abs=5e-4)  # the method sheet, A2
    assert chance_of(10) == pytest.approx(0.158, abs=5e-4)
    assert weights_of(10)[0] == pytest.approx(0.632, abs=5e-4)


def store_of(folder, scores):
    """A store with these scores, language -> (item, option)."""
    n, n_options = next(iter(scores.values())).shape
    letters = tuple("ABCDEFGH"[:n_options])
    plain = make_prompts(n, tuple(scores))
    prompts = PromptSet("made", tuple(replace(p, letters=letters, options=letters, gold=0) for p in plain.prompts))
    plan = make_plan(prompts)
    with StoreWriter.create(folder / "s.acts", plan, prompts, {}) as writer:
        for language, index in writer.pending():
            block = make_block(plan, language, index)
            own = scores[language][block.items]
            writer.put(replace(block, answers=Answers(own, own.argmax(1), (own.argmax(1) == 0).astype(float))))
    return ActivationStore.open(folder / "s.acts")


def test_planted_agreement_is_found_and_a_preferred_letter_is_not_taken_for_it(tmp_path):
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(60, 4))
    letter = np.array([4.0, 2.0, 0.0, -2.0])
    together = {g: meaning + 0.3 * rng.normal(size=(60, 4)) for g in ("en", "de")}
    by_letter = {g: letter + rng.normal(size=(60, 4)) for g in ("fr", "sw")}
    table = rank_consistency(store_of(tmp_path, {**together, **by_letter}), n_boot=500, n_perm=499).table
    table = table.set_index(["language_a", "language_b"])
    agreed, preferred = table.loc[("en", "de")], table.loc[("fr", "sw")]
    assert agreed["verdict"] == "supported"
    assert agreed["gap_low"] > 0.2
    assert preferred["corrected"] > 0.8  # the published number, even without its chance, is fooled
    assert preferred["verdict"] == "not distinguishable from the null"
    assert preferred["gap_low"] <= 0 <= preferred["gap_high"]
    assert (table["n"] == 60).all()
    with pytest.raises(BabelScopeError, match="no language called 'xx'"):
        rank_consistency(ActivationStore.open(tmp_path / "s.acts"), languages=["en", "xx"])
