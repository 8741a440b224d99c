"""The wording of generated prompts: one TOML file per language, every file with the same keys."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from babelscope.errors import BabelScopeError

LANGUAGES = ("en", "de", "fr", "it", "es", "ru", "pl", "ar", "he", "fa", "zh", "ja", "hi", "sw")


class Word(str):
    """A word that prints as its base form and carries its other forms as attributes.

    A template asks for a form with `{a.acc}` and for the base form with `{a}`.
    """

    forms: Mapping[str, str]

    def __new__(cls, base: str, forms: Mapping[str, str] | None = None) -> "Word":
        """A word with its base form and, by name, its others."""
        word = super().__new__(cls, base)
        word.forms = dict(forms or {})
        return word

    def __getattr__(self, name: str) -> str:
        try:
            return self.forms[name]
        except KeyError:
            raise AttributeError(f"{self!s} has no form {name!r}") from None


@dataclass(frozen=True, slots=True)
class Wording:
    """Everything that the generators say in one language.

    Parameters
    ----------
    language : str
    table : mapping
        The TOML file as read.
    names, nouns, adjectives : mapping of str to Word
        Aligned vocabularies: the same keys in every language, distinct words within each.
    """

    language: str
    table: Mapping[str, Any]
    names: Mapping[str, Word]
    nouns: Mapping[str, Word]
    adjectives: Mapping[str, Word]

    def say(self, template: str, **values: object) -> str:
        """Fill in the template at a dotted key, as `say("logical.is", name=..., a=...)`."""
        node: Any = self.table
        for key in template.split("."):
            node = node[key]
        return str(node).format(**values)

    def list(self, words: Sequence[str]) -> str:
        """Words joined by the list separator of the language."""
        return str(self.table["list_separator"]).join(words)

    def numbers(self, values: Sequence[int]) -> str:
        """Numbers joined so that no reader takes them for one number with a thousands mark."""
        return str(self.table["number_separator"]).join(str(v) for v in values)

    def sentences(self, sentences: Sequence[str]) -> str:
        """Sentences joined with the spacing of the language."""
        return str(self.table["sentence_separator"]).join(sentences)


@cache
def wording(language: str) -> Wording:
    """Wording of one of the fourteen languages; BabelScopeError for any other."""
    if language not in LANGUAGES:
        problem = f"no prompts are generated in the language {language!r}"
        raise BabelScopeError(problem, f"choose from {', '.join(LANGUAGES)}")
    table = tomllib.loads(files("babelscope.datasets").joinpath("wording", f"{language}.toml").read_text("utf-8"))
    vocabularies = {name: _vocabulary(table[name]) for name in ("names", "nouns", "adjectives")}
    return Wording(language, table, **vocabularies)


def _vocabulary(entries: Mapping[str, str | Mapping[str, str]]) -> dict[str, Word]:
    return {
        key: Word(entry)
        if isinstance(entry, str)
        else Word(entry["base"], {f: w for f, w in entry.items() if f != "base"})
        for key, entry in entries.items()
    }
