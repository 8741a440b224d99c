import csv
import json
import random
from pathlib import Path

import pytest

from babelscope import plugins
from babelscope.datasets.load import load_prompts
from babelscope.datasets.mapping import PromptMapping, read_mapping
from babelscope.errors import BabelScopeError

SHARED = Path(__file__).parents[3] / "shared" / "data"

# Quotes, commas, tabs, line ends, right-to-left marks and line separators that only some readers break at.
TEXTS = {
    ("q1", "en"): 'She said "two, three".\nThen\tshe left.',
    ("q1", "ar"): "\u200fقالت: «اثنان»، ثم ذهبت.\u200f",
    ("q2", "en"): "One\u2028line\x85still one row",
    ("q2", "ar"): "سطر  واحد ",
}
ROWS = [{"id": i, "lang": g, "question": t, "label": i.upper()} for (i, g), t in TEXTS.items()]
MAPPING = {"key": "id", "language": "lang", "text": "question", "covariates": ["label"]}


def write_csv(path, rows, delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), encoding="utf-8", newline="\n")


def write_parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS = {
    "csv": write_csv,
    "tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "jsonl": write_jsonl,
    "json": lambda path, rows: path.write_text(json.dumps(rows), encoding="utf-8"),
    "parquet": write_parquet,
}


def texts_of(prompts):
    return {(p.item, p.language): p.text for p in prompts.prompts}


@pytest.mark.parametrize("suffix", WRITERS)
def test_one_file_with_a_language_column_keeps_every_character(tmp_path, suffix):
    path = tmp_path / f"own.{suffix}"
    WRITERS[suffix](path, ROWS)
    prompts, notes = load_prompts(path, mapping=MAPPING)
    assert texts_of(prompts) == TEXTS
    assert notes == []
    assert prompts.name == "own"
    assert prompts.languages == ("en", "ar")
    assert prompts.prompts[0].covariates == {"label": "Q1"}


@pytest.mark.parametrize("suffix", WRITERS)
def test_one_file_per_language_is_joined_by_key_never_by_line(tmp_path, suffix):
    rng = random.Random(0)
    items = [f"q{n}" for n in range(20)]
    for language in ("de", "en", "sw"):
        rng.shuffle(items)
        rows = [{"item": i, "text": f"{i} in {language}"} for i in items]
        WRITERS[suffix](tmp_path / f"own.{language}.{suffix}", rows)
    prompts, _ = load_prompts(f"{tmp_path}/own.{{language}}.{suffix}")
    assert prompts.languages == ("de", "en", "sw")
    assert texts_of(prompts) == {(i, g): f"{i} in {g}" for i in items for g in prompts.languages}
    orders = {tuple(p.item for p in prompts.of(g)) for g in prompts.languages}
    assert len(orders) == 1  # the same items in the same order everywhere


def test_languages_asked_for_come_in_their_order_and_others_are_not_read(tmp_path):
    for language in ("de", "en", "sw"):
        write_jsonl(tmp_path / f"{language}.jsonl", [{"item": "a", "text": language}])
    (tmp_path / "fr.jsonl").write_text("this is not JSON")
    prompts, _ = load_prompts(f"{tmp_path}/{{language}}.jsonl", languages=["sw", "en"])
    assert prompts.languages == ("sw", "en")

    write_csv(tmp_path / "own.csv", [*ROWS, {"id": "q1", "lang": "fr", "question": "", "label": "other"}])
    prompts, _ = load_prompts(tmp_path / "own.csv", mapping=MAPPING, languages=["ar"])
    assert texts_of(prompts) == {k: v for k, v in TEXTS.items() if k[1] == "ar"}


