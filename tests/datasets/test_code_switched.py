"""Context in one language and question in another, of the same item."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import babelscope as bs
from babelscope.datasets.code_switched import code_switched, in_languages
from babelscope.datasets.generators.knowledge import Knowledge
from babelscope.datasets.generators.ruletaker import RuleTaker
from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.load import load_prompts
from babelscope.datasets.native import write_prompts
from babelscope.datasets.published_statements import write_published
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment


@pytest.fixture(scope="module")
def parallel():
    return RuleTaker(items=6).generate(["en", "fr", "zh"])


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("en-fr", ("en", "fr")), ("zh-Hant-en", ("zh-Hant", "en")), ("en-pt_BR", ("en", "pt_BR")),
        ("en-US", None), ("en", None), ("zh-Hant", None), ("en-fr-de", None), ("es-419", None),
    ],
)  # fmt: skip
def test_a_pair_is_told_by_the_form_of_its_code(code, parts):
    assert parts_of(code) == parts


def test_the_context_is_in_one_language_and_all_else_in_the_other(parallel):
    made = code_switched(parallel, "zh-fr")
    assert made.languages == ("zh-fr",)
    for switched, zh, fr in zip(made.prompts, parallel.of("zh"), parallel.of("fr"), strict=True):
        assert switched.text == fr.text.replace(fr.segment("context"), zh.segment("context"))
        assert switched.segment("context") == zh.segment("context")
        for name in ("instruction", "question", "options", "cue"):
            assert switched.segment(name) == fr.segment(name)
        assert {s.name: s.language for s in switched.segments if s.language != "fr"} == {"context": "zh"}
        assert replace(switched, text="", segments=(), language="") == replace(fr, text="", segments=(), language="")


NAMES = st.sampled_from(["instruction", "context", "question"])


@st.composite
def an_item(draw):
    """One item in two languages: the same parts, in an order of each language's own, with text between them."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5).filter(lambda n: "context" in n))
    rows = []
    for language in ("en", "fr"):
        text, segments = "", []
        for name in draw(st.permutations(names)):
            text += draw(st.text("-", max_size=2))
            part = draw(st.text("abcäж中", min_size=1, max_size=4))
            segments.append(Segment(name, len(text), len(text) + len(part), language))
            if name == "context":
                segments.append(Segment("subject", len(text), len(text) + 1, language))
            text += part
        rows.append(Prompt("i", language, text + ".", tuple(segments)))
    return rows


@given(an_item())
def test_any_segments_are_carried_over(rows):
    en, fr = rows
    made = code_switched(PromptSet("any", (en, fr)), "en-fr").prompts[0]
    for name in ("context", "subject"):
        assert made.segment(name) == en.segment(name)
    for name in ("instruction", "question"):
        assert made.segment(name) == fr.segment(name)
    assert len(made.text) - len(fr.text) == len(en.segment("context")) - len(fr.segment("context"))
    assert {s.language for s in made.segments if s.name in ("context", "subject")} <= {"en"}
    assert {s.language for s in made.segments if s.name in ("instruction", "question")} <= {"fr"}


def test_items_with_different_labels_are_refused_by_name(parallel):
    wrong = [replace(p, gold=1 - p.gold) if (p.item, p.language) == (parallel.items[3], "fr") else p
             for p in parallel.prompts]  # fmt: skip
    with pytest.raises(BabelScopeError, match=r"item 'ruletaker/test/0/00003': the right option differs .* 0 and 1"):
        code_switched(PromptSet("wrong", tuple(wrong)), "en-fr")


def test_items_that_one_language_lacks_are_left_out(parallel):
    fewer = PromptSet("fewer", (*parallel.of("en")[1:], *parallel.of("fr")[:-1]))
    assert code_switched(fewer, "en-fr").items == parallel.items[1:-1]
    with pytest.raises(BabelScopeError, match="no item in common"):
        code_switched(PromptSet("none", (parallel.of("en")[0], parallel.of("fr")[1])), "en-fr")


def test_prompts_without_a_context_are_refused():
    with pytest.raises(BabelScopeError, match="no segment 'context'"):
        code_switched(Knowledge(items=4).generate(["en", "fr"]), "en-fr")


@pytest.mark.parametrize(("code", "message"), [("en-en", "two languages"), ("en", "two languages"), ("en-de", "'de'")])
def test_codes_that_name_no_pair_of_the_set_are_refused(parallel, code, message):
    with pytest.raises(BabelScopeError, match=message):
        code_switched(parallel, code)


def test_a_language_of_the_set_that_is_called_like_a_pair_is_taken_as_it_is(parallel):
    own = PromptSet("own", (*parallel.prompts, *(replace(p, language="en-fr") for p in parallel.of("zh"))))
    assert in_languages(own, ["en-fr"]).prompts[0].text == parallel.of("zh")[0].text


def test_pairs_are_named_like_languages_everywhere(tmp_path, parallel):
    codes = ["fr", "en-fr", "fr-zh"]
    expected = in_languages(parallel, codes)
    assert expected.languages == tuple(codes)
    prompts, _ = bs.prompts(["ruletaker"], languages=codes, limit=6)
    assert prompts.prompts == expected.prompts
    assert bs.generate("ruletaker", languages=codes, items=6).prompts == expected.prompts
    assert len(bs.prompts(["ruletaker"], languages=["en-fr"], limit=300)[0]) == 300
    assert bs.prompts(parallel, languages=codes)[0].prompts == expected.prompts
    write_prompts(parallel, tmp_path / "all.jsonl")
    assert bs.prompts(tmp_path / "all.jsonl", languages=codes)[0].prompts == expected.prompts
    write_prompts(expected, tmp_path / "switched.jsonl")
    assert bs.prompts(tmp_path / "switched.jsonl", languages=codes)[0].prompts == expected.prompts
    with pytest.raises(BabelScopeError, match="'en-de'"):
        bs.prompts(tmp_path / "all.jsonl", languages=["en-de"])


def test_pairs_of_one_file_per_language_read_those_two_only(tmp_path, parallel):
    write_published(parallel, "ruletaker", tmp_path / "{language}.jsonl")
    (tmp_path / "de.jsonl").write_text("damaged", "utf-8")
    prompts, _ = bs.prompts(tmp_path / "{language}.jsonl", languages=["en-fr"], mapping="ruletaker")
    expected = code_switched(load_prompts(f"{tmp_path}/{{language}}.jsonl", mapping="ruletaker",
                                          languages=["en", "fr"])[0], "en-fr")  # fmt: skip
    assert prompts.prompts == expected.prompts
    # A published folder of that name goes before; its context and question have the languages that it says.
    write_published(expected, "ruletaker", tmp_path / "{language}.jsonl")
    again, _ = bs.prompts(tmp_path / "{language}.jsonl", languages=["en-fr"], mapping="ruletaker")
    assert [p.text for p in again.prompts] == [p.text for p in expected.prompts]
    assert [p.segments for p in again.prompts] == [p.segments for p in expected.prompts]
    assert [p.options for p in again.prompts] == [p.options for p in expected.prompts]
