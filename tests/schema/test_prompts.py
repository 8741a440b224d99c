import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment, concatenate


def prompt(item="q1", language="en", text="What is 1; 1?", **more):
    return Prompt(item, language, text, **more)


def test_an_empty_set_is_refused():
    with pytest.raises(BabelScopeError, match="empty"):
        PromptSet("none", ())


def test_an_item_twice_in_one_language_is_refused_and_named():
    with pytest.raises(BabelScopeError, match=r"'q1' occurs 2 times in 'en'"):
        PromptSet("twice", (prompt(), prompt(text="other")))


def test_a_blank_text_is_refused_and_named():
    with pytest.raises(BabelScopeError, match=r"'q2' has no text in 'de'"):
        PromptSet("blank", (prompt(), prompt("q2", "de", " \n")))


def test_parallel_keeps_only_items_that_every_language_has():
    both = PromptSet("p", (prompt("a"), prompt("b"), prompt("b", "de"), prompt("c", "de")))
    assert both.parallel().items == ("b",)
    assert len(both.parallel()) == 2


def test_select_orders_languages_as_asked_and_refuses_unknown_ones():
    both = PromptSet("p", (prompt("a"), prompt("a", "de")))
    assert both.select(languages=["de", "en"]).languages == ("de", "en")
    with pytest.raises(BabelScopeError, match="'fr'"):
        both.select(languages=["fr"])


def test_the_digest_sees_every_field():
    base = PromptSet("p", (prompt(options=("1", "2"), letters=("A", "B"), gold=0),))
    changes = [
        prompt(options=("1", "2"), letters=("A", "B"), gold=1),
        prompt(options=("1", "3"), letters=("A", "B"), gold=0),
        prompt(options=("1", "2"), letters=("A", "B"), gold=0, covariates={"rule": "x"}),
        prompt(options=("1", "2"), letters=("A", "B"), gold=0, segments=(Segment("cue", 0, 3, "en"),)),
    ]
    assert len({base.digest(), *(PromptSet("p", (p,)).digest() for p in changes)}) == 5


@given(st.text(min_size=1).filter(str.strip), st.lists(st.text(max_size=5), max_size=4))
def test_a_prompt_survives_json(text, options):
    p = prompt(text=text, options=tuple(options), segments=(Segment("question", 0, len(text), "en"),))
    assert Prompt.from_json(p.to_json()) == p


def test_sets_are_joined_language_by_language():
    joined = concatenate([
        PromptSet("x", (prompt("a"), prompt("a", "de"))), PromptSet("y", (prompt("b", "de"), prompt("b"))),
    ])  # fmt: skip
    assert [(p.language, p.item) for p in joined.prompts] == [("en", "a"), ("en", "b"), ("de", "a"), ("de", "b")]


def test_sets_with_different_languages_are_not_joined():
    with pytest.raises(BabelScopeError, match="different languages"):
        concatenate([PromptSet("x", (prompt("a"),)), PromptSet("y", (prompt("b", "de"),))])
