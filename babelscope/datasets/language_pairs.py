"""The code `a-b` of prompts whose context is in language a and whose question is in language b."""

import re

# A language, with its script and region in the usual letter case: a second part in small letters is another language.
_ONE = r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[0-9]{3}))*"
_PAIR = re.compile(f"({_ONE})-({_ONE})")


def parts_of(code: str) -> tuple[str, str] | None:
    """The two languages of a code such as `en-fr` or `zh-Hant-en`; None if it does not name two.

    The form alone decides: `pt-br` would be Portuguese and Breton, `pt-BR` is one language.
    """
    found = _PAIR.fullmatch(code)
    return (found[1], found[2]) if found else None
