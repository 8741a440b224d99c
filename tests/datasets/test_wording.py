"""Promises that the wording files keep, in every language."""

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "babelscope" / "datasets" / "wording"
LANGUAGES = ("en", "de", "fr", "it", "es", "ru", "pl", "ar", "he", "fa", "zh", "ja", "hi", "sw")
TABLES: dict[str, dict[str, Any]] = {p.stem: tomllib.loads(p.read_text("utf-8")) for p in FOLDER.glob("*.toml")}
VOCABULARIES = ("names", "nouns", "adjectives")
STATEMENTS = ("is", "not", "and", "or", "any", "so")

SCRIPTS = {
    "ru": {"CYRILLIC"},
    "ar": {"ARABIC"},
    "fa": {"ARABIC"},
    "he": {"HEBREW"},
    "hi": {"DEVANAGARI"},
    "zh": {"CJK"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"},
}
FULL_STOP = {"hi": "।", "zh": "。", "ja": "。"}
NARROW = "\u202f"  # no-break space before French marks
TATWEEL_AND_DIGITS = re.compile(r"[\u0640\u0660-\u0669\u06f0-\u06f9\u0966-\u096f]")
# Persian letters that Arabic writes with another code point, and the other way round.
FOREIGN_LETTERS = {"ar": "یکپچژگ", "fa": "يكىة"}

each_language = pytest.mark.parametrize("language", LANGUAGES)


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, list):
        for i, item in enumerate(node):
            yield from leaves(item, f"{path}[{i}]")
    else:
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else key)


def keys(table: dict[str, Any]) -> list[str]:
    """Paths without the forms of words, in order."""
    found = (re.sub(rf"^({'|'.join(VOCABULARIES)})\.(\w+)\..*", r"\1.\2", path) for path, _ in leaves(table))
    return list(dict.fromkeys(found))


def base(entry: str | dict[str, str]) -> str:
    return entry if isinstance(entry, str) else entry["base"]


def words(language: str, vocabulary: str) -> list[str]:
    return [base(entry) for entry in TABLES[language][vocabulary].values()]


def fields(template: str) -> list[str]:
    return re.findall(r"\{([\w.]+)\}", template)


def test_there_is_one_file_for_each_of_the_fourteen_languages() -> None:
    assert set(TABLES) == set(LANGUAGES)


@each_language
def test_every_file_has_the_keys_of_the_english_one_in_the_same_order(language: str) -> None:
    assert keys(TABLES[language]) == keys(TABLES["en"])


@each_language
def test_templates_have_the_same_placeholders_equally_often_but_for_forms(language: str) -> None:
    english = dict(leaves(TABLES["en"]))
    for path, template in leaves(TABLES[language]):
        if path.split(".")[0] not in VOCABULARIES:
            assert Counter(f.split(".")[0] for f in fields(template)) == Counter(fields(english[path])), path


@each_language
def test_operands_of_a_statement_stand_in_the_same_order_as_in_english(language: str) -> None:
    for key in (*STATEMENTS, *TABLES["en"]["symbolic"]["steps"]):
        template, english = (
            (TABLES[code]["logical"] | TABLES[code]["symbolic"]["steps"])[key] for code in (language, "en")
        )
        ordered = [f.split(".")[0] for f in fields(template) if f.split(".")[0] in ("a", "b", "first", "second")]
        assert ordered == [f for f in fields(english) if f in ("a", "b", "first", "second")], key


@each_language
def test_vocabularies_have_their_full_size(language: str) -> None:
    assert [len(words(language, v)) for v in VOCABULARIES] == [12, 60, 48]


@each_language
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_no_two_words_of_a_vocabulary_can_be_taken_for_each_other(language: str, vocabulary: str) -> None:
    folded = [w.casefold() for w in words(language, vocabulary)]
    assert [w for w, n in Counter(folded).items() if n > 1] == []
    clashes = [
        (short, long)
        for short in folded
        for long in folded
        if short != long and (f" {short} " in f" {long} " or (language in ("zh", "ja") and short in long))
    ]
    assert clashes == []


@each_language
def test_names_and_nouns_are_single_words(language: str) -> None:
    assert [w for v in ("names", "nouns") for w in words(language, v) if " " in w] == []


@each_language
def test_all_letters_belong_to_the_script_of_the_language(language: str) -> None:
    scripts = SCRIPTS.get(language, {"LATIN"})
    for path, text in leaves(TABLES[language]):
        for c in re.sub(r"\{[\w.]+\}", "", text):
            # Letters and vowel signs; the Arabic marks shared between scripts are named ARABIC themselves.
            if unicodedata.category(c)[0] in "LM":
                assert unicodedata.name(c).split()[0] in scripts, (path, text, c)
        assert not set(text) & set(FOREIGN_LETTERS.get(language, "")), (path, text)
        assert not TATWEEL_AND_DIGITS.search(text), (path, text)


@each_language
def test_all_words_have_at_least_one_letter_of_the_language(language: str) -> None:
    for vocabulary in VOCABULARIES:
        assert all(any(c.isalpha() for c in w) for w in words(language, vocabulary))


