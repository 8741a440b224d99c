"""Answers to English arithmetic and symbolic prompts, found by reading their text alone.

Shares no code with the generators, so that a mistake there cannot hide here.
"""

import re

_OPTION = re.compile(r"^[A-D]\) (.*)$", re.MULTILINE)
_RULE = re.compile(r"^Rule: (\w+(?: \w+)?)")
_INPUT = re.compile(r"Input: ([\d; ]+)\.")
_LIST = re.compile(r"^List: (.+?)\.")
_STEP = re.compile(r"Step \d+: (.+?)\.(?= Step \d|\n|$)")


def _task_and_options(text: str) -> tuple[str, list[str]]:
    """The line after the instruction ("" if there is none) and the lettered options."""
    return next(iter(text.split("\n")[1:]), ""), _OPTION.findall(text)


def solve_arithmetic(text: str) -> tuple[int, ...]:
    """Indices of the options that are right for an English arithmetic prompt.

    Raises
    ------
    ValueError
        If the text is not such a prompt.
    """
    line, listed = _task_and_options(text)
    rule, shown = _RULE.search(line), _INPUT.search(line)
    if rule is None or shown is None or not listed:
        raise ValueError(f"not an English arithmetic prompt: {text!r}")
    a, b = (int(number) for number in shown[1].split("; "))
    options = [[int(number) for number in option.split("; ")] for option in listed]
    return tuple(i for i, option in enumerate(options) if _is_right(rule[1], a, b, option))


def _is_right(rule: str, a: int, b: int, option: list[int]) -> bool:
    # Tested as conditions on the option, not by computing the answer in the way of the generator.
    x = option[0]
    conditions = {
        "addition": x - a == b,
        "subtraction": x + b == a,
        "multiplication": x == sum([a] * b),
        "division": x * b == a and b != 0,
        "equality": option == [a, b],
        "arithmetic sequence": x - b == b - a,
        "geometric sequence": x * a == b * b and (a != 0 or x == 0),
        "sorting in": option == sorted([a, b]),
    }
    if rule not in conditions:
        raise ValueError(f"not a rule: {rule!r}")
    return conditions[rule]


def solve_symbolic(text: str) -> tuple[int, ...]:
    """Indices of the options that are right for an English symbolic prompt.

    Raises
    ------
    ValueError
        If the text is not such a prompt, or a step makes no sense.
    """
    line, listed = _task_and_options(text)
    shown, steps = _LIST.search(line), _STEP.findall(line)
    if shown is None or not steps or not listed:
        raise ValueError(f"not an English symbolic prompt: {text!r}")
    words = shown[1].split(", ")
    for step in steps:
        words = _changed(words, step)
    return tuple(i for i, option in enumerate(listed) if option.split(", ") == words)


def _changed(words: list[str], step: str) -> list[str]:
    if step == "leave the list unchanged":
        return words
    if found := re.fullmatch(r"insert “(.+)” before position (\d+)", step):
        before = int(found[2]) - 1
        if not 0 <= before < len(words):
            raise ValueError(f"no position for: {step}")
        return [*words[:before], found[1], *words[before:]]
    if found := re.fullmatch(r"delete the word at position (\d+)", step):
        gone = int(found[1])
        if not 1 <= gone <= len(words):
            raise ValueError(f"no position for: {step}")
        return [word for position, word in enumerate(words, start=1) if position != gone]
    if found := re.fullmatch(r"swap the words at positions (\d+) and (\d+)", step):
        p, q = int(found[1]), int(found[2])
        if p == q or not {p, q} <= set(range(1, len(words) + 1)):
            raise ValueError(f"no positions for: {step}")
        source = {p: q, q: p}
        return [words[source.get(position, position) - 1] for position in range(1, len(words) + 1)]
    raise ValueError(f"not a step: {step!r}")
