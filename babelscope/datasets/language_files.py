"""One file per language: which file holds which language, told by `{language}` in the path."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from babelscope.datasets.findings import Findings
from babelscope.errors import BabelScopeError

PLACE = "{language}"
# A setting of mixed-language questions is a code, too, as `threewrong_de+awareness-1`; `validation` in a path is none.
CODE = r"(?:[a-z]{2,8}|threewrong)(?:[-_][A-Za-z0-9]{1,8})*(?:\+[A-Za-z0-9]{1,10}(?:-[A-Za-z0-9]{1,10})*)?"


def is_code(text: str) -> bool:
    """Whether a text has the form of a language code: `sw`, `zh-Hant`, `pt_BR`."""
    return re.fullmatch(CODE, text) is not None


def is_other_language(text: str, code: str) -> bool:
    """Whether a text is the code of another language: `de` for `en`, but not `en-US`, `EN` or `english`."""
    said, expected = (c.lower().replace("_", "-").split("-") for c in (text.strip(), code))
    common = min(len(said), len(expected))
    return is_code(text.strip().lower()) and len(said[0]) <= 3 and said[:common] != expected[:common]


def check_codes(languages: Sequence[str] | None) -> None:
    """Raise BabelScopeError if a language asked for is not a code, or none is asked for."""
    if languages is None:
        return
    if isinstance(languages, str) or not languages:
        raise BabelScopeError(f"languages must be a list of codes, not {languages!r}", 'write languages=["en", "de"]')
    for code in languages:
        if not is_code(code):
            raise BabelScopeError(f"{code!r} is not a language code", "write it as en, sw, zh-Hant or pt_BR")


def languages_matching(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Code and name of each of `names` that is `pattern` with a code in place of `{language}`, by code."""
    head, *rest = pattern.split(PLACE)
    tails = [re.escape(part) for part in rest]
    shape = re.compile(re.escape(head) + f"(?P<code>{CODE})" + "(?P=code)".join(tails))
    found = {m["code"]: name for name in names if (m := shape.fullmatch(name))}
    return dict(sorted(found.items()))


def files_by_language(pattern: str, languages: Sequence[str] | None, findings: Findings) -> dict[str, str]:
    """Path of the file of each language.

    Parameters
    ----------
    pattern : str
        Path with `{language}` in one place or more.
    languages : sequence of str or None
        Only these, in this order; None finds all that exist, in order of their codes.
    findings : Findings
        Gets a problem for each language without a file.
    """
    paths = glob.glob("*".join(glob.escape(part) for part in pattern.split(PLACE)))
    there = languages_matching(pattern, [p for p in paths if Path(p).exists()])
    if not there:
        findings.report(pattern, "no file matches", f"check the folder; {PLACE} stands for a code such as en")
    for path in sorted(set(paths) - set(there.values())):
        findings.note(f"{path}: passed over, since its name gives no language code")
    if languages is None:
        return there
    missing = [code for code in dict.fromkeys(languages) if code not in there] if there else []
    for code in missing:
        remedy = f"take the language out of --languages or add the file; there are: {', '.join(there)}"
        findings.report(pattern.replace(PLACE, code), f"there is no file for language {code!r}", remedy)
    return {code: there[code] for code in dict.fromkeys(languages) if code in there}
