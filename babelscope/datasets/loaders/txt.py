"""Plain text: a record for each paragraph, with its lines as they stand."""

import re

from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import PromptMapping
from babelscope.datasets.records import Loader, Record, Records, read_text


def read_txt(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """A field `text` for each run of lines without a blank one between them; `key: row` joins them by position."""
    found = read_text(source, findings)
    if found is None:
        return None
    text, sha256 = found
    paragraphs = re.finditer(r"(?:^[^\n]*\S[^\n]*(?:\n|\Z))+", text, re.MULTILINE)
    rows = tuple(
        Record(f"{source}, line {text.count(chr(10), 0, p.start()) + 1}", {"text": p[0].removesuffix("\n")})
        for p in paragraphs
    )
    return Records(("text",), rows, sha256)


loader = Loader("plain text, paragraphs between blank lines", read_txt, (".txt",))
