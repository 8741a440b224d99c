"""Facts in fourteen languages: pairs of terms that stand in a relation, and a question for each relation."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from babelscope.errors import BabelScopeError

TERM_TABLES = (
    "countries", "capitals", "continents", "languages", "currencies", "elements", "animals", "classes", "authors",
    "works", "genres", "trades",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fact:
    """A subject and the one object that it has in a relation.

    Parameters
    ----------
    relation : str
        A row of `questions.tsv`.
    subject, object : str
        References: `table:key` to a term, or `=text` for what is written alike in every language.
    """

    relation: str
    subject: str
    object: str


@cache
def facts() -> tuple[Fact, ...]:
    """All facts, in the order of `relations.tsv`."""
    return tuple(Fact(row["relation"], row["subject"], row["object"]) for row in _rows("relations"))


@cache
def fact_languages() -> tuple[str, ...]:
    """Languages in which every fact can be asked."""
    return tuple(name for name in _rows("questions")[0] if name != "relation")


def term(reference: str, language: str) -> str:
    """How a subject or an object is written in a language.

    Raises
    ------
    BabelScopeError
        If there are no facts in the language.
    KeyError
        If the reference leads nowhere: a slip in the tables, not of the user.
    """
    if reference.startswith("="):
        return reference[1:]
    table, _, key = reference.partition(":")
    return _text(table, "key", key, language)


@cache
def terms() -> tuple[Mapping[str, str], ...]:
    """Every term that facts are about, by language, in the order of the tables; the key of each stands under `key`."""
    return tuple(row for table in TERM_TABLES for row in _rows(table))


def fact_question(fact: Fact, language: str) -> str:
    """The question that asks for the object of a fact; raises as `term` does."""
    return _text("questions", "relation", fact.relation, language).format(subject=term(fact.subject, language))


def _text(table: str, column: str, key: str, language: str) -> str:
    try:
        return _index(table, column)[key][language]
    except KeyError:
        if language not in fact_languages():
            problem = f"there are no facts in the language {language!r}"
            raise BabelScopeError(problem, f"choose from {', '.join(fact_languages())}") from None
        raise


@cache
def _index(table: str, column: str) -> Mapping[str, Mapping[str, str]]:
    return {row[column]: row for row in _rows(table)}


@cache
def _rows(table: str) -> tuple[Mapping[str, str], ...]:
    text = files("babelscope.datasets").joinpath("facts", f"{table}.tsv").read_text("utf-8")
    return tuple(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
