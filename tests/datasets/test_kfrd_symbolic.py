from collections import Counter, defaultdict
from functools import cache

import pytest

from babelscope.datasets.generators.kfrd_symbolic import KfrdSymbolic
from babelscope.datasets.list_steps import Step, after
from babelscope.datasets.solver import solve_symbolic
from babelscope.datasets.words import LANGUAGES, wording
from babelscope.errors import BabelScopeError
from tests.datasets.heuristics import (
    accuracy,
    chance_margin,
    common_subsequence,
    differing_places,
    edit_distance,
    nearness_to_others,
)

DEPTHS = (1, 2, 3)
SAMPLE = 800  # problems of each depth


@cache
def sample(compat):
    by_depth = defaultdict(list)
    for problem in KfrdSymbolic(items=SAMPLE * len(DEPTHS), split="train", compat=compat).problems():
        by_depth[len(problem.steps)].append(problem)
    return by_depth


def in_prompt(problem):
    return {*problem.words, *(s.word for s in problem.steps if s.word)}


HEURISTICS = {
    "nearest to the others, by places": lambda p: nearness_to_others(p.options, differing_places),
    "nearest to the others, by words": lambda p: nearness_to_others(p.options, edit_distance),
    "nearest to the others, in writing": lambda p: nearness_to_others([" ".join(o) for o in p.options], edit_distance),
    "words of the list": lambda p: [len(set(o) & set(p.words)) for o in p.options],
    "words of the prompt": lambda p: [len(set(o) & in_prompt(p)) for o in p.options],
    "order of the list": lambda p: [common_subsequence(o, p.words) for o in p.options],
    "nearest to the list": lambda p: [-edit_distance(o, p.words) for o in p.options],
    "first word of the list": lambda p: [o[0] == p.words[0] for o in p.options],
    "last word of the list": lambda p: [o[-1] == p.words[-1] for o in p.options],
}


@pytest.mark.parametrize("max_steps", [1, 3, 6])
def test_the_solver_finds_the_gold_and_nothing_else_right(max_steps):
    for prompt in KfrdSymbolic(items=500, seed=3, split="train", max_steps=max_steps).generate(["en"]).prompts:
        assert solve_symbolic(prompt.text) == (prompt.gold,), prompt.text


def test_options_are_four_different_lists_of_equal_length_without_repeated_words():
    for problems in sample("corrected").values():
        for problem in problems:
            assert len(set(problem.options)) == 4
            assert len({len(o) for o in problem.options}) == 1
            assert all(len(set(o)) == len(o) for o in problem.options)


def test_every_operation_occurs_at_every_depth():
    for problems in sample("corrected").values():
        counts = Counter(s.kind for p in problems for s in p.steps)
        assert set(counts) == {"repeat", "insert", "delete", "swap"}
        assert min(counts.values()) > 0.08 * sum(counts.values())


def test_words_are_inserted_before_positions_that_the_list_has():
    for problem in (p for problems in sample("corrected").values() for p in problems):
        for n, step in enumerate(problem.steps):
            length = len(after(problem.words, problem.steps[:n]))
            assert all(1 <= position <= length for position in step.positions)


def test_equal_recipes_generate_equal_prompts():
    assert KfrdSymbolic(items=24).generate(["en"]).digest() == KfrdSymbolic(items=24).generate(["en"]).digest()
    assert KfrdSymbolic(items=24).generate(["en"]) != KfrdSymbolic(items=24, seed=1).generate(["en"])


def test_a_smaller_recipe_generates_a_balanced_prefix():
    large, small = (list(KfrdSymbolic(items=n).problems()) for n in (120, 48))
    assert small == large[:48]
    assert Counter(len(p.steps) for p in small) == {1: 16, 2: 16, 3: 16}


def test_every_language_has_the_same_problems_options_and_gold():
    made = KfrdSymbolic(items=30).generate()
    assert made.languages == LANGUAGES
    problems = list(KfrdSymbolic(items=30).problems())
    for language in made.languages:
        words = wording(language)
        for problem, prompt in zip(problems, made.of(language), strict=True):
            assert prompt.gold == problem.gold
            assert prompt.options == tuple(words.list([words.nouns[k] for k in o]) for o in problem.options)
            assert len(set(prompt.options)) == 4
            assert all(words.nouns[w] in prompt.segment("context") for w in problem.words)


def test_train_and_test_share_no_problem():
    train, test = ({p.shown for p in KfrdSymbolic(items=600, split=s).problems()} for s in ("train", "test"))
    assert not train & test


def test_the_gold_is_as_often_at_each_letter():
    counts = Counter(p.gold for problems in sample("corrected").values() for p in problems)
    n = sum(counts.values())
    assert all(abs(counts[i] / n - 0.25) < chance_margin(n) for i in range(4))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("name", HEURISTICS)
def test_surface_heuristics_are_at_chance(name, depth):
    assert accuracy(sample("corrected")[depth], HEURISTICS[name]) == pytest.approx(0.25, abs=chance_margin(SAMPLE))


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_published_construction_is_solved_by_the_option_nearest_to_the_others(depth):
    assert accuracy(sample("paper")[depth], HEURISTICS["nearest to the others, by places"]) > 0.85


def test_the_published_construction_replaces_one_word_of_the_gold():
    for problems in sample("paper").values():
        for problem in problems:
            wrong = [o for i, o in enumerate(problem.options) if i != problem.gold]
            assert {differing_places(o, problem.options[problem.gold]) for o in wrong} == {1}


def test_the_solver_agrees_with_the_published_construction_up_to_its_deletion_by_value():
    prompts = KfrdSymbolic(items=500, split="train", compat="paper").generate(["en"]).prompts
    wrong = [p for p in prompts if solve_symbolic(p.text) != (p.gold,)]
    assert len(wrong) < 5
    assert all("insert" in p.covariates["steps"] and "delete" in p.covariates["steps"] for p in wrong)


def test_steps_worked_by_hand():
    words = ("a", "b", "c")
    assert after(words, [Step("repeat")]) == words
    assert after(words, [Step("insert", (4,), "d")]) == ("a", "b", "c", "d")
    assert after(words, [Step("insert", (1,), "d"), Step("delete", (2,))]) == ("d", "b", "c")
    assert after(words, [Step("swap", (1, 3)), Step("delete", (1,))]) == ("b", "a")


@pytest.mark.parametrize("max_steps", [0, 25])
def test_a_number_of_steps_without_meaning_is_refused(max_steps):
    with pytest.raises(BabelScopeError, match="max_steps"):
        KfrdSymbolic(max_steps=max_steps)


def test_what_is_not_a_prompt_is_no_problem_to_solve():
    with pytest.raises(ValueError, match="not an English"):
        solve_symbolic("Hello\nworld")
    with pytest.raises(ValueError, match="no position"):
        solve_symbolic("x\nList: a, b. Step 1: delete the word at position 3.\nq\nA) a")
