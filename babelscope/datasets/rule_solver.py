"""Whether a statement holds in a theory of facts and rules: an independent solver that reads English text.

It knows nothing of how theories are made. To prove a property of a name it looks for a fact, or for a rule whose
conditions it can prove in turn; what cannot be proved is false (negation as failure).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from babelscope.datasets.words import wording
from babelscope.schema import Prompt


@dataclass(frozen=True, slots=True)
class Rule:
    """Everyone with all properties of `needs` and none of `lacks` has the property `then`."""

    needs: tuple[str, ...]
    lacks: tuple[str, ...]
    then: str


@dataclass(frozen=True, slots=True)
class Program:
    """What a text says: facts as (name, property), and rules."""

    facts: frozenset[tuple[str, str]]
    rules: tuple[Rule, ...]

    def proves(self, name: str, wanted: str, open_goals: frozenset[str] = frozenset()) -> bool:
        """Whether a name has a property; a goal that would be its own condition is not proved by that."""
        if (name, wanted) in self.facts:
            return True
        goals = open_goals | {wanted}
        return any(
            rule.then == wanted
            and not goals & {*rule.needs, *rule.lacks}
            and all(self.proves(name, a, goals) for a in rule.needs)
            and not any(self.proves(name, a, goals) for a in rule.lacks)
            for rule in self.rules
        )


def solve_ruletaker(prompt: Prompt) -> tuple[int, ...]:
    """The label (0 or 1) of an English prompt, alone in a tuple, from its context and question.

    Raises
    ------
    ValueError
        If a sentence has none of the known forms.
    """
    program = read_program(re.findall(r"[^.]+\.", prompt.segment("context")))
    found = _facts().fullmatch(prompt.segment("question"))
    if found is None:
        raise ValueError(f"no statement of a known form: {prompt.segment('question')!r}")
    name, negation, wanted = found.groups()
    return (int(program.proves(name, wanted) != bool(negation)),)


def read_program(sentences: Sequence[str]) -> Program:
    """Facts and rules of English sentences; ValueError if one has none of the known forms."""
    facts, rules = set(), []
    for sentence in map(str.strip, sentences):
        if found := re.fullmatch(r"Everyone who is (.+) is (\w+)\.", sentence):
            conditions = found[1].split(" and ")
            lacks = tuple(c.removeprefix("not ") for c in conditions if c.startswith("not "))
            rules.append(Rule(tuple(c for c in conditions if not c.startswith("not ")), lacks, found[2]))
        elif (found := _facts().fullmatch(sentence)) and not found[2]:
            facts.add((found[1], found[3]))
        else:
            raise ValueError(f"no fact or rule of a known form: {sentence!r}")
    return Program(frozenset(facts), tuple(rules))


@cache
def _facts() -> re.Pattern[str]:
    names = "|".join(wording("en").names.values())
    return re.compile(rf"({names}) is (not )?(\w+)\.")