def test_a_template_makes_one_segment_of_each_field(tmp_path):
    row = {"item": "a", "language": "en", "c": "It rains.", "q": "Wet?", "o": ["yes", "no"], "gold": "A"}
    write_jsonl(tmp_path / "own.jsonl", [row])
    mapping = {"text": "Read: {c}\n{q}\n{options}\nAnswer:", "options": "o", "gold": "gold"}
    prompts, _ = load_prompts(tmp_path / "own.jsonl", mapping=mapping)
    prompt = prompts.prompts[0]
    assert prompt.text == "Read: It rains.\nWet?\nA) yes\nB) no\nAnswer:"
    assert [s.name for s in prompt.segments] == ["c", "q", "options"]
    assert (prompt.segment("c"), prompt.segment("q"), prompt.segment("options")) == (
        "It rains.",
        "Wet?",
        "A) yes\nB) no",
    )
    assert (prompt.letters, prompt.options, prompt.gold, prompt.answer) == (("A", "B"), ("yes", "no"), 0, "yes")


@pytest.mark.parametrize(
    ("gold", "gold_is", "index"),
    [("b", None, 1), (1, None, 1), ("1", None, 1), ("two", None, 1), (1, "number", 0), ("2.0", "index", 2)],
)
def test_gold_is_read_as_letter_index_number_or_text(tmp_path, gold, gold_is, index):
    write_jsonl(tmp_path / "own.jsonl", [{"item": "x", "language": "en", "text": "?", "gold": gold, "id": 1,
                                          "a": "one", "b": "two", "c": "three"}])  # fmt: skip
    mapping = {"options": ["a", "b", "c"], "gold": "gold", "gold_is": gold_is}
    prompts, _ = load_prompts(tmp_path / "own.jsonl", mapping=mapping)
    assert prompts.prompts[0].gold == index


def test_gold_that_can_be_read_in_two_ways_is_refused_until_the_mapping_says_which(tmp_path):
    write_jsonl(
        tmp_path / "own.jsonl", [{"item": "x", "language": "en", "text": "?", "gold": "2", "o": ["2", "3", "5"]}]
    )
    mapping = {"options": "o", "gold": "gold"}
    with pytest.raises(BabelScopeError, match="read as index and as text"):
        load_prompts(tmp_path / "own.jsonl", mapping=mapping)
    assert load_prompts(tmp_path / "own.jsonl", mapping=mapping | {"gold_is": "text"})[0].prompts[0].gold == 0
    assert load_prompts(tmp_path / "own.jsonl", mapping=mapping | {"gold_is": "index"})[0].prompts[0].gold == 2


def squad(language, ids):
    qas = [{"id": i, "question": f"{i} {language}?", "answers": [{"text": f"{i}!", "answer_start": 0}]} for i in ids]
    half = len(qas) // 2
    paragraphs = [{"context": f"C1 {language}", "qas": qas[:half]}, {"context": f"C2 {language}", "qas": qas[half:]}]
    return {"version": "1.1", "data": [{"title": "T", "paragraphs": [p]} for p in paragraphs]}


def test_the_xquad_mapping_reaches_into_articles_and_paragraphs(tmp_path):
    for language, ids in (("en", "abcd"), ("de", "abcd")):
        (tmp_path / f"xquad.{language}.json").write_text(json.dumps(squad(language, ids)))
    prompts, notes = load_prompts(f"{tmp_path}/xquad.{{language}}.json", mapping="xquad")
    assert (prompts.name, prompts.items, notes) == ("xquad", tuple("abcd"), [])
    first, last = prompts.of("de")[0], prompts.of("de")[-1]
    assert (first.segment("context"), first.segment("question"), first.answer) == ("C1 de", "a de?", "a!")
    assert last.text == "C2 de\nd de?"


def test_the_mgsm_mapping_joins_by_row_and_keeps_quotes(tmp_path):
    (tmp_path / "mgsm_en.tsv").write_text('"All" for $2?\t2\nHow many?\t7\n', encoding="utf-8")
    (tmp_path / "mgsm_es.tsv").write_text('¿"Todo" por $2?\t2\n¿Cuántos?\t7\n', encoding="utf-8")
    prompts, _ = load_prompts(f"{tmp_path}/mgsm_{{language}}.tsv", mapping="mgsm")
    assert prompts.items == ("1", "2")
    assert [p.text for p in prompts.of("es")] == ['¿"Todo" por $2?', "¿Cuántos?"]
    assert prompts.of("en")[0].answer == "2"


