"""Entries of several languages put side by side: what is missing, what contradicts, and one order of items."""

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from babelscope.datasets.fields import Entry
from babelscope.datasets.findings import Findings
from babelscope.schema import Prompt

# A note names this many missing items; the count says how many there are.
NAMED = 5


def without_repeats(entries: Iterable[Entry], findings: Findings) -> dict[tuple[str, str], Entry]:
    """Entries by item and language; a key that comes twice in one language is a problem."""
    kept: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        place = (entry.prompt.item, entry.prompt.language)
        first = kept.setdefault(place, entry)
        if first is not entry:
            problem = f"key {place[0]!r} occurs again in language {place[1]!r} (first at {first.where})"
            findings.report(entry.where, problem, "give each item its own key, or remove the copy")
    return kept


def compare_languages(by_place: Mapping[tuple[str, str], Entry], findings: Findings) -> None:
    """Report items whose gold, number of options, covariates or `same` fields differ between languages."""
    first: dict[str, Entry] = {}
    for (item, _), entry in by_place.items():
        reference = first.setdefault(item, entry)
        here, there = _labels(entry), _labels(reference)
        for name in {**there, **here}:
            if here.get(name) != there.get(name):
                findings.report(
                    entry.where,
                    f"item {item!r} has {name} {here.get(name)!r} in {entry.prompt.language!r}, "
                    f"but {there.get(name)!r} in {reference.prompt.language!r} ({reference.where})",
                    "correct one of the rows, or the key if these are different items",
                )
                break


def compare_items(
    by_place: Mapping[tuple[str, str], Entry],
    languages: Sequence[str],
    findings: Findings,
    *,
    strict: bool,
    by_row: bool = False,
) -> None:
    """Note (or, if strict or joined by row, report) the items that a language lacks.

    No item in common is always a problem.
    """
    have = Counter(item for item, _ in by_place)
    files = _files(by_place.values())
    if len(languages) > 1 and have and max(have.values()) == 1:
        shown = languages[:4]
        keys = "; ".join(f"{g}: {next((i for i, h in by_place if h == g), None)!r}" for g in shown)
        problem = f"no key occurs in two languages (first keys: {keys})"
        where = " and ".join(dict.fromkeys(files[g] for g in shown if g in files))
        findings.report(where, problem, "map `key` to a field that is equal in all translations of an item")
        return
    for language in languages:
        missing = [item for item in have if (item, language) not in by_place]
        if not missing:
            continue
        named = ", ".join(map(repr, missing[:NAMED])) + (", ..." if len(missing) > NAMED else "")
        count = f"{len(missing)} of {len(have)} items missing"
        where = ", ".join([*filter(None, [files.get(language)]), f"language {language!r}"])
        if by_row:
            # Unequal lengths mean that a line is lost, and `strict: false` would not find it.
            remedy = "find the lost line (a shifted row joins every later one wrongly), or give a key"
            findings.report(where, f"{count}: {named}", remedy)
        elif strict:
            remedy = "add them, or set strict: false to keep incomplete items"
            findings.report(where, f"{count}: {named}", remedy)
        else:
            kept = "kept, incomplete, in the other languages (add the rows, or refuse such items with strict: true)"
            findings.note(f"{where}: {count}: {named}; {kept}")


def _files(entries: Iterable[Entry]) -> dict[str, str]:
    """The file of each language, which stands before the row in `Entry.where`."""
    return {entry.prompt.language: entry.where.rpartition(", ")[0] for entry in entries}


def in_common_order(by_place: Mapping[tuple[str, str], Entry], languages: Sequence[str]) -> tuple[Prompt, ...]:
    """Prompts by language, then by item, the items in one order that agrees with every language's own.

    Where the languages disagree (shuffled files), items follow the order of first mention.
    """
    sequences = {g: [item for item, h in by_place if h == g] for g in languages}
    order = _merged(list(sequences.values()))
    return tuple(by_place[item, g].prompt for g in languages for item in order if (item, g) in by_place)


def _merged(sequences: list[list[str]]) -> list[str]:
    """Topological order of items (Kahn 1962), ties by first mention; order of first mention if there is a cycle."""
    mentioned = {item: n for n, item in enumerate(dict.fromkeys(i for s in sequences for i in s))}
    follows: dict[str, set[str]] = {item: set() for item in mentioned}
    for sequence in sequences:
        for before, after in itertools.pairwise(sequence):
            follows[before].add(after)
    waits = Counter(after for afters in follows.values() for after in afters)
    ready = [(n, item) for item, n in mentioned.items() if not waits[item]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, item = heapq.heappop(ready)
        order.append(item)
        for after in follows[item]:
            waits[after] -= 1
            if not waits[after]:
                heapq.heappush(ready, (mentioned[after], after))
    return order if len(order) == len(mentioned) else list(mentioned)


def _labels(entry: Entry) -> dict[str, Any]:
    prompt = entry.prompt
    # By number, not by letter: the letters may be those of each language's own script.
    gold = None if prompt.gold is None else f"option {prompt.gold + 1}"
    return {"gold": gold, "options": len(prompt.options), **prompt.covariates, **entry.same}
