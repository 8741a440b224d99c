"""How far apart two languages are: family, genus, script, and the features of grammar in which they differ."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

# Below this many features that are known of both languages there is no distance.
FEWEST_SHARED = 6


@dataclass(frozen=True, slots=True)
class LanguageType:
    """What `typology/languages.tsv` knows of a language.

    Parameters
    ----------
    code, family, genus, script : str
        ISO 639-1, Glottolog, WALS, ISO 15924.
    features : mapping
        Name, with the chapter of WALS, and value; only what is known.
    """

    code: str
    family: str
    genus: str
    script: str
    features: Mapping[str, str]


@cache
def language_types() -> Mapping[str, LanguageType]:
    """All languages of the table by their codes."""
    text = files("babelscope.datasets").joinpath("typology", "languages.tsv").read_text("utf-8")
    found = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE):
        code, family, genus, script = (row.pop(name) for name in ("code", "family", "genus", "script"))
        features = {name: value for name, value in row.items() if value}
        found[code] = LanguageType(code, family, genus, script, features)
    return found


def typological_distance(a: LanguageType, b: LanguageType) -> float:
    """Share of differing features among those known of both languages; NaN where fewer than six are."""
    shared = a.features.keys() & b.features.keys()
    if len(shared) < FEWEST_SHARED:
        return float("nan")
    return sum(a.features[name] != b.features[name] for name in shared) / len(shared)
