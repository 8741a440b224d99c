"""Which statements follow from which: an independent solver for the logical task.

It knows nothing of how problems are made: it reads statements, or the English text of a prompt, grounds
universal statements over the names that occur, and decides entailment by refutation (DPLL).

A statement is a tuple of strings, its form first:
`("is", name, a)`, `("not", name, a)`, `("and", name, a, b)`, `("or", name, a, b)`,
`("so", name, a, b)` (if the one is a, then he is b), `("any", a, b)` (everyone who is a is b).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TypeAlias

from babelscope.datasets.words import wording
from babelscope.schema import Prompt

Statement: TypeAlias = tuple[str, ...]
Atom: TypeAlias = tuple[str, str]
Literal: TypeAlias = tuple[Atom, bool]
Clause: TypeAlias = frozenset[Literal]

# Someone of whom nothing is said but what holds for everyone; no name is empty.
ANYONE = ""


def is_consistent(premises: Iterable[Statement]) -> bool:
    """Whether all premises can be true at once."""
    premises = list(premises)
    return _satisfiable(_clauses(premises, _names(premises)))


def is_entailed(premises: Iterable[Statement], statement: Statement) -> bool:
    """Whether the statement is true wherever all premises are (always, if the premises are inconsistent)."""
    premises = list(premises)
    names = _names([*premises, statement])
    return not _satisfiable(_clauses(premises, names) | _negation(statement))


def entailed_options(premises: Sequence[Statement], options: Sequence[Statement]) -> tuple[int, ...]:
    """Indices of the options that follow from the premises."""
    return tuple(i for i, option in enumerate(options) if is_entailed(premises, option))


def solve_logical(prompt: Prompt) -> tuple[int, ...]:
    """Indices of all options of an English prompt that follow from its context.

    Raises
    ------
    ValueError
        If a sentence has none of the known forms, or there is none in a segment `context`.
    """
    premises = read_statements(prompt.segment("context"))
    if not premises:
        raise ValueError(f"no premises: {prompt.text!r}")
    return entailed_options(premises, [read_statement(o) for o in prompt.options])


def read_statements(text: str) -> list[Statement]:
    """The statements of an English text of several sentences."""
    return [read_statement(sentence) for sentence in re.findall(r"[^.]+\.", text)]


def read_statement(sentence: str) -> Statement:
    """The statement that an English sentence makes; ValueError if it has none of the known forms."""
    for form, pattern in _english_patterns().items():
        found = pattern.fullmatch(sentence.strip())
        if found:
            parts = found.groupdict()
            return (form, *(parts[k] for k in ("name", "a", "b") if k in parts))
    raise ValueError(f"no statement of a known form: {sentence!r}")


@cache
def _english_patterns() -> Mapping[str, re.Pattern[str]]:
    templates = wording("en").table["logical"]
    return {form: _pattern(templates[form]) for form in ("is", "not", "and", "or", "so", "any")}


def _pattern(template: str) -> re.Pattern[str]:
    """Pattern of a template; a field that occurs twice must be filled in alike."""
    pattern, seen = "", set()
    for literal, field in re.findall(r"([^{}]*)(?:\{(\w+)[^}]*\})?", template):
        pattern += re.escape(literal)
        if field:
            # A word that means something else, like "not", is no name and no property.
            pattern += f"(?P={field})" if field in seen else rf"(?P<{field}>(?!not\b)[\w-]+)"
            seen.add(field)
    return re.compile(pattern)


def _names(statements: Iterable[Statement]) -> frozenset[str]:
    return frozenset(s[1] for s in statements if s[0] != "any") | {ANYONE}


def _clauses(premises: Iterable[Statement], names: Iterable[str]) -> frozenset[Clause]:
    names = list(names)
    clauses: set[Clause] = set()
    for form, *words in premises:
        if form == "any":
            a, b = words
            clauses |= {frozenset({((n, a), False), ((n, b), True)}) for n in names}
            continue
        name, a, *rest = words
        if form == "is":
            clauses.add(frozenset({((name, a), True)}))
        elif form == "not":
            clauses.add(frozenset({((name, a), False)}))
        elif form == "and":
            clauses |= {frozenset({((name, c), True)}) for c in (a, *rest)}
        elif form == "or":
            clauses.add(frozenset(((name, c), True) for c in (a, *rest)))
        elif form == "so":
            clauses.add(frozenset({((name, a), False), ((name, rest[0]), True)}))
        else:
            raise ValueError(f"no such form of a statement: {form!r}")
    return frozenset(clauses)


def _negation(statement: Statement) -> frozenset[Clause]:
    form, *words = statement
    if form == "any":
        return _negation(("so", ANYONE, *words))
    name, a, *rest = words
    signs = {"is": [False], "not": [True], "or": [False, False], "so": [True, False]}
    if form == "and":
        return frozenset({frozenset(((name, c), False) for c in (a, *rest))})
    return frozenset(frozenset({((name, c), s)}) for c, s in zip((a, *rest), signs[form], strict=True))


def _satisfiable(clauses: frozenset[Clause]) -> bool:
    """DPLL: propagate what is forced, then try both values of one atom."""
    while True:
        if any(not clause for clause in clauses):
            return False
        unit = next((clause for clause in clauses if len(clause) == 1), None)
        if unit is None:
            break
        clauses = _given(clauses, next(iter(unit)))
    if not clauses:
        return True
    atom, sign = next(iter(next(iter(clauses))))
    return any(_satisfiable(_given(clauses, (atom, value))) for value in (sign, not sign))


def _given(clauses: frozenset[Clause], literal: Literal) -> frozenset[Clause]:
    atom, sign = literal
    return frozenset(clause - {(atom, not sign)} for clause in clauses if literal not in clause)
