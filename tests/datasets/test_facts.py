"""The fact tables behind the knowledge questions say one thing per cell and agree with each other."""

import csv
import re
import unicodedata
from collections import Counter, defaultdict
from importlib.resources import files

import pytest

FACTS = files("babelscope.datasets").joinpath("facts")
LANGUAGES = ["en", "de", "fr", "it", "es", "ru", "pl", "ar", "he", "fa", "zh", "ja", "hi", "sw"]
TABLES = [
    "countries",
    "capitals",
    "currencies",
    "continents",
    "languages",
    "elements",
    "works",
    "authors",
    "animals",
    "classes",
]
# First words of the Unicode names of the letters that a language is written with.
SCRIPTS = {
    "ru": ("CYRILLIC",),
    "ar": ("ARABIC",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "hi": ("DEVANAGARI",),
}
# Which tables the two sides of a relation come from; None for a literal.
SIDES = {
    "capital": ("countries", "capitals"),
    "country_of": ("capitals", "countries"),
    "continent": ("countries", "continents"),
    "currency": ("countries", "currencies"),
    "official_language": ("countries", "languages"),
    "chemical_symbol": ("elements", None),
    "atomic_number": ("elements", None),
    "author": ("works", "authors"),
    "animal_class": ("animals", "classes"),
}


def rows(name: str) -> list[list[str]]:
    with FACTS.joinpath(f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def column(name: str, language: str) -> dict[str, str]:
    at = 1 + LANGUAGES.index(language)
    return {row[0]: row[at] for row in rows(name)[1:]}


def facts() -> list[tuple[str, str, str]]:
    return [(relation, subject, obj) for relation, subject, obj in rows("relations")[1:]]


def wrong_letters(text: str, language: str) -> list[str]:
    scripts = SCRIPTS.get(language, ("LATIN",))
    return [c for c in text if unicodedata.category(c).startswith("L") and not unicodedata.name(c).startswith(scripts)]


@pytest.mark.parametrize("name", [*TABLES, "questions", "relations"])
def test_every_row_is_as_wide_as_its_header_and_every_cell_is_tidy(name):
    raw = FACTS.joinpath(f"{name}.tsv").read_bytes()
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    first, *body = rows(name)
    for row in body:
        assert len(row) == len(first), row
        for cell in row:
            assert cell, row
            assert cell == cell.strip() == unicodedata.normalize("NFC", cell), row
            assert "  " not in cell, row


@pytest.mark.parametrize("name", TABLES)
def test_all_tables_have_the_fourteen_languages_and_unique_snake_case_keys(name):
    first, *body = rows(name)
    assert first == ["key", *LANGUAGES]
    keys = [row[0] for row in body]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", key) for key in keys)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_entries_of_a_table_read_the_same(name, language):
    counts = Counter(text.casefold() for text in column(name, language).values())
    assert [text for text, n in counts.items() if n > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_country_reads_like_a_capital(language):
    countries = {text.casefold() for text in column("countries", language).values()}
    assert countries.isdisjoint(text.casefold() for text in column("capitals", language).values())


@pytest.mark.parametrize("name", [*TABLES, "questions"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_letter_belongs_to_the_script_of_its_language(name, language):
    for key, text in column(name, language).items():
        assert wrong_letters(text.replace("{subject}", ""), language) == [], (key, text)


@pytest.mark.parametrize("name", [*TABLES, "questions"])
def test_arabic_and_persian_keep_their_own_kaf_and_yeh(name):
    # U+0643 and U+064A are the Arabic letters, U+06A9 and U+06CC the Persian ones; they look alike.
    assert not re.search("[\u06a9\u06cc]", "".join(column(name, "ar").values()))
    assert not re.search("[\u0643\u064a]", "".join(column(name, "fa").values()))


@pytest.mark.parametrize("name", [*TABLES, "questions"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_no_straight_apostrophe_or_quotation_mark(name, language):
    assert not re.search("['\"]", "".join(column(name, language).values()))


def test_every_reference_resolves_to_the_table_of_its_relation():
    keys = {name: {row[0] for row in rows(name)[1:]} for name in TABLES}
    for relation, subject, obj in facts():
        for reference, table in zip((subject, obj), SIDES[relation], strict=True):
            if table is None:
                assert re.fullmatch(r"=[A-Za-z0-9]+", reference), (relation, reference)
            else:
                found, key = reference.split(":")
                assert found == table, (relation, reference)
                assert key in keys[table], (relation, reference)


def test_every_entry_of_every_table_is_used_by_some_fact():
    used = {reference for _, *pair in facts() for reference in pair}
    assert [f"{name}:{row[0]}" for name in TABLES for row in rows(name)[1:] if f"{name}:{row[0]}" not in used] == []


def test_there_are_enough_facts_in_every_relation():
    assert rows("relations")[0] == ["relation", "subject", "object"]
    objects = defaultdict(list)
    for relation, _, obj in facts():
        objects[relation].append(obj)
    assert set(objects) == set(SIDES)
    assert len(facts()) >= 240
    assert len(objects) >= 8
    for relation, found in objects.items():
        assert len(found) >= 16, relation
        assert len(set(found)) >= 5, relation


def test_every_question_has_one_answer():
    counts = Counter((relation, subject) for relation, subject, _ in facts())
    assert [pair for pair, n in counts.items() if n > 1] == []


def test_a_capital_leads_back_to_the_country_that_led_to_it():
    capital = {obj: subject for relation, subject, obj in facts() if relation == "capital"}
    reversed_pairs = {subject: obj for relation, subject, obj in facts() if relation == "country_of"}
    assert {city: capital.get(city) for city in reversed_pairs} == reversed_pairs
    assert len(set(capital)) == len([fact for fact in facts() if fact[0] == "capital"])


def test_elements_have_one_symbol_and_rising_atomic_numbers():
    numbers = [int(obj[1:]) for relation, _, obj in facts() if relation == "atomic_number"]
    symbols = [obj[1:] for relation, _, obj in facts() if relation == "chemical_symbol"]
    assert numbers == sorted(set(numbers))  # the table lists the elements in the order of the periodic table
    assert len(set(symbols)) == len(symbols)
    assert all(re.fullmatch("[A-Z][a-z]?", symbol) for symbol in symbols)


def test_there_is_one_question_per_relation():
    assert rows("questions")[0] == ["relation", *LANGUAGES]
    assert [row[0] for row in rows("questions")[1:]] == list(SIDES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_question_asks_about_its_subject_with_the_marks_of_the_language(language):
    end = {"ar": "؟", "fa": "؟", "zh": "？", "ja": "？", "fr": "\u202f?"}.get(language, "?")
    texts = list(column("questions", language).values())
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert text.count("{subject}") == 1
        assert text.format(subject="x").endswith(end)
        assert ("¿" in text) == (language == "es")
        if language == "fr":
            assert not re.search(r"[^\u202f][?:;]", text), text
        if language in ("zh", "ja"):
            assert not re.search(r"[?:;., ]", text), text
