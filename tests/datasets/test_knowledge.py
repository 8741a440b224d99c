"""Facts as questions: balanced options, the same in every language."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.datasets.fact_order import OPTIONS, quartets
from babelscope.datasets.facts import Fact, fact_languages, fact_question, facts, term
from babelscope.datasets.generators.knowledge import Knowledge
from babelscope.datasets.generators.knowledge_bare import KnowledgeBare
from babelscope.datasets.words import LANGUAGES
from babelscope.errors import BabelScopeError


def facts_with(sizes):
    """Facts of one relation whose objects occur as often as `sizes` says."""
    return [Fact("r", f"s:{o}-{i}", f"o:{o}") for o, n in enumerate(sizes) for i in range(n)]


def of_relation(relation):
    return [fact for fact in facts() if fact.relation == relation]


def test_facts_are_there_in_all_languages():
    assert set(fact_languages()) == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_fact_is_asked_in_words_and_answered(language):
    for fact in facts():
        assert term(fact.subject, language) in fact_question(fact, language)
        assert term(fact.object, language).strip()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 10))
def test_quartets_use_no_fact_twice_and_no_object_twice_in_one(sizes, seed):
    drawn = quartets(facts_with(sizes), np.random.default_rng(seed))
    used = [fact for quartet in drawn for fact in quartet]
    assert len(set(used)) == len(used)
    assert all(len({fact.object for fact in quartet}) == OPTIONS for quartet in drawn)


# Worked by hand; in the second, the object with ten facts can stand in each quartet once, beside three of nine.
@pytest.mark.parametrize(
    ("sizes", "n"), [([1] * 9, 2), ([10, 3, 3, 3], 3), ([1, 1, 1], 0), ([2, 2, 2, 2, 2], 2), ([5, 5, 1, 1], 1)]
)
def test_there_are_as_many_quartets_as_can_be(sizes, n):
    assert len(quartets(facts_with(sizes), np.random.default_rng(0))) == n


def test_every_object_is_right_in_a_quarter_of_the_items_that_offer_it():
    shown, right = Counter(), Counter()
    for problem in Knowledge(items=0).problems():
        shown.update((problem.fact.relation, o) for o in problem.options)
        right[problem.fact.relation, problem.fact.object] += 1
    assert all(n == OPTIONS * right[key] for key, n in shown.items())


def test_a_wrong_option_is_never_another_true_answer():
    true = {(fact.relation, fact.subject, fact.object) for fact in facts()}
    for problem in Knowledge(items=0).problems():
        fact = problem.fact
        assert [(fact.relation, fact.subject, o) in true for o in problem.options].count(True) == 1
        assert problem.options[problem.gold] == fact.object


def test_options_differ_in_every_language():
    for prompt in Knowledge(items=0).generate().prompts:
        assert len({o.casefold() for o in prompt.options}) == OPTIONS, (prompt.item, prompt.language)


def test_languages_share_options_and_answer():
    made = Knowledge(items=40).generate(["en", "sw", "zh"])
    for en, sw, zh in zip(*(made.of(g) for g in ("en", "sw", "zh")), strict=True):
        assert en.item == sw.item == zh.item
        assert en.gold == sw.gold == zh.gold
        assert en.covariates == sw.covariates == zh.covariates


def test_the_answer_is_the_right_option_under_its_letter():
    prompt = Knowledge(items=1, letters="native").generate(["he"]).prompts[0]
    assert prompt.answer == prompt.options[prompt.gold]
    assert f"{prompt.letters[prompt.gold]}) {prompt.answer}" in prompt.segment("options").splitlines()


@pytest.mark.parametrize("recipe", [Knowledge, KnowledgeBare])
def test_a_smaller_recipe_generates_a_prefix(recipe):
    few, many = recipe(items=30).generate(["en"]), recipe(items=90).generate(["en"])
    assert few.prompts == many.prompts[:30]


@pytest.mark.parametrize("recipe", [Knowledge, KnowledgeBare])
def test_equal_recipes_generate_equal_prompts_and_other_seeds_others(recipe):
    assert recipe(items=30).generate(["en"]).digest() == recipe(items=30).generate(["en"]).digest()
    assert recipe(items=30).generate(["en"]).digest() != recipe(items=30, seed=1).generate(["en"]).digest()


def test_a_prefix_is_balanced_over_relations():
    relations = Counter(p.fact.relation for p in Knowledge(items=64).problems())
    assert max(relations.values()) - min(relations.values()) <= 1


def test_the_default_recipe_has_240_items_of_at_least_8_relations():
    problems = list(Knowledge().problems())
    assert len({p.shown for p in problems}) == 240
    assert len({p.fact.relation for p in problems}) >= 8


def test_the_test_split_refuses_to_ask_a_fact_twice():
    with pytest.raises(BabelScopeError, match="none is asked twice"):
        KnowledgeBare(items=5000).generate(["en"])


def test_the_train_split_repeats_facts_with_other_options_until_all_were_asked():
    problems = list(Knowledge(items=20 * len(facts()), split="train").problems())
    assert {p.fact for p in problems} == set(facts())
    first = problems[0].fact
    assert len({frozenset(p.options) for p in problems if p.fact == first}) > 1


def test_splits_arrange_the_same_facts_differently():
    train, test = (list(Knowledge(items=0, split=split).problems()) for split in ("train", "test"))
    test_options = {p.fact: p.options for p in test}
    same = [p.options == test_options.get(p.fact) for p in train]
    assert sum(same) < len(same) / 10


def test_bare_questions_ask_the_same_facts_in_the_same_order():
    shelled, bare = Knowledge(items=50, seed=3).generate(["ru"]), KnowledgeBare(items=50, seed=3).generate(["ru"])
    for a, b in zip(shelled.prompts, bare.prompts, strict=True):
        assert a.segment("question") == b.text
        assert a.answer == b.answer
        assert b.options == b.letters == ()
        assert b.gold is None
        assert b.covariates["template"] == "bare"


@pytest.mark.parametrize("recipe", [Knowledge, KnowledgeBare])
def test_an_unknown_language_is_named_with_those_there_are(recipe):
    with pytest.raises(BabelScopeError, match="'xx'") as caught:
        recipe(items=1).generate(["xx"])
    assert caught.value.hint == f"choose from {', '.join(LANGUAGES)}"
