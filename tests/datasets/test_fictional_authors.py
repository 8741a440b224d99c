"""Invented people: readable in every script, the same in every language, and answerable by no shortcut."""

import csv
import re
import unicodedata
from collections import Counter
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.datasets.audit import audit
from babelscope.datasets.facts import facts, term
from babelscope.datasets.fictional import CONSONANTS, GROUPS, OBJECTS, PEOPLE, VOWELS, fictional_facts, people, written
from babelscope.datasets.generators.fictional_authors import FictionalAuthors
from babelscope.datasets.generators.fictional_authors_bare import FictionalAuthorsBare
from babelscope.datasets.words import LANGUAGES
from babelscope.errors import BabelScopeError
from tests.datasets.heuristics import accuracy, chance_margin, edit_distance, nearness_to_others
from tests.datasets.test_facts import wrong_letters

TABLES = ("syllables", "genres", "trades", "author_questions")
WORLDS = st.integers(0, 10_000)


def rows(name):
    text = files("babelscope.datasets").joinpath("facts", f"{name}.tsv").read_text("utf-8")
    return list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def everyone(world=0):
    return [f"person:{key}" for group in GROUPS for key in people(world)[group]]


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_tidy_cells_in_the_script_of_their_language(name):
    first, *body = rows(name)
    assert first == ["key", *LANGUAGES]
    for row in body:
        assert len(row) == len(first), row
        for language, cell in zip(LANGUAGES, row[1:], strict=True):
            assert cell, row
            assert cell == cell.strip() == unicodedata.normalize("NFC", cell), row
            assert wrong_letters(cell.replace("{subject}", ""), language) == [], row
            assert not re.search("['\"]", cell), row
    for column, language in enumerate(LANGUAGES, start=1):
        assert len({row[column].casefold() for row in body}) == len(body), language


def test_questions_end_as_their_languages_do():
    end = {"ar": "؟", "fa": "؟", "zh": "？", "ja": "？", "fr": "\u202f?"}
    for row in rows("author_questions")[1:]:
        for language, text in zip(LANGUAGES, row[1:], strict=True):
            assert text.count("{subject}") == 1
            assert text.endswith(end.get(language, "?").strip() if language != "fr" else end["fr"]), text
            assert ("¿" in text) == (language == "es")
    assert [row[0] for row in rows("author_questions")[1:]] == list(OBJECTS)


@given(WORLDS)
def test_every_world_has_distinct_people_whose_names_differ_in_two_syllables(world):
    keys = [key.split("-") for group in GROUPS for key in people(world)[group]]
    assert len(keys) == PEOPLE * len(GROUPS)
    for i, one in enumerate(keys):
        assert all(s[0] in CONSONANTS and s[1] in VOWELS and len(s) == 2 for s in one)
        assert all(sum(a != b for a, b in zip(one, other, strict=True)) >= 2 for other in keys[:i])


@pytest.mark.parametrize("language", LANGUAGES)
def test_people_can_be_told_apart_by_name_in_every_language(language):
    names = [written(person, language) for person in everyone()]
    assert len({name.casefold() for name in names}) == len(names)
    known = {term(reference, language).casefold() for fact in facts() for reference in (fact.subject, fact.object)}
    assert known.isdisjoint(name.casefold() for name in names)


def test_a_person_is_written_syllable_by_syllable():
    assert [written("person:no-mi-ka", g) for g in ("en", "ru", "ar", "fa", "he", "zh", "ja", "hi")] == [
        "Nomika", "Номика", "نوميكا", "نومیکا", "נומיקא", "诺米卡", "ノミカ", "नोमीका",
    ]  # fmt: skip


@given(WORLDS)
def test_each_object_belongs_to_one_person_of_each_group(world):
    for group in GROUPS:
        for relation, objects in OBJECTS.items():
            found = [f for f in fictional_facts(world, group) if f.relation == relation]
            assert sorted(f.object for f in found) == sorted(objects)
            assert {f.subject for f in found} == {f"person:{key}" for key in people(world)[group]}


def test_languages_share_person_options_and_gold():
    made = FictionalAuthors().generate()
    for same in zip(*(made.of(language) for language in LANGUAGES), strict=True):
        assert len({p.item for p in same}) == len({p.gold for p in same}) == 1
        assert len({tuple(p.covariates.items()) for p in same}) == 1
        for prompt in same:
            assert written(str(prompt.covariates["fact"]), prompt.language) in prompt.text
            assert prompt.answer == prompt.options[prompt.gold]


