"""Questions whose parts are in different languages: which, where, and whether they really are."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from babelscope.datasets.choice_cells import cells, changed, effective_mix, with_cells
from babelscope.datasets.findings import Findings
from babelscope.datasets.generators.kfrd_arithmetic import KfrdArithmetic
from babelscope.datasets.language_files import files_by_language, is_code
from babelscope.datasets.load import load_prompts, write_prompts
from babelscope.datasets.mixed_choice import SETTINGS, mixed_choice
from babelscope.errors import BabelScopeError
from babelscope.schema import PromptSet
from tests.datasets.choices import CODES, LETTERS, choice, parallel


def spoken(prompt):
    return [s.language for s in cells(prompt)]


def told(prompt):
    """The language that the text of each cell says it is in."""
    return [prompt.text[s.start : s.stop].split()[0] for s in cells(prompt)]


# By hand, after the table of section 3.1: item 2 of four options has gold C.
AS_PUBLISHED = {
    "full_de": "de de de de de", "question_de": "de en en en en", "options_de": "en de de de de",
    "gt_de": "en en en de en", "gt_question_de": "de en en de en", "threewrong_de": "en de de en de",
}  # fmt: skip


def test_each_setting_has_the_cells_of_the_table_in_the_other_language():
    made = mixed_choice(parallel(), ["en", "de"])
    assert made.languages == (
        "en", "full_de", "question_de", "options_de", "gt_de", "gt_question_de", "onewrong_de", "threewrong_de",
        "mixup",
    )  # fmt: skip
    for code, expected in AS_PUBLISHED.items():
        prompt = made.of(code)[2]
        assert prompt.gold == 2
        assert told(prompt) == spoken(prompt) == expected.split()
        assert prompt.answer == prompt.options[2]
        assert [o.split()[0] for o in prompt.options] == expected.split()[1:]


@pytest.mark.parametrize("code", ["full_de", "gt_question_de", "mixup"])
def test_the_frame_stays_in_the_base_language(code):
    base = {p.item: p for p in parallel().of("en")}
    for prompt in mixed_choice(parallel(), CODES).of(code):
        assert prompt.segment("instruction") == base[prompt.item].segment("instruction")
        assert prompt.segment("cue") == "Answer[en]:"
        spans = [s for s in prompt.segments if s.name == "options"]
        assert len(spans) == 1
        assert prompt.segment("options") == "\n".join(
            f"{x}) {o}" for x, o in zip(prompt.letters, prompt.options, strict=True)
        )
        without = prompt.text
        for cell in reversed(cells(prompt)):
            without = without[: cell.start] + "_" + without[cell.stop :]
        assert without == "[en] Answer with one letter: A, B, C, D.\n_\nA) _\nB) _\nC) _\nD) _\nAnswer[en]:"


def test_one_wrong_option_is_wrong_is_one_and_is_the_same_in_every_language():
    made = mixed_choice(parallel(40), CODES, settings=["onewrong"])
    places = [[g != "en" for g in spoken(p)].index(True) - 1 for p in made.of("onewrong_de")]
    for prompt, place in zip(made.of("onewrong_de"), places, strict=True):
        assert sum(g != "en" for g in spoken(prompt)) == 1
        assert place != prompt.gold
    assert {0, 1, 2, 3} <= {*places}
    for code in ("fr", "es", "it"):
        assert [[g != "en" for g in spoken(p)].index(True) - 1 for p in made.of(f"onewrong_{code}")] == places


@pytest.mark.parametrize(
    ("codes", "n_options"), [(CODES, 4), (CODES[:2], 4), (CODES[:3], 4), (CODES, 2), (CODES, 8), (CODES[:4], 3)]
)
def test_mixup_repeats_languages_as_evenly_as_they_go(codes, n_options):
    for prompt in mixed_choice(parallel(8, n_options, codes), codes, settings=["mixup"]).of("mixup"):
        assert told(prompt) == spoken(prompt)
        counts = Counter(spoken(prompt))
        most, least = max(counts.values()), min([counts[g] for g in codes] if n_options >= len(codes) else [1])
        assert most - least <= 1


def test_mixup_favors_no_language_in_any_cell():
    made = mixed_choice(parallel(1000, 4), CODES, settings=["mixup"]).of("mixup")
    for cell in range(5):
        counts = np.array([Counter(spoken(p)[cell] for p in made)[g] for g in CODES])
        assert (abs(counts - 200) < 5 * np.sqrt(1000 * 0.2 * 0.8)).all()
    two = mixed_choice(parallel(1000, 4, CODES[:2]), CODES[:2], settings=["mixup"]).of("mixup")
    alike = np.mean([spoken(p)[0] == spoken(p)[1] for p in two])
    assert (
        abs(alike - 0.4) < 0.08
    )  # of 5 cells with 3 and 2 in a language, two of them are alike in (3 + 1) of 10 pairs


def test_an_item_is_drawn_by_itself():
    whole = mixed_choice(parallel(12), CODES)
    few = mixed_choice(parallel(12).select(limit=3), tuple(reversed(CODES)))
    alone = mixed_choice(parallel(12), CODES, settings=["mixup", "onewrong"])
    known = {(p.item, p.language): p for p in whole.prompts}
    for prompt in (*few.prompts, *alone.prompts):
        assert known[prompt.item, prompt.language] == prompt
    assert mixed_choice(parallel(12), CODES, seed=1).of("mixup") != whole.of("mixup")


def test_an_item_that_a_language_lacks_is_in_no_setting_and_is_counted():
    made = mixed_choice(parallel(6, without={(1, "fr"), (4, "en")}), CODES)
    assert made.items == ("q0", "q2", "q3", "q5")
    assert made.source["items_left_out"] == 2
    assert all(len(made.of(code)) == 4 for code in made.languages)


def test_a_cell_that_reads_the_same_is_foreign_and_not_changed():
    en = choice(0, "en", ["12", "Paris", "cat", "dog"], 0, question="What?")
    de = choice(0, "de", ["12", "Paris", "Katze", "Hund"], 0, question="Was?")
    made = mixed_choice(PromptSet("p", (en, de)), ["de"])
    base = made.of("en")[0]
    full, gt = made.of("full_de")[0], made.of("gt_de")[0]
    assert changed(full, base) == (True, False, False, True, True)
    assert effective_mix(full, base) == 3 / 5
    assert effective_mix(gt, base) == 0
    assert np.isnan(effective_mix(base, base))


@pytest.mark.parametrize(
    "options",
    [
        ["1", "10", "100", "1"], ["A", "B", "A) B", "C"], ["a", "aa", "a) a", "a"], ["D) no", "C", "B", "A"],
        ["(x)", "-5", ".", ")"], ["same", "same", "same", "same"], ["北京", "北京市", "京", "市"],
        ["नदी", "नद", "न", "ी"], ["x B) y", "y", "z C) w", "w"],
    ],
)  # fmt: skip
def test_options_are_found_behind_their_letters_whatever_they_are(options):
    found = with_cells(choice(0, "en", options, 0))
    assert [found.text[s.start : s.stop] for s in cells(found)][1:] == options
    starts = [s.start for s in cells(found)[1:]]
    lines = found.segment("options").split("\n")
    begin = next(s.start for s in found.segments if s.name == "options")
    assert starts == [begin + 3 + sum(len(x) + 1 for x in lines[:k]) for k in range(4)]


TEXTS = st.text("AB12.)( -é中", min_size=1, max_size=5).filter(lambda t: t == t.strip())


@given(st.lists(TEXTS, min_size=2, max_size=8), st.lists(TEXTS, min_size=8, max_size=8), st.integers(0, 7), st.data())
def test_any_options_are_exchanged_exactly(own, others, gold, data):
    gold %= len(own)
    en = choice(0, "en", own, gold)
    de = choice(0, "de", others[: len(own)], gold)
    made = mixed_choice(PromptSet("p", (en, de)), ["de"])
    code = data.draw(st.sampled_from(made.languages))
    prompt = made.of(code)[0]
    lines = ["[en] Answer with one letter: " + ", ".join(LETTERS[: len(own)]) + ".", ""]
    lines[1] = f"{spoken(prompt)[0]} question 0"
    for k, language in enumerate(spoken(prompt)[1:]):
        lines.append(f"{LETTERS[k]}) {(own if language == 'en' else others)[k]}")
    assert prompt.text == "\n".join([*lines, "Answer[en]:"])
    assert [prompt.text[s.start : s.stop] for s in cells(prompt)][1:] == list(prompt.options)


def test_a_text_that_is_not_shown_is_refused():
    shown = choice(0, "en", ["10", "b", "c", "d"], 0)
    with pytest.raises(BabelScopeError, match=r"'1' does not stand behind its letter.*"):
        with_cells(replace(shown, options=("1", "b", "c", "d")))
    with pytest.raises(BabelScopeError, match="segments 'question', one is needed"):
        with_cells(replace(shown, segments=tuple(s for s in shown.segments if s.name != "question")))
    with pytest.raises(BabelScopeError, match="one of them right"):
        with_cells(replace(shown, gold=None))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (choice(0, "de", ["a", "b", "c", "d"], 1), "the right option differs between 'en' and 'de': 0 and 1"),
        (choice(0, "de", ["a", "b", "c"], 0), "the number of options differs between 'en' and 'de': 4 and 3"),
    ],
)
def test_texts_that_do_not_belong_together_are_refused(other, what):
    with pytest.raises(BabelScopeError, match=what):
        mixed_choice(PromptSet("p", (choice(0, "en", ["a", "b", "c", "d"], 0), other)), ["de"])


def test_names_that_do_not_exist_are_refused():
    for arguments, what in (
        ((["xx"],), "no language in these prompts called 'xx'"), ((["en"],), "no language to mix with en"),
    ):  # fmt: skip
        with pytest.raises(BabelScopeError, match=what):
            mixed_choice(parallel(), *arguments)
    with pytest.raises(BabelScopeError, match="no setting called 'threwrong'"):
        mixed_choice(parallel(), ["de"], settings=["threwrong"])
    with pytest.raises(BabelScopeError, match="no item is in all of"):
        mixed_choice(parallel(2, codes=("en", "de"), without={(0, "de"), (1, "en")}), ["de"])


def test_any_language_can_be_the_base():
    made = mixed_choice(parallel(), ["en", "de"], base="de")
    assert "full_en" in made.languages
    assert made.of("question_en")[0].segment("cue") == "Answer[de]:"
    assert told(made.of("question_en")[0]) == ["en", "de", "de", "de", "de"]


def test_generated_sets_go_through_and_are_read_back_as_they_are(tmp_path):
    prompts = KfrdArithmetic(items=8).generate(["en", "ar", "zh", "hi", "ja"])
    made = mixed_choice(prompts, prompts.languages)
    assert all(is_code(code) for code in made.languages)
    for prompt in made.of("full_zh"):
        zh = next(p for p in prompts.of("zh") if p.item == prompt.item)
        assert [prompt.text[s.start : s.stop] for s in cells(prompt)] == [zh.segment("question"), *zh.options]
        assert prompt.segment("context") == next(p for p in prompts.of("en") if p.item == prompt.item).segment(
            "context"
        )
    write_prompts(made, tmp_path / "mixed.jsonl")
    assert load_prompts(tmp_path / "mixed.jsonl")[0].prompts == made.prompts


def test_the_harry_potter_quiz_goes_through(tmp_path):
    for g, who in (("en", "Who?"), ("fr", "Qui ?")):
        (tmp_path / f"hp_{g}.csv").write_text(f"question,A,B,C,D,GT\n{who},Ron,{g} h,Dobby,Draco,B\n")
    prompts, _ = load_prompts(f"{tmp_path}/hp_{{language}}.csv", mapping="harry-potter-quiz")
    made = mixed_choice(prompts, ["fr"])
    assert made.of("gt_question_fr")[0].text == "Qui ?\nA) Ron\nB) fr h\nC) Dobby\nD) Draco"
    assert changed(made.of("full_fr")[0], made.of("en")[0]) == (True, False, True, False, False)


def test_codes_of_settings_are_codes_and_names_of_splits_are_none(tmp_path):
    for setting in SETTINGS:
        for mitigation in ("", "+awareness-1", "+english-shots", "+same-shots", "+translate", "+ids-1234"):
            assert is_code(f"{setting}_zh-Hant{mitigation}")
    assert not is_code("validation")
    for name in ("en", "validation"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    assert [*files_by_language(f"{tmp_path}/{{language}}.jsonl", None, Findings())] == ["en"]
