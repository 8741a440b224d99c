import re
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from babelscope.datasets.generators.kfrd_arithmetic import RULES, ArithmeticProblem, KfrdArithmetic
from babelscope.datasets.number_options import FEW_OPERANDS, number_options, split_of_problem
from babelscope.datasets.options import (
    alone_resembles,
    anagrams,
    arithmetic_progressions,
    share_by_digits,
    trimmed_to_chance,
)
from babelscope.datasets.solver import solve_arithmetic
from babelscope.datasets.words import LANGUAGES
from babelscope.errors import BabelScopeError
from tests.datasets.heuristics import accuracy, chance_margin, edit_distance, nearness_to_others

ONE_NUMBER = tuple(r for r in RULES if r not in ("equality", "ascending_sort"))
SAMPLE = 600  # problems of each rule


TEST_ITEMS = 1072  # as many as the smallest rule allows
FEW = tuple(FEW_OPERANDS)


@cache
def sample(compat):
    by_rule = defaultdict(list)
    for problem in KfrdArithmetic(items=SAMPLE * len(RULES), split="train", compat=compat).problems():
        by_rule[problem.rule].append(problem)
    return by_rule


@cache
def asked_in_tests():
    by_rule = defaultdict(list)
    for problem in KfrdArithmetic(items=TEST_ITEMS).problems():
        by_rule[problem.rule].append(problem)
    return by_rule


def numeric_distance(a, b):
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def digits(numbers):
    return "".join(map(str, numbers))


def digits_in_common(problem):
    shown = digits(problem.operands)
    return [sum(min(digits(o).count(d), shown.count(d)) for d in set(digits(o))) for o in problem.options]


def units_digit(problem):
    a, b = problem.operands
    fits = {
        "addition": lambda x: a + b - x,
        "subtraction": lambda x: a - b - x,
        "multiplication": lambda x: a * b - x,
        "arithmetic_sequence": lambda x: 2 * b - a - x,
        "geometric_sequence": lambda x: a * x - b * b,
    }[problem.rule]
    return [fits(x) % 10 == 0 for (x,) in problem.options]


HEURISTICS = {
    "nearest to the others": lambda p: nearness_to_others(p.options, numeric_distance),
    "nearest to the others in writing": lambda p: nearness_to_others([digits(o) for o in p.options], edit_distance),
    "digits of the input": digits_in_common,
    "largest": lambda p: [sum(o) for o in p.options],
    "smallest": lambda p: [-sum(o) for o in p.options],
    "longest": lambda p: [len(digits(o)) for o in p.options],
    "roundest": lambda p: [digits(o).count("0") for o in p.options],
    "in ascending order": lambda p: [list(o) == sorted(o) for o in p.options],
}


@pytest.mark.parametrize("compat", ["corrected", "paper"])
def test_the_solver_finds_the_gold_and_nothing_else_right(compat):
    for prompt in KfrdArithmetic(items=500, seed=3, split="train", compat=compat).generate(["en"]).prompts:
        assert solve_arithmetic(prompt.text) == (prompt.gold,), prompt.text


def test_no_option_is_repeated_and_none_repeats_an_operand():
    for rule, problems in sample("corrected").items():
        for problem in problems:
            assert len(set(problem.options)) == 4
            if rule in ONE_NUMBER:
                assert not {(x,) for x in problem.operands} & set(problem.options)


def test_numbers_stay_in_the_published_ranges_without_degenerate_problems():
    for rule, problems in sample("corrected").items():
        for problem in problems:
            numbers = [*problem.operands, *(x for o in problem.options for x in o)]
            assert all(0 <= x <= 999 for x in numbers)
            if rule in ("multiplication", "division", "geometric_sequence"):
                assert min(problem.operands) > 0
            if rule == "multiplication":
                assert all(2 <= x <= 47 for x in problem.operands)
            if rule.endswith("sequence"):
                assert problem.operands[0] < problem.operands[1]