def test_every_fact_is_asked_once_and_every_option_is_right_in_a_quarter():
    problems = list(FictionalAuthors(items=0).problems())
    assert {p.fact for p in problems} == {f for g in GROUPS for f in fictional_facts(0, g)}
    assert len(problems) == len({p.shown for p in problems}) == PEOPLE * len(OBJECTS) * len(GROUPS)
    shown = Counter((p.group, p.fact.relation, o) for p in problems for o in p.options)
    assert set(shown.values()) == {4}


def test_wrong_options_are_right_for_people_of_the_same_group():
    for p in FictionalAuthors(items=600, split="train").problems():
        assert p.fact in fictional_facts(0, p.group)
        assert len(set(p.options)) == 4
        assert p.options[p.gold] == p.fact.object


def test_gold_letters_are_balanced():
    n = 2400
    golds = Counter(p.gold for p in FictionalAuthors(items=n, split="train").problems())
    assert all(abs(golds[i] / n - 0.25) < chance_margin(n) for i in range(4))


@pytest.mark.parametrize("language", ["en", "zh", "ar"])
def test_no_shortcut_finds_the_answer(language):
    problems = FictionalAuthors(items=960, split="train").generate([language]).prompts
    heuristics = {
        "longest": lambda p: [len(o) for o in p.options],
        "shortest": lambda p: [-len(o) for o in p.options],
        "nearest": lambda p: nearness_to_others(p.options, edit_distance),
        "shared letters": lambda p: [len(set(o) & set(p.segment("question"))) for o in p.options],
        "first option": lambda p: [1, 0, 0, 0],
    }
    # Facts repeat in the train split: the 96 facts, not the prompts, are independent.
    for name, heuristic in heuristics.items():
        assert abs(accuracy(problems, heuristic) - 0.25) < chance_margin(96), name


def test_the_audit_flags_nothing():
    table = audit(FictionalAuthors(items=0).generate(["en", "ru", "ja"]))
    assert not table["flag"].any(), table[table["flag"]]


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_asks_of_its_people_alone(group):
    prompts = FictionalAuthors(items=0, group=group).generate(["sw"]).prompts
    assert {p.covariates["group"] for p in prompts} == {group}
    assert {p.covariates["fact"] for p in prompts} == {f"person:{key}" for key in people(0)[group]}


@pytest.mark.parametrize("recipe", [FictionalAuthors, FictionalAuthorsBare])
def test_equal_recipes_generate_equal_prompts_and_prefixes(recipe):
    whole = recipe(items=50).generate(["fa"])
    assert whole.digest() == recipe(items=50).generate(["fa"]).digest()
    assert recipe(items=20).generate(["fa"]).prompts == whole.prompts[:20]
    assert whole.digest() != recipe(items=50, seed=1).generate(["fa"]).digest()
    assert {p.covariates["fact"] for p in whole.prompts} != {
        p.covariates["fact"] for p in recipe(items=50, world=1).generate(["fa"]).prompts
    }


def test_bare_questions_ask_the_same_facts_in_the_same_order():
    shelled, bare = FictionalAuthors(seed=3).generate(["hi"]), FictionalAuthorsBare(seed=3).generate(["hi"])
    for a, b in zip(shelled.prompts, bare.prompts, strict=True):
        assert (a.segment("question"), a.answer, a.covariates["group"]) == (b.text, b.answer, b.covariates["group"])
        assert b.gold is None


def test_items_of_other_groups_and_worlds_have_other_identifiers():
    for recipe in (FictionalAuthors, FictionalAuthorsBare):
        variants = [recipe(), recipe(group="shared"), recipe(world=2), recipe(group="halves-a", world=2)]
        items = [{p.item for p in v.generate(["en"]).prompts[:9]} if v.group == "all" else
                 {p.item for p in type(v)(items=9, group=v.group, world=v.world).generate(["en"]).prompts}
                 for v in variants]  # fmt: skip
        assert len(set.union(*items)) == sum(map(len, items))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group": "nobody"}, "group"),
        ({"items": 97}, "none is asked twice"),
        ({"items": -1}, "-1 items"),
        ({"world": -1}, "world -1"),
        ({"split": "dev"}, "split"),
    ],
)
@pytest.mark.parametrize("recipe", [FictionalAuthors, FictionalAuthorsBare])
def test_fields_that_mean_nothing_are_refused(recipe, fields, message):
    with pytest.raises(BabelScopeError, match=message):
        recipe(**fields).generate(["en"])