@each_language
def test_text_is_composed_and_has_no_stray_spaces(language: str) -> None:
    for path, text in leaves(TABLES[language]):
        assert unicodedata.is_normalized("NFC", text), path
        # U+200C joins the parts of Persian words; no other invisible character has a use.
        allowed = {" ", NARROW} if language == "fr" else {" ", "\u200c"} if language == "fa" else {" "}
        invisible = {c for c in text if unicodedata.category(c) in ("Zs", "Cf", "Cc")}
        assert invisible <= allowed, (path, text)
        assert not re.search(r"\s\s|\s[.,:;!?)\]؟،؛。、：；？！）।”]", text.replace(NARROW, "")), (path, text)
        if not path.endswith("_separator"):
            assert text == text.strip(" "), (path, text)


@each_language
def test_only_chinese_and_japanese_put_no_space_after_sentences_and_marks(language: str) -> None:
    table, unspaced = TABLES[language], language in ("zh", "ja")
    assert table["sentence_separator"] == ("" if unspaced else " ")
    for name in ("list_separator", "number_separator"):
        assert table[name].endswith(" ") is not unspaced
    if unspaced:
        assert not [path for path, text in leaves(table) if " " in text]


def test_french_has_a_narrow_no_break_space_before_its_double_marks_only() -> None:
    for path, text in leaves(TABLES["fr"]):
        assert not re.search(rf"(?<!{NARROW})[:;?!»]|«(?!{NARROW})", text), (path, text)
        assert not re.search(rf"(?<!«){NARROW}(?![:;?!»])", text), (path, text)


@each_language
def test_statements_end_with_the_full_stop_and_questions_with_the_question_mark(language: str) -> None:
    table, stop = TABLES[language], FULL_STOP.get(language, ".")
    stopped = [table["logical"][form] for form in STATEMENTS]
    stopped += [table["shell"]["instruction"], table["symbolic"]["input"], table["symbolic"]["step"]]
    stopped += [table["arithmetic"]["rule"], table["arithmetic"]["input"]]
    assert [s for s in stopped if not s.endswith(stop)] == []
    asked = [table[section]["question"] for section in ("arithmetic", "symbolic", "logical")]
    assert [s for s in asked if not s.endswith(table["question_mark"])] == []


@each_language
def test_a_full_stop_ends_a_sentence_and_nothing_else(language: str) -> None:
    # Readers of prompts split contexts into sentences at full stops.
    for section, entry in TABLES[language].items():
        if section in ("logical", *VOCABULARIES):
            for path, text in leaves(entry):
                inner = re.sub(r"\{[\w.]+\}", "", text)[:-1].rstrip(NARROW)
                assert not re.search(r"[.!?؟。？！।;:]", inner), (path, text)


@each_language
def test_numbers_are_separated_by_more_than_a_comma_or_space(language: str) -> None:
    assert not set(TABLES[language]["number_separator"]) <= set(" ,.،٬٫،、' " + NARROW)


@each_language
def test_words_have_exactly_the_forms_that_templates_ask_for(language: str) -> None:
    table = TABLES[language]
    asked = {f.split(".")[1] for _, text in leaves(table["logical"]) for f in fields(text) if "." in f}
    for entry in table["adjectives"].values():
        forms = set() if isinstance(entry, str) else set(entry) - {"base"}
        assert forms == asked, entry
    for vocabulary in ("names", "nouns"):
        assert all(isinstance(entry, str) for entry in table[vocabulary].values())
    # A name stands in the nominative everywhere.
    assert not [f for _, text in leaves(table) for f in fields(text) if f.startswith("name.")]


@each_language
def test_there_are_four_different_native_letters(language: str) -> None:
    letters = TABLES[language]["shell"]["native_letters"]
    assert len(set(letters)) == len(letters) == 4


@each_language
def test_every_statement_about_the_same_words_reads_differently(language: str) -> None:
    name, (a, b) = words(language, "names")[0], words(language, "adjectives")[:2]
    said = {
        re.sub(r"\{(\w+)(\.\w+)?\}", lambda f: {"name": name, "a": a, "b": b}[f[1]], TABLES[language]["logical"][form])
        for form in STATEMENTS
    }
    assert len(said) == len(STATEMENTS)


def test_no_word_changes_the_conjunction_before_it() -> None:
    # Spanish y and o become e and u, Italian e becomes ed.
    assert [w for w in words("es", "adjectives") if re.match(r"h?[ioíó]", w)] == []
    assert [w for w in words("it", "adjectives") if re.match(r"[eè]", w)] == []


def test_no_adjective_is_itself_a_negation() -> None:
    prefixes = {"en": ("un", "dis", "in"), "de": ("un",), "ru": ("не",), "pl": ("nie",), "zh": ("不", "无")}
    assert [w for code, starts in prefixes.items() for w in words(code, "adjectives") if w.startswith(starts)] == []


def test_arabic_accusatives_are_the_base_with_tanwin() -> None:
    assert all(entry["acc"] == entry["base"] + "ًا" for entry in TABLES["ar"]["adjectives"].values())


def test_adjectives_that_show_their_gender_are_masculine() -> None:
    feminine = {"it": ("a",), "es": ("a",), "fr": ("euse", "ée"), "ru": ("ая",), "pl": ("a",), "ar": ("ة",)}
    unchanging = {"patriota"}
    for language, endings in feminine.items():
        found = [w for w in words(language, "adjectives") if w.endswith(endings) and w not in unchanging]
        assert found == [], language


def test_a_noun_to_insert_is_called_a_word_where_it_would_stand_in_the_accusative() -> None:
    for language, called in {"ru": "слово «{word}»", "pl": "słowo „{word}”"}.items():
        assert called in TABLES[language]["symbolic"]["steps"]["insert"]