def test_equal_recipes_generate_equal_prompts():
    assert KfrdArithmetic(items=24).generate(["en"]).digest() == KfrdArithmetic(items=24).generate(["en"]).digest()
    assert KfrdArithmetic(items=24).generate(["en"]) != KfrdArithmetic(items=24, seed=1).generate(["en"])


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_smaller_recipe_generates_a_balanced_prefix(split):
    large = list(KfrdArithmetic(items=120, split=split).problems())
    small = list(KfrdArithmetic(items=48, split=split).problems())
    assert small == large[:48]
    assert set(Counter(p.rule for p in small).values()) == {6}


def test_every_language_has_the_same_problems_options_and_gold():
    made = KfrdArithmetic(items=40).generate()
    assert made.languages == LANGUAGES
    english = {p.item: p for p in made.of("en")}
    for prompt in made.prompts:
        twin = english[prompt.item]
        assert (prompt.gold, prompt.covariates) == (twin.gold, twin.covariates)
        assert re.findall(r"\d+", "\n".join(prompt.options)) == re.findall(r"\d+", "\n".join(twin.options))
        assert re.findall(r"\d+", prompt.segment("context")) == re.findall(r"\d+", twin.segment("context"))


def shown_in(split):
    recipes = (KfrdArithmetic(1000, seed, split, compat=c) for seed in (0, 1) for c in ("corrected", "paper"))
    return {p.shown for recipe in recipes for p in recipe.problems()}


def test_train_and_test_share_no_problem_whatever_the_seed_and_the_construction():
    assert shown_in("train") & shown_in("test") <= {"geometric_sequence:0,0"}


def test_train_and_test_draw_their_letters_apart():
    train, test = (list(KfrdArithmetic(items=400, split=split).problems()) for split in ("train", "test"))
    same = sum(a.gold == b.gold for a, b in zip(train, test, strict=True))
    assert abs(same / 400 - 0.25) < chance_margin(400)


def test_a_test_set_shows_no_problem_twice():
    shown = [p.shown for problems in asked_in_tests().values() for p in problems]
    assert len(set(shown)) == len(shown) == TEST_ITEMS


def test_more_items_than_there_are_test_problems_are_refused_not_repeated():
    with pytest.raises(BabelScopeError, match="would repeat a problem") as caught:
        list(KfrdArithmetic(items=2000).problems())
    most = int(re.search(r"ask for (\d+) items", caught.value.hint)[1])
    assert len(list(KfrdArithmetic(items=most).problems())) == most >= TEST_ITEMS


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("rule", FEW)
def test_which_options_there_are_does_not_depend_on_which_is_right(rule, split):
    rng = np.random.default_rng(0)
    drawn = [{number_options(rule, split, right, 0, rng)[0] for _ in range(6000)} for right in range(4)]
    assert drawn[0] == drawn[1] == drawn[2] == drawn[3]


@pytest.mark.parametrize(
    ("rule", "operands"),
    [("addition", lambda x, n: (n, x - n)), ("arithmetic_sequence", lambda x, n: (2 * n - x, n))],
)
def test_each_option_is_the_answer_of_a_test_problem(rule, operands):
    # Drawn with the least option as the right one, so that nothing but the construction cares for the largest.
    rng = np.random.default_rng(0)
    for _ in range(500):
        options, _ = number_options(rule, "test", 0, 0, rng)
        found = [operands(options[-1], n) for n in range(1, options[0])]
        assert any(min(o) > 0 and max(o) < options[0] and split_of_problem(rule, o) == "test" for o in found), options


def test_a_published_test_set_repeats_what_is_shown_but_no_pair():
    problems = list(KfrdArithmetic(items=8 * 400, compat="paper").problems())
    geometric = [p for p in problems if p.rule == "geometric_sequence"]
    assert len({p.pair for p in geometric}) == len(geometric)
    assert Counter(p.shown for p in geometric)["geometric_sequence:0,0"] > 1


def test_the_gold_is_as_often_at_each_letter():
    counts = Counter(p.gold for problems in sample("corrected").values() for p in problems)
    n = sum(counts.values())
    assert all(abs(counts[i] / n - 0.25) < chance_margin(n) for i in range(4))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", HEURISTICS)
