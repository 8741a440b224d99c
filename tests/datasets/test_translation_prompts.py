"""Prompts that ask for translations: whole, of other items, in directions that are languages of their own."""

import pytest

from babelscope.datasets.language_names import language_name
from babelscope.datasets.language_pairs import parts_of
from babelscope.datasets.load import load_prompts, write_prompts
from babelscope.datasets.translation import direction_of, translation_prompts
from babelscope.errors import BabelScopeError
from babelscope.schema import Prompt, PromptSet, Segment

CODES = ("en", "de", "zh-Hant")


def parallel(n=10, repeated=()):
    made = []
    for g in CODES:
        for i in range(n):
            text = f"{g} text {repeated[0] if i in repeated else i}"
            segments = (Segment("context", 0, 2, g), Segment("question", 3, len(text), g))
            made.append(Prompt(f"q{i}", g, text, segments, covariates={"task": "t", "number": i}))
    return PromptSet("parallel", tuple(made))


def test_a_prompt_is_instruction_demonstrations_text_and_cue():
    made = translation_prompts(parallel(), ["en-de", "zh-Hant-en"], shots=2)
    assert made.languages == ("en-to-de", "zh-Hant-to-en")
    for i, prompt in enumerate(made.of("en-to-de")):
        lines = prompt.text.split("\n")
        assert lines[0] == "Translate from English into German."
        assert lines[-2:] == [f"English: en text {i}", "German:"]
        assert prompt.answer == f"de text {i}"
        shown = [line for line in lines if line.startswith("English: ")][:-1]
        assert len(set(shown)) == 2
        assert f"English: en text {i}" not in shown
        for line in shown:
            assert f"German: de {line.partition('en ')[2]}" in lines
        assert prompt.covariates == {"task": "t", "number": i}
        assert prompt.segment("question") == f"en text {i}"
        assert prompt.segment("cue") == "German:"
    assert "from Chinese (zh-Hant) into English" in made.of("zh-Hant-to-en")[0].text


def test_segments_say_which_characters_are_in_which_language():
    made = translation_prompts(parallel(), ["en-de"], shots=1)
    prompt = made.prompts[3]
    spoken = {(s.name, s.language): prompt.text[s.start : s.stop] for s in prompt.segments}
    assert spoken["question", "en"] == "en text 3"
    assert spoken["demonstrations", "de"].startswith("de text")
    assert spoken["instruction", "en"].startswith("Translate")


def test_demonstrations_are_the_same_items_in_all_directions_and_depend_on_the_seed():
    made = translation_prompts(parallel(), ["en-de", "de-en"], shots=3)

    def shown(prompt):
        spans = [prompt.text[s.start : s.stop] for s in prompt.segments if s.name == "demonstrations"]
        return [t.rpartition(" ")[2] for t in spans if t.startswith("en text")]

    pairs = zip(made.of("en-to-de"), made.of("de-to-en"), strict=True)
    assert all(shown(a) == shown(b) for a, b in pairs)
    other = translation_prompts(parallel(), ["en-de"], shots=3, seed=1)
    assert [shown(p) for p in other.prompts] != [shown(p) for p in made.of("en-to-de")]


def test_items_that_repeat_a_text_are_left_out_and_no_demonstration_gives_the_answer_away():
    made = translation_prompts(parallel(repeated=(2, 3, 4)), ["en-de"], shots=4)
    assert made.items == ("q0", "q1", "q2", "q5", "q6", "q7", "q8", "q9")
    half = PromptSet("half", tuple(
        Prompt(p.item, p.language, "one text" if p.language == "de" and p.item in ("q1", "q2") else p.text)
        for p in parallel().prompts
    ))  # fmt: skip
    made = translation_prompts(half, ["en-de"], shots=8)
    assert made.prompts[1].text.count("one text") == 0
    with pytest.raises(BabelScopeError, match="fewer than 9"):
        translation_prompts(half, ["en-de"], shots=9)


def test_a_segment_can_be_translated_alone_and_line_ends_become_spaces():
    made = translation_prompts(parallel(), ["en-de"], shots=0, segment="question")
    assert made.prompts[0].text == "Translate from English into German.\n\nEnglish: text 0\nGerman:"
    lines = PromptSet("p", tuple(Prompt("q", g, f"{g} a\n\n b") for g in CODES))
    assert translation_prompts(lines, ["de-en"], shots=0).prompts[0].segment("question") == "de a b"
    with pytest.raises(BabelScopeError, match="no segment 'options'"):
        translation_prompts(parallel(), ["en-de"], segment="options")


def test_a_direction_is_no_pair_and_the_other_way_around():
    assert direction_of("en-to-de") == ("en", "de")
    assert direction_of("zh-Hant-to-pt-BR") == ("zh-Hant", "pt-BR")
    assert all(direction_of(code) is None for code in ("en", "en-de", "to", "en-to", "to-en", "en-to-", "mixed"))
    assert parts_of("en-to-de") is None


def test_prompts_are_read_back_as_they_were(tmp_path):
    made = translation_prompts(parallel(), ["en-de", "de-en"])
    write_prompts(made, tmp_path / "t.jsonl")
    assert load_prompts(tmp_path / "t.jsonl")[0].prompts == made.prompts


@pytest.mark.parametrize(("change", "problem"), [
    ({"pairs": ["en"]}, "two languages"), ({"pairs": ["en-en"]}, "two languages"), ({"pairs": ["en-fr"]}, "'fr'"),
    ({"pairs": []}, "no direction"), ({"shots": -1}, "demonstrations"), ({"shots": 10}, "need 11 items"),
])  # fmt: skip
def test_what_cannot_be_asked_for_is_refused(change, problem):
    with pytest.raises(BabelScopeError, match=problem):
        translation_prompts(parallel(), **{"pairs": ["en-de"]} | change)


def test_languages_are_called_by_their_english_names():
    assert [language_name(c) for c in ("sw", "pt-BR", "zz")] == ["Swahili", "Portuguese (pt-BR)", "zz"]
