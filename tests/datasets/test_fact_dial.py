"""The dial of facts: only the demand differs between the prompts of a question, and nothing but facts tells."""

import csv
import re
import unicodedata
from collections import Counter
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from babelscope.datasets.audit import audit
from babelscope.datasets.facts import facts, term
from babelscope.datasets.fictional import written
from babelscope.datasets.generators.fact_dial import RULES, FactDial
from babelscope.datasets.words import LANGUAGES
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from tests.datasets.test_facts import wrong_letters

TABLES = ("dial_statements", "dial_questions")


def rows(name):
    text = files("babelscope.datasets").joinpath("facts", f"{name}.tsv").read_text("utf-8")
    return list(csv.reader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_tidy_cells_in_the_script_of_their_language(name):
    first, *body = rows(name)
    assert first == ["key", *LANGUAGES]
    fields = {"{subject}", "{object}"} if name == "dial_statements" else {"{subject}"}
    for row in body:
        assert len(row) == len(first), row
        for language, cell in zip(LANGUAGES, row[1:], strict=True):
            assert cell == cell.strip() == unicodedata.normalize("NFC", cell), row
            assert Counter(re.findall(r"{\w+}", cell)) == Counter(fields), cell
            assert wrong_letters(re.sub(r"{\w+}", "", cell), language) == [], cell
            assert not re.search("['\"]", cell), cell
            if language == "fr":
                assert not re.search("[^\u202f][:?]", cell), cell
            assert ("¿" in cell) == (language == "es" and name == "dial_questions")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([2, 3]), st.sampled_from(["test", "train"]))
def test_the_context_leads_to_the_answer_exactly_where_all_facts_are_given(seed, needed, split):
    for problem in FactDial(items=8, seed=seed, needed=needed, split=split).problems():
        asked = problem.chains[0][0].subject
        for number in range(needed + 1):
            known = {fact.subject: fact.object for fact in problem.context(number)}
            at, steps = asked, 0
            while at in known:
                at, steps = known[at], steps + 1
            assert steps == number
            assert (at == problem.chains[0][-1].object) == (number == needed)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([2, 3]))
def test_given_facts_are_given_for_all_options_and_others_name_none(seed, needed):
    for problem in FactDial(items=8, seed=seed, needed=needed).problems():
        options = {chain[-1].object for chain in problem.chains}
        assert len(options) == 4
        for number in range(needed + 1):
            context = problem.context(number)
            said = Counter(fact.object for fact in context if fact.object in options)
            assert said == (Counter(dict.fromkeys(options, 1)) if number == needed else Counter())
            assert [f.relation for f in context] == [f.relation for f in problem.context(0)]
            assert len({(f.relation, f.subject) for f in context}) == 4 * needed


def test_what_is_said_of_the_world_is_true():
    known = {(f.relation, f.subject, f.object) for f in facts()}
    capitals = {(f.object, f.subject) for f in facts() if f.relation == "capital"}
    for needed in RULES:
        for problem in FactDial(items=40, needed=needed).problems():
            for chain in (*problem.chains, *problem.others):
                assert (chain[1].subject, chain[1].object) in capitals
                assert needed == 2 or (chain[2].relation, chain[2].subject, chain[2].object) in known


def test_each_question_is_asked_with_every_number_of_facts():
    made = FactDial(items=6).generate(["en", "sw"])
    assert len(made.of("en")) == 6 * 4
    for prompts in (made.of("en"), made.of("sw")):
        for i in range(6):
            asked = prompts[4 * i : 4 * i + 4]
            assert [p.covariates["facts_given"] for p in asked] == [0, 1, 2, 3]
            assert [p.covariates["demand"] for p in asked] == ["unknowable", "knowledge", "knowledge", "knowledge-free"]
            assert len({(p.covariates["question"], p.segment("question"), p.options, p.gold) for p in asked}) == 1
            assert [p.item for p in asked] == [f"{asked[0].covariates['question']}/facts-{k}" for k in range(4)]
            assert len({len(re.findall(r"[.。।](?=\s|$|[^\s])", p.segment("context"))) for p in asked}) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_the_same_facts(language):
    problem = next(iter(FactDial(items=1).problems()))
    for prompt in FactDial(items=1).generate([language]).prompts:
        for fact in problem.context(int(prompt.covariates["facts_given"])):
            person = fact.subject.startswith("person:")
            assert (written if person else term)(fact.subject, language) in prompt.segment("context")
            assert term(fact.object, language) in prompt.segment("context")
        assert written(problem.chains[0][0].subject, language) in prompt.segment("question")
        assert prompt.options[prompt.gold] == term(problem.chains[0][-1].object, language)


def test_the_audit_flags_nothing_with_all_numbers_of_facts_together():
    table = audit(FactDial().generate(["en", "fr", "ar"]))
    assert not table["flag"].any(), table[table["flag"]]


@pytest.mark.parametrize("needed", [2, 3])
def test_without_facts_no_shortcut_finds_the_answer(needed):
    made = FactDial(items=320, needed=needed).generate(["en", "ru", "zh"])
    none = PromptSet("none", tuple(p for p in made.prompts if p.covariates["facts_given"] == 0))
    table = audit(none)
    assert not table["flag"].any(), table[table["flag"]]


def test_every_option_and_every_place_of_a_quartet_is_right_once():
    problems = list(FactDial(items=16, needed=2).problems())
    for i in range(0, 16, 4):
        same = problems[i : i + 4]
        assert len({frozenset(c[-1].object for c in p.chains) for p in same}) == 1
        assert len({p.chains[0][-1].object for p in same}) == 4
        assert len({p.order.index(0) for p in same}) == 4


def test_equal_recipes_generate_equal_prompts_and_prefixes():
    whole = FactDial(items=12).generate(["fa"])
    assert whole.digest() == FactDial(items=12).generate(["fa"]).digest()
    assert FactDial(items=5).generate(["fa"]).prompts == whole.prompts[:20]
    assert whole.digest() != FactDial(items=12, seed=1).generate(["fa"]).digest()
    ids = {p.item for recipe in (FactDial(items=9, needed=2), FactDial(items=9, world=2)) for p in
           recipe.generate(["en"]).prompts}  # fmt: skip
    assert ids.isdisjoint(p.item for p in whole.prompts)


@pytest.mark.parametrize("fields", [{"needed": 4}, {"items": 0}, {"world": -1}, {"split": "dev"}])
def test_fields_that_mean_nothing_are_refused(fields):
    with pytest.raises(BabelScopeError):
        FactDial(**fields)
