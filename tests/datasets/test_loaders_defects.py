import csv
import json

import pytest

from babelscope.datasets import delimited
from babelscope.datasets.load import load_prompts
from babelscope.errors import BabelScopeError


@pytest.fixture
def own(tmp_path):
    """Write files into a folder of their own; bytes stay as they are."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refusal(source, **options):
    with pytest.raises(BabelScopeError) as caught:
        load_prompts(source, **options)
    assert caught.value.hint
    return str(caught.value)


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def row(item, language, text="text", **more):
    return {"item": item, "language": language, "text": text, **more}


HEADER = "item,language,text\n"


def test_a_key_twice_in_one_language_names_both_rows(own):
    path = own("p.csv", HEADER + "a,en,one\na,de,eins\na,en,again\n")
    said = refusal(path)
    assert f"{path}, line 4: key 'a' occurs again in language 'en' (first at {path}, line 2)" in said
    assert "give each item its own key" in said


def test_missing_items_are_noted_and_refused_only_when_strict(own):
    path = own("p.csv", HEADER + "a,en,one\nb,en,two\na,de,eins\n")
    prompts, notes = load_prompts(path)
    assert len(prompts) == 3
    missing = f"{path}, language 'de': 1 of 2 items missing: 'b'"
    todo = "add the rows, or refuse such items with strict: true"
    assert notes == [f"{missing}; kept, incomplete, in the other languages ({todo})"]
    said = refusal(path, mapping={"strict": True})
    assert missing in said
    assert "strict: false" in said


def test_keys_that_never_match_are_refused(own):
    path = own("p.csv", HEADER + "en-1,en,one\nde-1,de,eins\n")
    assert f"{path}: no key occurs in two languages (first keys: en: 'en-1'; de: 'de-1')" in refusal(path)
    own("p.en.csv", "item,text\nen-1,one\n")
    pattern = str(own("p.de.csv", "item,text\nde-1,eins\n")).replace(".de.", ".{language}.")
    files = " and ".join(pattern.format(language=g) for g in ("de", "en"))
    assert f"{files}: no key occurs in two languages" in refusal(pattern)


@pytest.mark.parametrize("language", ["de", "DE", "de-AT"])
def test_a_row_of_another_language_than_its_file_is_refused(own, language):
    path = own("p.en.csv", f"item,language,text\na,en,one\nb,{language},eins\n")
    said = refusal(str(path).replace(".en.", ".{language}."))
    assert f"{path}, line 3: language is {language!r}, while the file is that of 'en'" in said
    assert "correct the row or the name of the file" in said


@pytest.mark.parametrize("language", ["en", "EN", "en-US", "english", "English", ""])
def test_another_way_to_name_the_language_of_the_file_is_no_contradiction(own, language):
    path = own("p.en.csv", f"item,language,text\na,{language},one\n")
    assert load_prompts(str(path).replace(".en.", ".{language}."))[0].languages == ("en",)


@pytest.mark.parametrize(
    ("field", "value"), [("item", "\ud83d"), ("text", "cut \ud83d"), ("o", ["y", "\ud83d"]), ("topic", "\ud83d")]
)
def test_half_a_character_is_refused_by_row(own, field, value):
    path = own("p.jsonl", lines({**row("a", "en", topic="x", o=["y", "z"]), field: value}))
    said = refusal(path, mapping={"options": "o", "covariates": ["topic"]})
    assert f"{path}, line 1: field '{'o.1' if field == 'o' else field}' holds half a character" in said
    assert "repair the text" in said


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"covariates": ["topic"]}, "item 'a' has topic 'art' in 'de', but 'math' in 'en'"),
        ({"options": "o", "gold": "gold"}, "item 'a' has gold 'option 2' in 'de', but 'option 1' in 'en'"),
        ({"options": "o"}, "item 'a' has options 3 in 'de', but 2 in 'en'"),
        ({"same": ["n"]}, "item 'a' has n 8 in 'de', but 7 in 'en'"),
    ],
)
def test_labels_that_differ_between_languages_name_both_rows(own, mapping, problem):
    path = own("p.jsonl", lines(
        row("a", "en", topic="math", n=7, gold="A", o=["x", "y"]),
        row("a", "de", topic="art", n=8, gold="B", o=["x", "y", "z"]),
    ))  # fmt: skip
    said = refusal(path, mapping=mapping)
    assert f"{path}, line 2: {problem} ({path}, line 1)" in said


def test_native_letters_of_each_script_are_no_difference(own):
    more = {"options": ["1", "2"], "gold": 1}
    path = own("p.jsonl", lines(row("a", "en", letters=["A", "B"], **more), row("a", "ru", letters=["А", "Б"], **more)))
    assert len(load_prompts(path)[0]) == 2


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl", "p.json"])
def test_windows_line_ends_and_byte_order_marks_are_taken_out_and_noted(own, name):
    content = {"p.csv": HEADER + "a,en,one\n", "p.jsonl": lines(row("a", "en", "one")),
               "p.json": json.dumps([row("a", "en", "one")], indent=1)}[name]  # fmt: skip
    path = own(name, b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    prompts, notes = load_prompts(path)
    assert prompts.prompts[0].text == "one"
    assert notes == [
        f"{path}: byte-order mark (BOM) at the start ignored",
        f"{path}: Windows line ends (CRLF) read as LF",
    ]


def test_a_missing_column_is_reported_once_with_the_columns_found(own):
    path = own("p.csv", "id,lang,question\na,en,one\nb,en,two\n")
    said = refusal(path, mapping={"key": "id", "language": "lang", "text": "prompt"})
    assert said.startswith(f"{path}: there is no column 'prompt'; columns found: 'id', 'lang', 'question'\n")
    assert "text=COLUMN" in said
    assert "map it, as text=question" in refusal(path, mapping={"key": "id", "language": "lang", "text": "questions"})


def test_a_missing_language_column_hints_at_one_file_per_language(own):
    said = refusal(own("p.csv", "item,text\na,one\n"))
    assert "there is no column 'language'" in said
    assert "{language}" in said


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("item,text,text\na,b,c\n", "malformed header: column 'text' occurs twice"),
        ("item;language;text\na;en;c\n", "one column 'item;language;text', with a semicolon inside"),
        ("item\tlanguage\ttext\na\ten\tc\n", "with a tab inside"),
        ("", "the file is empty"),
    ],
)
def test_a_malformed_header_is_named(own, content, problem):
    assert problem in refusal(own("p.csv", content))


def test_a_header_under_named_columns_is_not_taken_for_an_item(own):
    path = own("p.tsv", "item\tlanguage\ttext\na\ten\tone\n")
    said = refusal(path, mapping={"columns": ["item", "language", "text"]})
    assert "this row is a header" in said


@pytest.mark.parametrize("text", ["", "  ", "\u3000"])
def test_an_empty_text_is_refused_by_row(own, text):
    path = own("p.csv", HEADER + f"a,en,one\nb,en,{text}\n")
    assert f"{path}, line 3: field 'text' is empty\n" in refusal(path)


def test_ragged_rows_are_reported_by_the_line_they_begin_on(own):
    path = own("p.csv", HEADER + 'a,en,"two\nlines"\nb,en,one, two\nc,en\n')
    said = refusal(path)
    assert f"{path}, line 4: 4 fields, expected 3 (item, language, text)" in said
    assert f"{path}, line 5: 2 fields, expected 3" in said


def test_unnamed_columns_at_the_end_are_left_out_if_they_are_empty(own):
    path = own("p.csv", "item,language,text,,\na,en,one,,\nb,en,two\n")
    prompts, notes = load_prompts(path)
    assert [p.text for p in prompts.prompts] == ["one", "two"]
    assert notes == [f"{path}: empty columns without a name at the end left out: 2"]
    for header in ("item,language,text,", "item,language,text,,"):
        said = refusal(own("p.csv", header + "\na,en,one, and more\n"))
        assert f"{path}, line 2: 4 fields, expected 3 (item, language, text)" in said


def test_a_long_field_is_read_and_one_beyond_all_reason_is_named(own, monkeypatch):
    path = own("p.csv", HEADER + f"a,en,{'x' * 200_000}\n")
    limit = csv.field_size_limit()
    assert len(load_prompts(path)[0].prompts[0].text) == 200_000
    assert csv.field_size_limit() == limit
    monkeypatch.setattr(delimited, "LONGEST_FIELD", 1000)
    said = refusal(path)
    assert f"{path}, line 2: a field has more than 1,000 characters" in said
    assert "close the quote" in said


def test_quotes_that_would_vanish_are_refused_and_kept_when_told(own):
    path = own("p.tsv", 'item\tlanguage\ttext\na\ten\t"Hi," she said\n')
    said = refusal(path)
    assert f"{path}, line 2: malformed row" in said
    assert "quotes: false" in said
    assert load_prompts(path, mapping={"quotes": False})[0].prompts[0].text == '"Hi," she said'


def test_an_unclosed_quote_is_reported_where_it_begins(own):
    path = own("p.csv", HEADER + 'a,en,one\nb,en,"two\nc,en,three\n')
    assert f"{path}, line 3: malformed row" in refusal(path)


def test_every_invalid_json_line_is_reported_by_number(own):
    path = own("p.jsonl", lines(row("a", "en")) + "{oops\n" + lines(row("b", "en")) + "[1]\n")
    said = refusal(path)
    assert f"{path}, line 2: invalid JSON" in said
    assert f"{path}, line 4: expected a JSON object, got list" in said


def test_at_most_ten_problems_are_shown_and_all_are_counted(own):
    path = own("p.jsonl", "{\n" * 25)
    said = refusal(path)
    assert said.startswith("25 problems, the first 10:\n")
    assert said.count("invalid JSON") == 10


def test_invalid_json_names_the_line_and_lines_of_json_the_suffix(own):
    assert "p.json, line 2: invalid JSON" in refusal(own("p.json", "[\n{,\n]"))
    assert "end the file name in .jsonl" in refusal(own("p.json", lines(row("a", "en"), row("b", "en"))))
    assert "end its name in .json" in refusal(own("p.jsonl", "[\n" + lines(row("a", "en")) + "]\n"))


def test_records_that_are_not_where_the_mapping_says_are_shown(own):
    path = own("p.json", json.dumps({"version": 1, "data": [{"rows": [row("a", "en")]}, {"lines": []}]}))
    assert "say where the records are, as records: data[]" in refusal(path)
    said = refusal(path, mapping={"records": "data[].rows[]"})
    assert f"{path}, data[1]: expected an object with 'rows', got an object with 'lines'" in said
    assert "expected a list" in refusal(path, mapping={"records": "version[]"})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ((HEADER + "a,en,one\nb,de,schön\n").encode("latin-1"), "line 3: not UTF-8 (byte 0xf6)"),
        ((HEADER + "a,en,one\n").encode("utf-16"), "the encoding is UTF-16, expected UTF-8"),
    ],
)
def test_another_encoding_is_named_with_the_command_that_converts_it(own, content, problem):
    said = refusal(own("p.csv", content))
    assert problem in said
    assert "iconv -f" in said


@pytest.mark.parametrize(("name", "content"), [("p.csv", HEADER), ("p.jsonl", ""), ("p.jsonl", "\n"), ("p.json", "[]")])
def test_a_file_without_items_is_refused(own, name, content):
    assert "there is no item in it" in refusal(own(name, content))


def test_a_language_without_a_file_or_without_rows_is_refused(own):
    path = own("p.en.csv", HEADER + "a,en,one\n")
    pattern = str(path).replace(".en.", ".{language}.")
    said = refusal(pattern, languages=["en", "sw"])
    assert "p.sw.csv: there is no file for language 'sw'" in said
    assert "there are: en" in said
    assert "no row is in sw" in refusal(path, languages=["sw"])
    assert "no row is in sw (rows of those asked for: en)" in refusal(path, languages=["en", "sw"])
    empty = own("p.sw.csv", HEADER)
    assert f"{empty}: there is no item in it" in refusal(pattern)


def test_a_pattern_that_matches_no_file_is_refused(tmp_path):
    assert "no file matches" in refusal(f"{tmp_path}/p.{{language}}.csv")


def test_files_whose_names_give_no_language_are_passed_over_and_noted(own):
    own("p.en.csv", "item,text\na,one\n")
    other = own("p.OLD copy.csv", "nonsense")
    prompts, notes = load_prompts(str(other).replace("OLD copy", "{language}"))
    assert prompts.languages == ("en",)
    assert notes == [f"{other}: passed over, since its name gives no language code"]


@pytest.mark.parametrize("code", ["EN", "e", "en us", "../en", ""])
def test_what_is_not_a_language_code_is_refused(own, code):
    path = own("p.jsonl", lines(row("a", code)))
    assert f"{path}, line 1: " in refusal(path, mapping={})
    assert "is not a language code" in refusal(path, languages=[code])


@pytest.mark.parametrize("source", ["no-such.csv", "no-such.jsonl", "no-such.parquet"])
def test_a_file_that_is_not_there_is_named(source):
    assert f"{source}: cannot be read" in refusal(source)


def test_an_unknown_name_a_folder_and_an_unknown_ending_are_told_apart(tmp_path, own):
    assert "there is no dataset or file called 'kfrd-arithmetik'" in refusal("kfrd-arithmetik")
    assert "did you mean kfrd-arithmetic?" in refusal("kfrd-arithmetik")
    assert "is a folder" in refusal(tmp_path)
    assert "does not tell the format" in refusal(own("p.docx", b"PK"))
    assert "not a readable Parquet file" in refusal(own("p.parquet", b"PAR1 no"))


def test_rows_are_joined_by_position_only_when_the_mapping_says_so(own):
    own("p.en.tsv", "text\nred\nblue\n")
    pattern = str(own("p.de.tsv", "text\nrot\nblau\n")).replace(".de.", ".{language}.")
    assert "there is no column 'item'" in refusal(pattern)
    prompts, _ = load_prompts(pattern, mapping={"key": "row"})
    assert [(p.item, p.text) for p in prompts.of("de")] == [("1", "rot"), ("2", "blau")]


def test_files_of_unequal_length_or_with_blank_lines_are_never_joined_by_position(own):
    own("p.en.tsv", "text\nred\nblue\n")
    path = own("p.de.tsv", "text\nrot\n")
    pattern = str(path).replace(".de.", ".{language}.")
    said = refusal(pattern, mapping={"key": "row"})
    assert f"{path}, language 'de': 1 of 2 items missing" in said
    assert "find the lost line" in said
    assert "strict" not in said
    path.write_text("text\n\nblau\n")
    assert f"{path}, line 2: blank line" in refusal(pattern, mapping={"key": "row"})


def test_a_column_called_row_is_not_silently_taken_for_the_position(own):
    assert "there is a column 'row'" in refusal(own("p.csv", "row,language,text\n7,en,one\n"), mapping={"key": "row"})


def test_blank_lines_are_skipped_and_noted_where_a_key_joins(own):
    path = own("p.csv", HEADER + "\na,en,one\n\n")
    prompts, notes = load_prompts(path)
    assert len(prompts) == 1
    assert notes == [f"{path}, line 2: blank line skipped", f"{path}, line 4: blank line skipped"]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"gold": "D"}, "gold 'D' names none of the 3 options"),
        ({"gold": 3}, "gold 3 names none of the 3 options"),
        ({"gold": None}, "gold None names none"),
        ({"o": ["x"]}, "1 options, expected 2 to 8"),
        ({"o": "x"}, "field 'o' is not a list of options"),
        ({"o": ["x", "", "z"]}, "field 'o.1' is empty"),
    ],
)
def test_unusable_options_and_gold_are_reported_by_row(own, more, problem):
    path = own("p.jsonl", lines(row("a", "en", **({"o": ["x", "y", "z"], "gold": "A"} | more))))
    said = refusal(path, mapping={"options": "o", "gold": "gold"})
    assert f"{path}, line 1: {problem}" in said
    assert ("gold_is: number" in said) == (more.get("gold") == 3)


def test_a_text_field_that_holds_a_list_says_how_to_reach_inside(own):
    path = own("p.jsonl", lines(row("a", "en", answers=["x"])))
    assert "as answers.0" in refusal(path, mapping={"answer": "answers"})
    assert load_prompts(path, mapping={"answer": "answers.0"})[0].prompts[0].answer == "x"


@pytest.mark.parametrize(
    ("mapping", "problem"),
    [
        ({"txt": "a"}, "there is no mapping field called 'txt'"),
        ({"text": "{a"}, "text: "),
        ({"text": "{}"}, "a template names its fields"),
        ({"text": "{a!r}"}, "only the name of a segment may stand"),
        ({"text": "{a:>5}"}, "only the name of a segment may stand"),
        ({"truth": "label", "options": ["a", "b"]}, "leave out `options` and `gold`"),
        ({"text": "}}{{"}, "no field"),
        ({"gold": "g"}, "`options` is needed"),
        ({"options": ["a", "b"], "gold_is": "letter"}, "needs `gold`"),
        ({"columns": ["a", "a"]}, "each name may occur once"),
        ({"strict": "perhaps"}, "strict: "),
        ("no-such.yaml", "there is no mapping file"),
        ("mgsn", "there is no mapping called 'mgsn'"),
        ("key=id stray", "'stray' is not key=value"),
        ("text='open", "mapping"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(own, mapping, problem):
    assert problem in refusal(own("p.jsonl", lines(row("a", "en"))), mapping=mapping)


@pytest.mark.parametrize(("name", "content"), [("m.yaml", "text: {a}\n{b}"), ("m.toml", "text = "), ("m.yaml", "- a"),
                                               ("m.yaml", b"\xff\xfe")])  # fmt: skip
def test_an_unreadable_mapping_file_is_refused(own, name, content):
    path = own(name, content)
    assert str(path) in refusal(own("p.jsonl", lines(row("a", "en"))), mapping=path)


def test_a_language_in_the_path_and_in_a_field_is_refused(own):
    path = own("p.en.csv", HEADER + "a,en,one\n")
    said = refusal(str(path).replace(".en.", ".{language}."), mapping={"language": "language"})
    assert "both the path and the field 'language' give the language" in said
