"""JSON Lines: one JSON object a line, or records further inside each."""

import json

from babelscope.datasets.findings import Findings
from babelscope.datasets.loaders.json import records_at
from babelscope.datasets.mapping import ROW, PromptMapping
from babelscope.datasets.records import Loader, Record, Records, columns_of, read_text


def read_jsonl(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of a JSON Lines file, at `mapping.records` of each line; one that is no JSON object is a problem."""
    found = read_text(source, findings)
    if found is None:
        return None
    text, sha256 = found
    rows: list[Record] = []
    # Only "\n" ends a line here: str.splitlines would also cut at U+2028 and U+0085, which JSON allows inside texts.
    lines = text.removesuffix("\n").split("\n") if text else []
    for number, line in enumerate(lines, start=1):
        where = f"{source}, line {number}"
        if not line.strip():
            if mapping.key == ROW:
                findings.report(where, "blank line, while rows are joined by their position", "remove the blank line")
            else:
                findings.note(f"{where}: blank line skipped")
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            findings.report(where, f"invalid JSON: {error}", _remedy(line))
            continue
        if not isinstance(value, dict):
            findings.report(where, f"expected a JSON object, got {type(value).__name__}", _remedy(line))
            continue
        if mapping.records is None:
            rows.append(Record(where, value))
        else:
            rows += records_at(source, value, mapping.records.split("."), f"line {number}", {}, findings)
    return Records(columns_of(rows), tuple(rows), sha256)


def _remedy(line: str) -> str:
    if line.lstrip().startswith("["):
        return "for one JSON array in the file, end its name in .json"
    return "write one complete JSON object on each line"


loader = Loader("JSON Lines, one object a line", read_jsonl, (".jsonl", ".ndjson"))