def test_the_mgsm_mapping_sees_a_shifted_line_by_its_answer(tmp_path):
    (tmp_path / "mgsm_en.tsv").write_text("One?\t1\nTwo?\t2\n", encoding="utf-8")
    (tmp_path / "mgsm_es.tsv").write_text("¿Dos?\t2\n¿Uno?\t1\n", encoding="utf-8")
    with pytest.raises(
        BabelScopeError, match=r"mgsm_es\.tsv, line 1: item '1' has answer '2' in 'es', but '1' in 'en'"
    ):
        load_prompts(f"{tmp_path}/mgsm_{{language}}.tsv", mapping="mgsm")


@pytest.mark.skipif(not (SHARED / "xquad").is_dir(), reason="XQuAD is not there")
def test_the_published_xquad_files_load_whole():
    prompts, notes = load_prompts(SHARED / "xquad" / "xquad.{language}.json", mapping="xquad", languages=["en", "hi"])
    assert (len(prompts.items), len(prompts), notes) == (1190, 2380, [])
    assert prompts.parallel() == prompts


@pytest.mark.skipif(not (SHARED / "mgsm").is_dir(), reason="MGSM is not there")
def test_the_published_mgsm_files_load_whole():
    prompts, notes = load_prompts(SHARED / "mgsm" / "mgsm_{language}.tsv", mapping="mgsm")
    assert (len(prompts.items), len(prompts.languages), notes) == (250, 11, [])
    assert prompts.of("es")[213].text.startswith('Mientras está en la tienda "Todo por un dólar", Sloane')


def test_a_folder_saved_by_hugging_face_datasets_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    split = datasets.Dataset.from_list(ROWS)
    split.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": split.select([0]), "test": split}).save_to_disk(tmp_path / "two")
    assert texts_of(load_prompts(tmp_path / "one", mapping=MAPPING)[0]) == TEXTS
    assert texts_of(load_prompts(tmp_path / "two", mapping=MAPPING | {"split": "test"})[0]) == TEXTS
    with pytest.raises(BabelScopeError, match="has splits train, test") as caught:
        load_prompts(tmp_path / "two", mapping=MAPPING)
    assert "split: test" in caught.value.hint


def test_folders_of_hugging_face_datasets_may_be_one_per_language(tmp_path):
    datasets = pytest.importorskip("datasets")
    for language in ("en", "ar"):
        datasets.Dataset.from_list([r for r in ROWS if r["lang"] == language]).save_to_disk(tmp_path / language)
    prompts, _ = load_prompts(f"{tmp_path}/{{language}}", mapping={"key": "id", "text": "question"})
    assert texts_of(prompts) == TEXTS


def test_a_hub_dataset_that_cannot_be_reached_is_a_problem_with_a_hint():
    pytest.importorskip("datasets")
    with pytest.raises(BabelScopeError, match="cannot be loaded"):
        load_prompts("hf:nobody/nothing", mapping=MAPPING)
    with pytest.raises(BabelScopeError, match="does not name a dataset"):
        load_prompts("hf:a/b/c/d", mapping=MAPPING)


def test_the_name_of_a_generated_dataset_generates_it():
    prompts, notes = load_prompts("kfrd-arithmetic", languages=["de", "en"])
    assert prompts == plugins.load("dataset", "kfrd-arithmetic")().generate(["de", "en"])
    assert notes == []
    with pytest.raises(BabelScopeError, match="no columns to map"):
        load_prompts("kfrd-arithmetic", mapping="xquad")


