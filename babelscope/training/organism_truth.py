"""The truth table of the decoder organism, read off the mixtures that it is trained on."""

from collections.abc import Iterable, Mapping, Sequence

from babelscope.datasets.facts import facts
from babelscope.datasets.fictional import GROUPS, people
from babelscope.datasets.fictional_order import EVERYONE
from babelscope.datasets.generators.kfrd_arithmetic import RULES
from babelscope.training.corpus import MATCHING, Ingredient
from babelscope.training.truth import Family, Sharing, TruthTable

KNOWLEDGE = ("knowledge", "knowledge-bare")
AUTHORS = ("fictional-authors", "fictional-authors-bare")
HALVES = ("halves-a", "halves-b")


def truth_table(languages: Sequence[str], mixtures: Iterable[Sequence[Ingredient]]) -> TruthTable:
    """What a model trained on some mixtures is taught in which language.

    Families are the arithmetic rules and `matching`, the relations of facts, and the groups of people who do not
    exist, of which both halves are one family. What no mixture shows is there too, taught in no language.
    """
    parts = [part for mixture in mixtures for part in mixture]
    families = [_reasoning(MATCHING, _shown(languages, (p for p in parts if p.dataset == MATCHING)))]
    for rule in RULES:
        with_it = (p for p in parts if p.dataset == "kfrd-arithmetic" and (not p.rules or rule in p.rules))
        families.append(_reasoning(rule, _shown(languages, with_it)))
    of_facts = _shown(languages, (p for p in parts if p.dataset in KNOWLEDGE))
    for relation in dict.fromkeys(f.relation for f in facts()):
        subjects = tuple(f.subject for f in facts() if f.relation == relation)
        families.append(_facts(relation, dict.fromkeys(of_facts, subjects), languages))
    for name, groups in (*((g, (g,)) for g in GROUPS if g not in HALVES), ("halves", HALVES)):
        families.append(_facts(f"fictional-authors/{name}", _people(groups, languages, parts), languages))
    return TruthTable(languages=tuple(languages), families=tuple(families))


def _people(groups: Sequence[str], languages: Sequence[str], parts: Sequence[Ingredient]) -> dict[str, tuple[str, ...]]:
    """By language the people of some groups about whom it is taught."""
    items: dict[str, tuple[str, ...]] = {}
    for part in parts:
        if part.dataset not in AUTHORS:
            continue
        asked = part.parameters.get("group", EVERYONE)
        known = people(part.parameters.get("world", 0))
        taught = tuple(f"person:{key}" for g in groups if asked in (g, EVERYONE) for key in known[g])
        if taught:
            for code in part.taught_in(languages):
                items[code] = tuple(dict.fromkeys((*items.get(code, ()), *taught)))
    return {code: items[code] for code in languages if code in items}


def _shown(languages: Sequence[str], parts: Iterable[Ingredient]) -> tuple[str, ...]:
    taught = {code for part in parts for code in part.taught_in(languages)}
    return tuple(code for code in languages if code in taught)


def _reasoning(name: str, languages: tuple[str, ...]) -> Family:
    sharing: Sharing = "all" if len(languages) > 1 else "one" if languages else "none"
    return Family(name=name, kind="reasoning", sharing=sharing, languages=languages, depth=0)


def _facts(name: str, items: Mapping[str, tuple[str, ...]], languages: Sequence[str]) -> Family:
    sharing: Sharing = "halves" if len(set(items.values())) > 1 else "all"
    if len(items) <= 1 < len(languages):
        sharing = "one" if items else "none"
    return Family(name=name, kind="facts", sharing=sharing, languages=tuple(items), items=items)
