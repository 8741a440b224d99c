"""Sentences as segments: the same units in every language, or none."""

import pytest

from babelscope.datasets.code_switched import code_switched, partly_switched
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


CONTEXTS = {"en": "One. Two. Three. Four.", "fr": "Un. Deux. Trois. Quatre."}
PARALLEL = PromptSet("s", tuple(prompt("a", g, text) for g, text in CONTEXTS.items()))


@pytest.mark.parametrize(
    ("share", "code", "context"),
    [(0.25, "en-fr-25", "One. Deux. Trois. Quatre."), (0.5, "en-fr-50", "One. Two. Trois. Quatre."),
     (0.05, "en-fr-05", "One. Deux. Trois. Quatre."), (1, "en-fr", "One. Two. Three. Four.")],
)  # fmt: skip
def test_the_first_sentences_are_switched(share, code, context):
    split, _ = sentence_segments(PARALLEL, "context")
    switched = partly_switched(split, "en-fr", share).prompts[0]
    assert switched.language == code
    assert switched.text == f"{context} Q?"
    for segment in switched.segments:
        own = CONTEXTS["en"] if segment.language == "en" else CONTEXTS["fr"] + " Q?"
        assert switched.text[segment.start : segment.stop] in own
    assert [s.name for s in switched.segments] == ["context-1", "context-2", "context-3", "context-4", "question"]
    assert switched.segments[-1].language == "fr"


def test_all_sentences_switched_are_the_switched_context():
    split, _ = sentence_segments(PARALLEL, "context")
    assert partly_switched(split, "en-fr", 1).prompts[0].text == code_switched(PARALLEL, "en-fr").prompts[0].text


@pytest.mark.parametrize("share", [0, -0.5, 0.999, 1.5])
def test_other_shares_are_refused(share):
    split, _ = sentence_segments(PARALLEL, "context")
    with pytest.raises(BabelScopeError, match="cannot be switched"):
        partly_switched(split, "en-fr", share)


def test_a_context_that_was_not_split_is_refused():
    with pytest.raises(BabelScopeError, match="no segment 'context-1'"):
        partly_switched(PARALLEL, "en-fr", 0.5)