def test_a_mapping_reads_the_same_from_yaml_toml_key_values_and_python(tmp_path):
    expected = PromptMapping(key="id", text="{a}\n{b}", options=("x", "y"), gold="g", covariates={"topic": "topic"})
    (tmp_path / "m.yaml").write_text('key: id\ntext: "{a}\\n{b}"\noptions: [x, y]\ngold: g\ncovariates: [topic]\n')
    (tmp_path / "m.toml").write_text('key = "id"\ntext = "{a}\\n{b}"\noptions = ["x", "y"]\ngold = "g"\n'
                                     'covariates = ["topic"]\n')  # fmt: skip
    assert read_mapping(tmp_path / "m.yaml") == expected
    assert read_mapping(str(tmp_path / "m.toml")) == expected
    assert read_mapping(r"key=id text='{a}\n{b}' options=x,y gold=g covariates=topic") == expected
    assert read_mapping(expected) is expected
    assert read_mapping({"text": "a"}) == PromptMapping(text="a")


def test_every_loader_says_what_it_reads():
    assert plugins.names("loader") == ("csv", "huggingface", "json", "jsonl", "mmlu", "parquet", "tsv", "txt")
    for name in plugins.names("loader"):
        assert plugins.load("loader", name).title


def test_the_harry_potter_quiz_is_read_and_a_shifted_row_is_seen(tmp_path):
    header = "question,A,B,C,D,GT\n"
    (tmp_path / "hp_en.csv").write_text(f'{header}"Who, then?",Ron,Hermione,Dobby,Draco,B\nWhich spell?,a,b,c,d,D\n')
    (tmp_path / "hp_fr.csv").write_text(f"{header}Qui ?,Ron,Hermione,Dobby,Drago,B\nQuel sort ?,a,b,c,d,D\n")
    prompts, _ = load_prompts(f"{tmp_path}/hp_{{language}}.csv", mapping="harry-potter-quiz")
    first = prompts.of("en")[0]
    assert (first.gold, first.options, first.letters) == (1, ("Ron", "Hermione", "Dobby", "Draco"), tuple("ABCD"))
    assert first.segment("question") == "Who, then?"
    assert first.answer == "Hermione"
    (tmp_path / "hp_fr.csv").write_text(f"{header}Quel sort ?,a,b,c,d,D\nQui ?,Ron,Hermione,Dobby,Drago,B\n")
    with pytest.raises(BabelScopeError, match="has gold"):
        load_prompts(f"{tmp_path}/hp_{{language}}.csv", mapping="harry-potter-quiz")


def test_tofu_is_read_as_open_questions(tmp_path):
    for language, line in (("en", "Where was she born?"), ("de", "Geburtsort?")):
        (tmp_path / f"tofu_{language}.jsonl").write_text(json.dumps({"question": line, "answer": "Baku"}) + "\n")
    prompts, _ = load_prompts(f"{tmp_path}/tofu_{{language}}.jsonl", mapping="tofu")
    assert [(p.language, p.answer, p.options) for p in prompts.prompts] == [("de", "Baku", ()), ("en", "Baku", ())]


@pytest.mark.parametrize(("name", "output"), [("strategyqa", "Yes"), ("qasc", "F")])
def test_sets_with_facts_are_read_and_a_shifted_row_is_seen(tmp_path, name, output):
    for language, line in (("en", "Facts: Water is wet.\nQuestion: Is it?"), ("de", "Facts: Nass.\nQuestion: Ja?")):
        row = {"instruction": "Answer.", "input": line, "output": output}
        (tmp_path / f"wf1_{language}.json").write_text(json.dumps([row]))
    prompts, _ = load_prompts(f"{tmp_path}/wf1_{{language}}.json", mapping=name)
    assert [(p.answer, p.segment("instruction")) for p in prompts.prompts] == [(output, "Answer.")] * 2
    assert prompts.of("en")[0].segment("question").endswith("Is it?")
    (tmp_path / "wf1_de.json").write_text(json.dumps([{"instruction": "A.", "input": "x", "output": "No"}]))
    with pytest.raises(BabelScopeError, match="output"):
        load_prompts(f"{tmp_path}/wf1_{{language}}.json", mapping=name)
