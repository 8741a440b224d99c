"""Sentences as segments: the same units in every language, or none."""

import pytest

from babelscope.datasets.sentences import sentence_segments
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment


def prompt(item, language, context, question="Q?"):
    text = f"{context} {question}"
    cut = len(context)
    spans = (Segment("context", 0, cut, language), Segment("question", cut + 1, len(text), language))
    return Prompt(item, language, text, spans)


def test_sentences_take_the_place_of_their_segment():
    prompts = PromptSet("s", (prompt("a", "en", "One is. Two, too!"), prompt("a", "zh", "一是。二也是！")))
    split, coverage = sentence_segments(prompts, "context")
    assert coverage == 1
    for p, expected in zip(split.prompts, (("One is.", "Two, too!"), ("一是。", "二也是！")), strict=True):
        assert [s.name for s in p.segments] == ["context-1", "context-2", "question"]
        assert (p.segment("context-1"), p.segment("context-2")) == expected
        assert p.segment("question") == "Q?"
        assert {s.language for s in p.segments} == {p.language}


def test_items_with_other_numbers_of_sentences_are_left_out_and_counted():
    prompts = PromptSet(
        "s", (prompt("a", "en", "One. Two."), prompt("b", "en", "One. Two."), prompt("c", "en", "One."),
              prompt("a", "de", "Eins. Zwei."), prompt("b", "de", "Eins und zwei."))
    )  # fmt: skip
    split, coverage = sentence_segments(prompts, "context")
    assert split.items == ("a",)
    assert coverage == pytest.approx(1 / 3)


def test_segments_of_one_name_are_numbered_on():
    text = "One. Two. | Three."
    spans = (Segment("context", 0, 9, "en"), Segment("context", 12, 18, "en"))
    split, _ = sentence_segments(PromptSet("s", (Prompt("a", "en", text, spans),)), "context")
    assert [text[s.start : s.stop] for s in split.prompts[0].segments] == ["One.", "Two.", "Three."]
    assert [s.name for s in split.prompts[0].segments] == ["context-1", "context-2", "context-3"]


def test_what_cannot_be_split_alike_is_refused():
    prompts = PromptSet("s", (prompt("a", "en", "One."), prompt("a", "de", "Eins. Zwei.")))
    with pytest.raises(BabelScopeError, match="as many sentences"):
        sentence_segments(prompts, "context")
    with pytest.raises(BabelScopeError, match="segment of these prompts"):
        sentence_segments(prompts, "contexts")
