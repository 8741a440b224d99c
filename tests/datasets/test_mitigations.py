"""What may help with mixed-language questions, as variants of every setting."""

from dataclasses import replace

import pytest

from babelscope.datasets.choice_cells import cells, changed
from babelscope.datasets.generators.fictional_authors import FictionalAuthors
from babelscope.datasets.generators.kfrd_arithmetic import KfrdArithmetic
from babelscope.datasets.language_files import is_code
from babelscope.datasets.load import load_prompts, write_prompts
from babelscope.datasets.mitigations import AWARENESS, NEED_DEMONSTRATIONS, mitigated
from babelscope.datasets.mixed_choice import mixed_choice
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from tests.datasets.choices import CODES, choice, parallel

LANGUAGES = CODES[:3]


def mixed(n=4, **arguments):
    return mixed_choice(parallel(n, codes=LANGUAGES, **arguments), LANGUAGES)


def demos(n, **arguments):
    """Other items than those of `mixed`: d100, with gold A, and so on."""
    return mixed(n, key="d", start=100, **arguments)


def of(made, code, item="q0"):
    return next(p for p in made.of(code) if p.item == item)


def test_every_setting_and_the_base_have_a_variant_that_is_a_code():
    plain = mixed()
    made = mitigated(plain, ["awareness-1", "ids-1234"])
    assert made.prompts[: len(plain.prompts)] == plain.prompts
    expected = [f"{code}{x}" for x in ("", "+awareness-1", "+ids-1234") for code in plain.languages]
    assert list(made.languages) == expected
    assert all(map(is_code, expected))


def test_the_cells_of_a_variant_are_those_of_its_setting(tmp_path):
    names = ["awareness-2", "english-shots", "same-shots", "translate", "ids-CDEF"]
    plain = mixed()
    made = mitigated(plain, names, demonstrations=demos(3), shots=2)
    write_prompts(made, tmp_path / "m.jsonl")
    made = load_prompts(tmp_path / "m.jsonl")[0]
    for name in names:
        for before in plain.prompts:
            after = of(made, f"{before.language}+{name}", before.item)
            assert [(s.name, s.language, after.text[s.start : s.stop]) for s in cells(after)] == [
                (s.name, s.language, before.text[s.start : s.stop]) for s in cells(before)
            ]
            assert changed(after, of(plain, "en", before.item)) == changed(before, of(plain, "en", before.item))
            assert (after.gold, after.options, after.answer) == (before.gold, before.options, before.answer)
            for name_of_segment in ("instruction", "options") if name != "ids-CDEF" else ():
                assert after.segment(name_of_segment) == before.segment(name_of_segment)


@pytest.mark.parametrize("number", [1, 2])
def test_a_sentence_stands_on_its_line_behind_the_instruction(number):
    prompt = of(mitigated(mixed(), [f"awareness-{number}"]), f"mixup+awareness-{number}")
    before = of(mixed(), "mixup")
    sentence = AWARENESS["en"][number - 1]
    assert prompt.text == before.text.replace("D.\n", f"D.\n{sentence}\n", 1)
    assert prompt.segment("awareness") == sentence
    assert sentence.count(".") == 2


def test_a_sentence_without_a_wording_in_the_base_is_refused():
    with pytest.raises(BabelScopeError, match="no wording in 'de', only in en"):
        mitigated(mixed_choice(parallel(), ["en", "de"], base="de"), ["awareness-1"], base="de")


SOLVED = """\
[en] Answer with one letter: A, B, C, D.
{0} question 100
A) {1} option 100.0
B) en option 100.1
C) en option 100.2
D) en option 100.3
Answer[en]: A

{0} question 101
A) en option 101.0
B) {1} option 101.1
C) en option 101.2
D) en option 101.3
Answer[en]: B

de question 2
A) en option 2.0
B) en option 2.1
C) de option 2.2
D) en option 2.3
Answer[en]:"""


