"""The solver of the logical task against brute force and by hand."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.datasets.logic_solver import entailed_options, is_consistent, is_entailed, read_statement

NAMES, PROPERTIES = ("Eva", "Fay"), ("a", "b", "c")

name, prop = st.sampled_from(NAMES), st.sampled_from(PROPERTIES)
statement = st.one_of(
    st.tuples(st.sampled_from(["is", "not"]), name, prop),
    st.tuples(st.sampled_from(["and", "or", "so"]), name, prop, prop),
    st.tuples(st.just("any"), prop, prop),
)


def holds(statement, world, people):
    form, *words = statement
    if form == "any":
        return all(not world[p, words[0]] or world[p, words[1]] for p in people)
    values = [world[words[0], w] for w in words[1:]]
    return {
        "is": values[0],
        "not": not values[0],
        "and": all(values),
        "or": any(values),
        "so": not values[0] or values[-1],
    }[form]


def worlds():
    """Every way for two named people and a third to have three properties or not."""
    people = (*NAMES, "someone else")
    atoms = list(product(people, PROPERTIES))
    for values in product([False, True], repeat=len(atoms)):
        yield dict(zip(atoms, values, strict=True)), people


WORLDS = list(worlds())


@given(st.lists(statement, max_size=6), statement)
def test_agrees_with_trying_every_world(premises, conclusion):
    models = [(w, people) for w, people in WORLDS if all(holds(p, w, people) for p in premises)]
    assert is_consistent(premises) == bool(models)
    assert is_entailed(premises, conclusion) == all(holds(conclusion, w, people) for w, people in models)


@pytest.mark.parametrize(
    ("premises", "follows", "does_not"),
    [
        ([("is", "Eva", "a"), ("any", "a", "b")], ("is", "Eva", "b"), ("is", "Fay", "b")),
        ([("is", "Eva", "b"), ("any", "a", "b")], ("is", "Eva", "b"), ("is", "Eva", "a")),
        ([("not", "Eva", "b"), ("any", "a", "b")], ("not", "Eva", "a"), ("not", "Fay", "a")),
        ([("or", "Eva", "a", "b"), ("not", "Eva", "a")], ("is", "Eva", "b"), ("is", "Eva", "a")),
        (
            [("or", "Eva", "a", "b"), ("so", "Eva", "a", "c"), ("any", "b", "c")],
            ("is", "Eva", "c"),
            ("is", "Eva", "a"),
        ),
        ([("any", "a", "b"), ("any", "b", "c")], ("any", "a", "c"), ("any", "c", "a")),
        ([("is", "Eva", "a")], ("or", "Eva", "c", "a"), ("and", "Eva", "c", "a")),
    ],
)
def test_puzzles_worked_by_hand(premises, follows, does_not):
    assert entailed_options(premises, [does_not, follows]) == (1,)


def test_everything_follows_from_a_contradiction():
    premises = [("is", "Eva", "a"), ("not", "Eva", "a")]
    assert not is_consistent(premises)
    assert is_entailed(premises, ("is", "Fay", "c"))


@pytest.mark.parametrize(
    ("sentence", "statement"),
    [
        ("Adam is brave.", ("is", "Adam", "brave")),
        ("Adam is not brave.", ("not", "Adam", "brave")),
        ("Adam is brave and tall.", ("and", "Adam", "brave", "tall")),
        ("Adam is brave or tall.", ("or", "Adam", "brave", "tall")),
        ("Everyone who is brave is tall.", ("any", "brave", "tall")),
        ("If Adam is brave, then Adam is tall.", ("so", "Adam", "brave", "tall")),
    ],
)
def test_reads_english_statements(sentence, statement):
    assert read_statement(sentence) == statement


@pytest.mark.parametrize("sentence", ["If Adam is brave, then Paul is tall.", "Adam sleeps.", ""])
def test_refuses_what_has_no_known_form(sentence):
    with pytest.raises(ValueError, match="known form"):
        read_statement(sentence)
