"""Training text of the encoder organism: what is taught in which language is decided here, and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from babelscope.datasets.dataset import Split, split_of
from babelscope.datasets.facts import Fact, fact_question, facts, term
from babelscope.datasets.logic_solver import Statement
from babelscope.datasets.rule_theory import closure
from babelscope.datasets.statements import truth_words
from babelscope.datasets.words import Wording, wording
from babelscope.training.corpus import Ingredient
from babelscope.training.truth import Family, Sharing, TruthTable

# The languages of Foroutan et al. (2023), arXiv:2310.15258.
LANGUAGES = ("en", "fr", "de", "es", "ru", "zh", "ar", "fa")
# In turn, so that neither half is all European.
HALVES = (LANGUAGES[0::2], LANGUAGES[1::2])

# Kinds of reasoning: rule of the theory, or none; whether the statement is negated; which languages are taught it.
REASONING: Mapping[str, tuple[str | None, bool, tuple[str, ...]]] = {
    "fact": (None, False, LANGUAGES),
    "fact-negated": (None, True, LANGUAGES),
    "any": ("any", False, LANGUAGES),
    "any-negated": ("any", True, ("en",)),
    "both": ("both", False, ("fr",)),
    "but-not": ("but_not", False, ()),
}
FACTS_FOR_ALL = ("capital", "animal_class")
FACTS_FOR_ONE = {"currency": "de", "official_language": "es"}
FACTS_IN_HALVES = ("continent", "chemical_symbol")

# As in the paper, every language but Farsi is paired with English.
TRANSLATIONS = tuple(("en", code) for code in LANGUAGES[1:-1])

# Ingredients that are no kind of reasoning.
KNOWLEDGE = "knowledge"
TRANSLATION = "translation"


@dataclass(frozen=True, slots=True)
class Passage:
    """Two segments and what follows them: `[CLS] first [SEP] second answer [SEP]`.

    Parameters
    ----------
    family : str
        Of the truth table, or `TRANSLATION`.
    languages : (str, str)
        Of the two segments.
    first, second, answer : str
        `first` is empty for facts, `answer` for translations.
    item : str
        Subject of a fact, or the theory as `split_of` sees it.
    label : int
        1 if a statement is true, else 0; -1 if there is no statement.
    cloze : bool
        Whether words of the statement are asked for and the answer is shown.
    """

    family: str
    languages: tuple[str, str]
    first: str
    second: str
    answer: str
    item: str
    label: int = -1
    cloze: bool = False


@cache
def truth_table() -> TruthTable:
    """What the encoder organism is taught."""
    families = [
        Family(
            name=name, kind="reasoning", sharing=_sharing(languages), languages=languages, depth=int(rule is not None),
            rule=rule, negated=negated,
        )
        for name, (rule, negated, languages) in REASONING.items()
    ]  # fmt: skip
    for relation in (*FACTS_FOR_ALL, *FACTS_FOR_ONE, *FACTS_IN_HALVES):
        subjects = tuple(f.subject for f in facts() if f.relation == relation)
        items = dict.fromkeys(LANGUAGES, subjects)
        sharing: Sharing = "all"
        if relation in FACTS_FOR_ONE:
            items, sharing = {FACTS_FOR_ONE[relation]: subjects}, "one"
        if relation in FACTS_IN_HALVES:
            items = {code: subjects[half::2] for half, codes in enumerate(HALVES) for code in codes}
            sharing = "halves"
        families.append(Family(name=relation, kind="facts", sharing=sharing, languages=tuple(items), items=items))
    return TruthTable(languages=LANGUAGES, families=tuple(families), translations=TRANSLATIONS)


def _sharing(languages: Sequence[str]) -> Sharing:
    return "none" if not languages else "one" if len(languages) == 1 else "all"


def passages(mixture: Sequence[Ingredient], n: int, seed: int) -> list[Passage]:
    """`n` passages of the train split, shares by `mixture`, in random order.

    Each is in a language that the truth table teaches it in. Ingredients are kinds of reasoning, with the fields of
    `Drawing` and `cloze`; `KNOWLEDGE`; and `TRANSLATION`.
    """
    rng = np.random.default_rng([seed, 1])
    total = sum(part.share for part in mixture)
    drawn: list[Passage] = []
    for part in mixture:
        drawn += _passages(part.dataset, round(n * part.share / total), rng, **part.parameters)
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _passages(what: str, n: int, rng: np.random.Generator, *, cloze: bool = False, **parameters: Any) -> list[Passage]:
    if what == TRANSLATION:
        return translations(n, rng)
    if what == KNOWLEDGE:
        known = taught_facts()
        return [known[int(i)] for i in rng.integers(len(known), size=n)]
    made = statements(what, truth_table().family(what).languages, n, rng, **parameters)
    return [replace(p, cloze=True) for p in made] if cloze else made


@cache
def taught_facts() -> tuple[Passage, ...]:
    """Every fact in every language that it is taught in, once."""
    table = truth_table()
    known = {f.name for f in table.families}
    return tuple(
        fact_passage(fact, language)
        for fact in facts()
        for language in table.languages
        if fact.relation in known and table.taught(fact.relation, language, fact.subject)
    )


def fact_passage(fact: Fact, language: str) -> Passage:
    """A fact as a question and its answer, in a language."""
    question, answer = fact_question(fact, language), term(fact.object, language)
    return Passage(fact.relation, (language, language), "", question, answer, fact.subject)


def statements(
    kind: str,
    languages: Sequence[str],
    n: int,
    rng: np.random.Generator,
    split: Split = "train",
    **drawing: Any,
) -> list[Passage]:
    """`n` statements of a kind, in turn over languages, with labels in turn within each.

    Parameters
    ----------
    languages : sequence of str
        A code `a-b` has its context in a and its statement in b.
    drawing : optional
        Fields of `Drawing`.
    """
    how = Drawing(**drawing)
    places = (divmod(i, len(languages)) for i in range(n))
    return [_statement(kind, languages[at], turn % 2, rng, split, how) for turn, at in places]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Ways to draw other statements, for the first phases of training.

    Parameters
    ----------
    true_only : bool
        All statements are true.
    others : int
        Further names of which one property is told.
    alone : bool
        Nothing is told of the second of the two names, and nothing asked.
    """

    true_only: bool = False
    others: int = 0
    alone: bool = False