@pytest.mark.parametrize(("name", "spoken"), [("english-shots", "en"), ("same-shots", "de")])
def test_demonstrations_end_in_their_label_and_stand_behind_the_instruction(name, spoken):
    made = mitigated(mixed(), [name], demonstrations=demos(2), shots=2)
    prompt = of(made, f"gt_question_de+{name}", "q2")
    assert prompt.text == SOLVED.format(spoken, spoken)
    shown = [s for s in prompt.segments if s.name == "demonstrations"]
    assert (
        prompt.segment("demonstrations") == SOLVED.format(spoken, spoken).partition("D.\n")[2].rpartition("\n\nde q")[0]
    )
    assert {prompt.text[s.start : s.stop] for s in shown if s.language == "de"} == (
        {"de question 100", "de option 100.0", "de question 101", "de option 101.1"} if spoken == "de" else set()
    )


def test_translating_shows_the_question_again_in_english_and_ends_before_it():
    made = mitigated(mixed(), ["translate"], demonstrations=demos(1), shots=1)
    assert (
        of(made, "gt_question_de+translate", "q2").text
        == """\
[en] Answer with one letter: A, B, C, D.
de question 100
A) de option 100.0
B) en option 100.1
C) en option 100.2
D) en option 100.3
In English:
en question 100
A) en option 100.0
B) en option 100.1
C) en option 100.2
D) en option 100.3
Answer[en]: A

de question 2
A) en option 2.0
B) en option 2.1
C) de option 2.2
D) en option 2.3
In English:
"""
    )


def test_demonstrations_are_of_the_kind_of_the_question():
    questions = KfrdArithmetic(items=16).generate(["en", "de"])
    train = KfrdArithmetic(items=40, split="train").generate(["en", "de"])
    rules = {p.segment("context").split(".")[0]: p.covariates["rule"] for p in train.of("en")}
    shown = mixed_choice(train, ["de"], settings=["gt"])
    made = mitigated(mixed_choice(questions, ["de"], settings=["gt"]), ["same-shots"], demonstrations=shown, shots=3)
    for prompt in made.of("gt_de+same-shots"):
        told = prompt.segment("demonstrations")
        kinds = {rule for said, rule in rules.items() if f"{said}." in told}
        assert kinds == {prompt.covariates["rule"]}
        assert told.count("Answer: ") == 3


@pytest.mark.parametrize("kind", ["subject", "rule"])
def test_too_few_of_a_kind_are_refused_by_its_name(kind):
    shown = demos(3, covariates={kind: "physics"})
    with pytest.raises(BabelScopeError, match=f"3 items of {kind} 'physics' to demonstrate with, 5 are asked for"):
        mitigated(mixed(covariates={kind: "physics"}), ["same-shots"], demonstrations=shown)
    with pytest.raises(BabelScopeError, match=f"0 items of {kind} 'law'"):
        mitigated(mixed(covariates={kind: "law"}), ["same-shots"], demonstrations=shown, shots=1)


def test_a_question_never_demonstrates_itself():
    with pytest.raises(BabelScopeError, match="'q0' of the demonstrations is among the questions, too"):
        mitigated(mixed(), ["english-shots"], demonstrations=mixed(4, start=0), shots=1)
    other_text = mixed_choice(parallel(1, codes=LANGUAGES, start=100), LANGUAGES)
    same_key = PromptSet("d", tuple(replace(p, item="q3") for p in other_text.prompts))
    with pytest.raises(BabelScopeError, match="'q3' of the demonstrations is among the questions, too"):
        mitigated(mixed(), ["english-shots"], demonstrations=same_key, shots=1)
    # The same question under another key, its answer elsewhere and in another letter case, among other wrong options.
    told = PromptSet("d", tuple(
        choice(0, g, ["new", "other", f"{g.upper()}  option 1.1", "third"], 2, question=f"{g} question 1", key="other")
        for g in LANGUAGES
    ))  # fmt: skip
    with pytest.raises(BabelScopeError, match="'other0' of the demonstrations is among the questions, too"):
        mitigated(mixed(), ["english-shots"], demonstrations=mixed_choice(told, LANGUAGES), shots=1)