def test_surface_heuristics_are_at_chance(name, rule):
    assert accuracy(sample("corrected")[rule], HEURISTICS[name]) == pytest.approx(0.25, abs=chance_margin(SAMPLE))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", HEURISTICS)
def test_surface_heuristics_are_at_chance_in_a_test_set(name, rule):
    problems = asked_in_tests()[rule]
    assert accuracy(problems, HEURISTICS[name]) == pytest.approx(0.25, abs=chance_margin(len(problems)))


@pytest.mark.parametrize("rule", [r for r in ONE_NUMBER if r != "division"])
def test_the_units_digit_is_the_same_in_all_options(rule):
    # A quotient below 48 leaves no room for three others ten apart, so division is not promised.
    assert all(len({x % 10 for (x,) in p.options}) == 1 for p in sample("corrected")[rule])


@pytest.mark.parametrize("rule", [r for r in ONE_NUMBER if r != "division"])
def test_no_option_can_be_ruled_out_by_its_size(rule):
    for problem in sample("corrected")[rule]:
        above = {x > max(problem.operands) for (x,) in problem.options}
        assert above == {rule != "subtraction"}


@pytest.mark.parametrize("rule", ["addition", "subtraction", "multiplication", "arithmetic_sequence"])
def test_the_published_construction_is_solved_by_the_units_digit(rule):
    assert accuracy(sample("paper")[rule], units_digit) > 0.7


@pytest.mark.parametrize("rule", ["equality", "ascending_sort"])
def test_the_published_construction_is_solved_by_the_digits_of_the_input(rule):
    assert accuracy(sample("paper")[rule], digits_in_common) > 0.95


def test_the_published_construction_repeats_options():
    assert any(len(set(p.options)) < 4 for p in sample("paper")["division"])


def test_the_solver_rejects_a_planted_mistake():
    prompt = next(p for p in KfrdArithmetic(items=8).generate(["en"]).prompts if p.covariates["rule"] == "addition")
    right = f"{prompt.letters[prompt.gold]}) {prompt.answer}"
    assert solve_arithmetic(prompt.text.replace(right, f"{right}1")) == ()
    with pytest.raises(ValueError, match="not an English"):
        solve_arithmetic("Rule\nnothing")


def test_native_letters_label_the_same_options():
    recipe = KfrdArithmetic(items=8)
    latin, native = recipe.generate(["ar"]).prompts, replace(recipe, letters="native").generate(["ar"]).prompts
    for a, b in zip(latin, native, strict=True):
        assert (a.options, a.gold) == (b.options, b.gold)
        assert a.letters == ("A", "B", "C", "D") != b.letters


@pytest.mark.parametrize("field", ["split", "letters", "compat"])
def test_a_field_that_means_nothing_is_refused(field):
    with pytest.raises(BabelScopeError, match="papr"):
        KfrdArithmetic(**{field: "papr"})


def test_a_problem_shows_its_rule_and_operands():
    assert ArithmeticProblem("addition", (1, 2), ((3,),), 0).shown == "addition:1,2"


def test_options_worked_by_hand():
    assert anagrams(100) == ()
    assert anagrams(102) == (120, 201, 210)
    assert arithmetic_progressions(range(1, 6), [1]) == ((1, 2, 3, 4), (2, 3, 4, 5))
    assert [alone_resembles([12, 34, 56, 78], [3, 40], i) for i in range(4)] == [False, True, False, False]
    assert not alone_resembles([12, 13, 56, 78], [1, 40], 0)
    assert share_by_digits([12, 13, 56, 78], [1, 40], 0) == 0.5
    assert trimmed_to_chance([((1,), 0.0), ((2,), 0.25), ((3,), 0.5), ((4,), 0.75)]) == ((1,), (2,), (3,))
    assert trimmed_to_chance([((1,), 0.0), ((2,), 0.25), ((3,), 0.25)]) == ((2,), (3,))
