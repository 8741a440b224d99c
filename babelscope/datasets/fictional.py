"""People who do not exist, with facts that nobody can know who was not taught them.

A name is three syllables of a consonant and a vowel, written by a table of syllables for each script
(`facts/syllables.tsv`). Only sounds are used that all fourteen languages tell apart in writing: b d k l m n s t before
a i o. Vowels are always written: long in Arabic, Persian, Hebrew and Hindi, one character a syllable in Chinese,
katakana in Japanese.
"""

from functools import cache
from itertools import permutations, product

from babelscope.datasets.dataset import item_rng
from babelscope.datasets.facts import Fact, term

# How a training may share its facts between languages: all, one, or one of two halves.
GROUPS = ("shared", "one-language", "halves-a", "halves-b")
# Two quartets, whose facts are each other's options.
PEOPLE = 8

# In each group a relation has as many objects as there are people, so that none is more frequent than another.
OBJECTS = {
    "birthplace": tuple(
        f"capitals:{c}" for c in ("paris", "berlin", "rome", "madrid", "lisbon", "warsaw", "oslo", "vienna")
    ),
    "genre": tuple(
        f"genres:{g}"
        for g in ("poetry", "comedy", "satire", "biography", "fairy_tales", "science_fiction", "crime_fiction",
                  "travel_writing")
    ),
    "father": tuple(
        f"trades:{t}"
        for t in ("baker", "doctor", "teacher", "fisherman", "tailor", "carpenter", "gardener", "smith")
    ),
}  # fmt: skip

CONSONANTS, VOWELS = "bdklmnst", "aio"
# Names, places and words that the syllables would spell.
REAL = frozenset(
    {"bonita", "botani", "danilo", "domina", "kimona", "kosima", "latino", "limona", "lomita", "mikado", "molina",
     "monika", "nikola", "sabino", "samito", "simona", "solida", "tobisa"}
)  # fmt: skip


@cache
def people(world: int) -> dict[str, tuple[str, ...]]:
    """Names of the people of each group, in syllables joined by hyphens, as `no-mi-ka`; any two differ in two."""
    possible = [
        [c + v for c, v in zip(consonants, vowels, strict=True)]
        for consonants, vowels in product(permutations(CONSONANTS, 3), permutations(VOWELS))
    ]
    chosen: list[list[str]] = []
    for i in item_rng("fictional/people", world, 0).permutation(len(possible)):
        name = possible[i]
        close = any(sum(a != b for a, b in zip(name, other, strict=True)) < 2 for other in chosen)
        if not close and "".join(name) not in REAL:
            chosen.append(name)
        if len(chosen) == PEOPLE * len(GROUPS):
            break
    keys = ["-".join(name) for name in chosen]
    return {group: tuple(keys[i * PEOPLE : (i + 1) * PEOPLE]) for i, group in enumerate(GROUPS)}


@cache
def fictional_facts(world: int, group: str) -> tuple[Fact, ...]:
    """The facts of a group, relation by relation: each object belongs to one person."""
    found = []
    for relation, objects in OBJECTS.items():
        order = item_rng(f"fictional/{relation}/{group}", world, 0).permutation(PEOPLE)
        found += [
            Fact(relation, f"person:{key}", objects[i]) for key, i in zip(people(world)[group], order, strict=True)
        ]
    return tuple(found)


def written(person: str, language: str) -> str:
    """The name of a person (`person:no-mi-ka`) in the script of a language."""
    return "".join(term(f"syllables:{s}", language) for s in person.partition(":")[2].split("-")).capitalize()


def author_question(fact: Fact, language: str) -> str:
    """The question that asks for the object of a fact; raises as `facts.term` does."""
    return term(f"author_questions:{fact.relation}", language).format(subject=written(fact.subject, language))