def test_facts_of_one_world_do_not_demonstrate_the_same_facts():
    asked, shown = (
        mixed_choice(FictionalAuthors(split=split).generate(["en", "de"]), ["de"], settings=["gt"])
        for split in ("test", "train")
    )
    assert not {p.text for p in asked.prompts} & {p.text for p in shown.prompts}
    with pytest.raises(BabelScopeError, match="among the questions, too"):
        mitigated(asked, ["same-shots"], demonstrations=shown, shots=1)
    other = mixed_choice(FictionalAuthors(world=1).generate(["en", "de"]), ["de"], settings=["gt"])
    assert len(mitigated(asked, ["same-shots"], demonstrations=other, shots=1).languages) == 4


def test_other_labels_are_in_the_options_in_the_instruction_and_in_the_letters():
    for name, labels in (("ids-1234", "1234"), ("ids-CDEF", "CDEF"), ("ids-123456", "1234")):
        prompt = of(mitigated(mixed(), [name]), f"gt_de+{name}", "q1")
        a, b, c, d = labels
        assert prompt.letters == tuple(labels)
        assert prompt.letters[prompt.gold] == b
        assert (
            prompt.text
            == f"""\
[en] Answer with one letter: {a}, {b}, {c}, {d}.
en question 1
{a}) en option 1.0
{b}) de option 1.1
{c}) en option 1.2
{d}) en option 1.3
Answer[en]:"""
        )
        assert prompt.segment("options").split("\n")[1] == f"{b}) de option 1.1"


def test_a_letter_within_an_option_stays():
    base = PromptSet("p", tuple(choice(0, g, ["B", "A", "A) C", "D"], 1) for g in ("en", "de")))
    prompt = of(mitigated(mixed_choice(base, ["de"]), ["ids-CDEF"]), "full_de+ids-CDEF")
    assert prompt.segment("options") == "C) B\nD) A\nE) A) C\nF) D"
    assert prompt.options == ("B", "A", "A) C", "D")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ids-123", "has 4 options, the letters are '123'"), ("ids-1123", "the letters are '1123'"),
        ("ids-aAbB", "the letters are 'aAbB'"), ("ids-ABCD", "are the letters that the questions have"),
        ("ids-+-()", "not combined"), ("ids-①②③④", "letters a-z, A-Z or digits"), ("ids-", "letters a-z"),
        ("awareness", "no mitigation called 'awareness'"), ("awareness-1+ids-1234", "mitigations are not combined"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(name, problem):
    with pytest.raises(BabelScopeError, match=problem):
        mitigated(mixed(), [name])


@pytest.mark.parametrize("name", sorted(NEED_DEMONSTRATIONS))
def test_demonstrations_that_are_missing_are_asked_for(name):
    with pytest.raises(BabelScopeError, match=f"{name} needs demonstrations"):
        mitigated(mixed(), [name])
    with pytest.raises(BabelScopeError, match="0 demonstrations show nothing"):
        mitigated(mixed(), [name], demonstrations=demos(2), shots=0)


def test_demonstrations_in_other_settings_are_refused():
    shown = mixed_choice(parallel(2, codes=LANGUAGES, key="d", start=100), LANGUAGES, settings=["gt"])
    with pytest.raises(BabelScopeError, match="have no 'd100' in the setting 'full_de'"):
        mitigated(mixed(), ["same-shots"], demonstrations=shown, shots=1)


def test_an_answer_needs_something_to_follow():
    def without_cue(prompts):
        return PromptSet("p", tuple(
            replace(p, text=p.text[: p.text.rindex("\n")], segments=p.segments[:-1]) for p in prompts.prompts
        ))  # fmt: skip

    questions, shown = (
        mixed_choice(without_cue(parallel(2, codes=LANGUAGES, key=k, start=n)), LANGUAGES, settings=["gt"])
        for k, n in (("q", 0), ("d", 100))
    )
    for name in NEED_DEMONSTRATIONS:
        with pytest.raises(BabelScopeError, match="nothing behind its options that an answer could follow"):
            mitigated(questions, [name], demonstrations=shown, shots=1)
    assert len(mitigated(questions, ["awareness-1"]).languages) == 2 * len(questions.languages)
