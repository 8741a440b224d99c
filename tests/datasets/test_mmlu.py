"""MMLU: files of Hendrycks et al. without a header, and the form of the hub."""

import csv
import json

import pytest

from babelscope.datasets.load import load_prompts
from babelscope.datasets.mitigations import mitigated
from babelscope.datasets.mixed_choice import mixed_choice
from babelscope.errors import BabelScopeError

# What pandas would read as missing or as numbers.
ROWS = [
    ["How many,\nin all?", "None", "NA", "N/A", "null", "A"],
    ["1", "1.50", "007", "1e3", "nan", "D"],
    ['He said "no"?', "a", "b", "c", "true", "C"],
]


def write(folder, subject="abstract_algebra", rows=ROWS, split="test"):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"{subject}_{split}.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def loaded(tmp_path, split="test"):
    return load_prompts(f"{tmp_path}/{{language}}/{split}", mapping="mmlu")


@pytest.fixture
def two(tmp_path):
    for language in ("en", "de"):
        write(tmp_path / language / "test")
        write(tmp_path / language / "test", "world_religions", [["Who?", "x", "y", "z", f"w {language}", "D"]])
        write(tmp_path / language / "dev", rows=[["Example?", "one", "two", "three", "four", "B"]], split="dev")
    return tmp_path


def test_every_cell_stays_the_text_that_it_is(two):
    prompts, notes = loaded(two)
    assert notes == []
    assert prompts.languages == ("de", "en")
    first, second, third, fourth = prompts.of("en")
    assert first.options == ("None", "NA", "N/A", "null")
    assert second.options == ("1.50", "007", "1e3", "nan")
    assert third.options[3] == "true"
    assert [p.gold for p in prompts.of("en")] == [0, 3, 2, 3]
    assert [p.item for p in prompts.of("en")] == [
        "abstract_algebra/test/1", "abstract_algebra/test/2", "abstract_algebra/test/3", "world_religions/test/1",
    ]  # fmt: skip
    assert fourth.covariates == {"subject": "world_religions"}
    assert fourth.answer == "w en"


def test_a_prompt_names_its_subject_and_shows_the_options_as_published(two):
    prompt = loaded(two)[0].of("en")[0]
    assert (
        prompt.text
        == """\
Multiple-choice questions about abstract algebra, each with its answer.

How many,
in all?
A. None
B. NA
C. N/A
D. null
Answer:"""
    )
    assert [s.name for s in prompt.segments] == ["instruction", "question", "options", "cue"]


def test_a_header_is_left_out_and_noted_and_no_question_is_swallowed(tmp_path):
    header = ["question", "A", "B", "C", "D", "answer"]
    write(tmp_path / "en" / "test", rows=[header, *ROWS])
    write(tmp_path / "de" / "test")
    prompts, notes = loaded(tmp_path)
    assert [len(prompts.of(g)) for g in ("en", "de")] == [3, 3]
    assert len(notes) == 1
    assert "first row is a header" in notes[0]
    # A first question that looks like one is none: its last cell is a letter.
    write(tmp_path / "en" / "test", rows=[["Question", "A", "B", "C", "D", "A"], *ROWS])
    write(tmp_path / "de" / "test", rows=[["Frage", "A", "B", "C", "D", "A"], *ROWS])
    assert len(loaded(tmp_path)[0].items) == 4


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([*ROWS, ["Q", "a", "b", "c", "A"]], "5 fields, expected 6"), (ROWS[:2], "1 of 3 items missing"),
        ([ROWS[1], ROWS[0], ROWS[2]], "has gold"), ([*ROWS[:2], [*ROWS[2][:5], "E"]], "gold 'E' names none"),
        ([ROWS[0], ["Q", "", "b", "c", "d", "D"], ROWS[2]], "'A' is empty"),
        ([ROWS[0], [], *ROWS[1:]], "blank line, while rows are joined by their position"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused(tmp_path, rows, problem):
    write(tmp_path / "en" / "test")
    write(tmp_path / "de" / "test", rows=rows)
    with pytest.raises(BabelScopeError, match=problem):
        loaded(tmp_path)


def test_splits_are_apart_and_one_file_is_read_too(two):
    write(two / "en" / "both", split="dev")
    write(two / "en" / "both")
    with pytest.raises(BabelScopeError, match="files of dev and test are in one folder"):
        load_prompts(f"{two}/{{language}}/both", mapping="mmlu")
    with pytest.raises(BabelScopeError, match=r"no file SUBJECT_test\.csv"):
        load_prompts(f"{two}/{{language}}", mapping="mmlu")
    one = load_prompts(f"{two}/{{language}}/test/world_religions_test.csv", mapping="mmlu")[0]
    assert one.items == ("world_religions/test/1",)


def test_it_is_mixed_with_demonstrations_of_its_dev_split(two):
    kept = ["abstract_algebra/test/1", "abstract_algebra/test/2"]
    questions = loaded(two)[0]
    questions = type(questions)("mmlu", tuple(p for p in questions.prompts if p.item in kept))
    test, dev = (mixed_choice(p, ["de"], settings=["gt_question"]) for p in (questions, loaded(two, "dev")[0]))
    prompt = mitigated(test, ["same-shots"], demonstrations=dev, shots=1).of("gt_question_de+same-shots")[0]
    assert prompt.text.startswith("""\
Multiple-choice questions about abstract algebra, each with its answer.

Example?
A. one
B. two
C. three
D. four
Answer: B

How many,
in all?
A. None
""")
    relabeled = mitigated(test, ["ids-1234"]).of("en+ids-1234")[0]
    assert relabeled.segment("options") == "1. None\n2. NA\n3. N/A\n4. null"


def test_the_form_of_the_hub_is_read(tmp_path):
    for g in ("en", "de"):
        row = {"question": f"{g}?", "subject": "anatomy", "choices": [f"{g} 0", "1", "2", "3"], "answer": 2}
        (tmp_path / f"mmlu.{g}.jsonl").write_text(json.dumps(row) + "\n")
    prompts, _ = load_prompts(f"{tmp_path}/mmlu.{{language}}.jsonl", mapping="mmlu-hub")
    prompt = prompts.of("en")[0]
    assert prompt.gold == 2
    assert prompt.covariates == {"subject": "anatomy"}
    assert prompt.text == (
        "Multiple-choice questions about anatomy, each with its answer.\n\nen?\nA) en 0\nB) 1\nC) 2\nD) 3\nAnswer:"
    )
    made = mitigated(mixed_choice(prompts, ["de"], settings=["full"]), ["awareness-1"])
    assert made.of("full_de+awareness-1")[0].text.split("\n")[2:4] == [
        "The question and its options may be written in different languages. Read each in its own language.", "de?",
    ]  # fmt: skip