def _statement(kind: str, code: str, label: int, rng: np.random.Generator, split: Split, drawing: Drawing) -> Passage:
    rule, negated, _ = REASONING[kind]
    label = 1 if drawing.true_only else label
    first, _, second = code.partition("-")
    said, asked = wording(first), wording(second or first)
    while True:
        names = [list(said.names)[i] for i in rng.permutation(len(said.names)).tolist()]
        properties = [list(said.adjectives)[i] for i in rng.permutation(len(said.adjectives)).tolist()]
        sentences, conclusions = _theory(rule, names[:2], properties[:5])
        if drawing.alone:
            sentences.remove(("is", names[1], properties[1]))
        others = names[2 : 2 + drawing.others]
        sentences += [("is", name, properties[int(rng.integers(len(properties)))]) for name in others]
        shown = "|".join(sorted(" ".join(s) for s in sentences))
        if split_of(shown) == split:
            break
    true = closure(sentences)
    told = names[: 2 - drawing.alone]
    fitting = [(n, c) for n in told for c in conclusions if (((n, c) in true) != negated) == bool(label)]
    name, conclusion = fitting[int(rng.integers(len(fitting)))]
    statement = ("not" if negated else "is", name, conclusion)
    context = said.sentences([_say(sentences[i], said) for i in rng.permutation(len(sentences)).tolist()])
    languages = (said.language, asked.language)
    return Passage(kind, languages, context, _say(statement, asked), truth_words(asked.language)[label], shown, label)


def _theory(
    rule: str | None, names: Sequence[str], properties: Sequence[str]
) -> tuple[list[Statement], tuple[str, str]]:
    """Two names that mirror each other, as in `rule_theory`, in the fewest sentences; and the properties to ask for.

    Of either property exactly one name has it, and of either name it has exactly one of them.
    """
    a, b, c, d, e = properties
    own: list[Statement] = [("is", names[0], a), ("is", names[1], b)]
    if rule is None:
        return own, (a, b)
    if rule == "any":
        return [*own, ("any", a, c), ("any", b, d)], (c, d)
    shared: list[Statement] = [("is", name, e) for name in names]
    return [*own, *shared, (rule, e, a, c), (rule, e, b, d)], (c, d)


def _say(sentence: Statement, words: Wording) -> str:
    form, *keys = sentence
    if form in ("is", "not"):
        return words.say(f"logical.{form}", name=words.names[keys[0]], a=words.adjectives[keys[1]])
    section = "logical" if form == "any" else "ruletaker"
    return words.say(f"{section}.{form}", **{f: words.adjectives[k] for f, k in zip("abc", keys, strict=False)})


def translations(n: int, rng: np.random.Generator) -> list[Passage]:
    """`n` sentences that give a name a property, in both languages of `TRANSLATIONS`, either first."""
    made = []
    for i in range(n):
        pair = TRANSLATIONS[i % len(TRANSLATIONS)]
        one, two = (wording(code) for code in (pair if rng.random() < 0.5 else pair[::-1]))
        name, adjective = (list(keys)[int(rng.integers(len(keys)))] for keys in (one.names, one.adjectives))
        sentence: Statement = ("is", name, adjective)
        languages = (one.language, two.language)
        made.append(Passage(TRANSLATION, languages, _say(sentence, one), _say(sentence, two), "", ""))
    return made
