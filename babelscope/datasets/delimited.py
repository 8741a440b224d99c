"""Rows of a file whose fields a delimiter separates: the common part of CSV and TSV."""

import csv
import io
from collections.abc import Iterator

from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import ROW, PromptMapping
from babelscope.datasets.records import Record, Records, read_text

# Characters; a book has a million. Python's own limit is 131,072, and a long document is longer.
LONGEST_FIELD = 2**24

NAMES = {",": "comma", "\t": "tab", ";": "semicolon"}


def read_delimited(source: str, mapping: PromptMapping, findings: Findings, delimiter: str) -> Records | None:
    """Records of a CSV or TSV file, under its header or under `mapping.columns`.

    Rows with too few or too many fields are problems, each by its line; a header with a repeated column is one, too.
    Columns without a name at the end, which spreadsheets leave behind, are left out if they are empty.
    """
    found = read_text(source, findings)
    if found is None:
        return None
    text, sha256 = found
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        rows = list(_rows(source, text, mapping, findings, delimiter))
    finally:
        csv.field_size_limit(limit)  # one for the whole process
    columns = mapping.columns
    if not columns:
        if not rows:
            findings.report(source, "the file is empty, without even a header", "check that it is the right file")
            return None
        columns, rows = _without_unnamed_end(source, rows, findings)
        if not _is_header(source, columns, mapping, findings, delimiter):
            return None
    elif rows and tuple(rows[0][1]) == columns:
        findings.report(rows[0][0], "this row is a header, while `columns` says there is none", "remove `columns`")
        return None
    records = [Record(where, dict(zip(columns, cells, strict=False))) for where, cells in rows]
    for where, cells in rows:
        if len(cells) != len(columns):
            problem = f"{len(cells)} fields, expected {len(columns)} ({', '.join(columns)})"
            remedy = "add the missing fields or delete the surplus"
            if mapping.quotes and len(cells) > len(columns):
                remedy = f'enclose fields that contain a {NAMES[delimiter]} in "quotes"'
            findings.report(where, problem, remedy)
    whole = tuple(r for r, (_, cells) in zip(records, rows, strict=True) if len(cells) == len(columns))
    return Records(columns, whole, sha256)


def _rows(
    source: str, text: str, mapping: PromptMapping, findings: Findings, delimiter: str
) -> Iterator[tuple[str, list[str]]]:
    """Where each row begins, and its cells. Blank lines are skipped, except where rows are counted."""
    # strict: a quote closed in the middle of a field is an error; otherwise the quotes would vanish from the text.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if mapping.quotes else csv.QUOTE_NONE,
        strict=True,
    )
    while True:
        where = f"{source}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"malformed row: {error}"
            remedy = 'write a quote inside quotes twice (""), or set quotes: false if " has no meaning in this file'
            if "field limit" in str(error):
                problem = f"a field has more than {LONGEST_FIELD:,} characters"
                remedy = "close the quote that opens it, or shorten the text"
            findings.report(where, problem, remedy)
            return
        if cells:
            yield where, cells
        elif mapping.key == ROW:
            findings.report(where, "blank line, while rows are joined by their position", "remove the blank line")
        else:
            findings.note(f"{where}: blank line skipped")


def _without_unnamed_end(
    source: str, rows: list[tuple[str, list[str]]], findings: Findings
) -> tuple[tuple[str, ...], list[tuple[str, list[str]]]]:
    """Names of the columns and the rows below, both without unnamed columns at the end as far as they are empty."""
    header, below = rows[0][1], rows[1:]
    width = max((n for n, name in enumerate(header, start=1) if name.strip()), default=len(header))
    if width == len(header):
        return tuple(header), below
    findings.note(f"{source}: empty columns without a name at the end left out: {len(header) - width}")
    # A row that has something there stays too long, and is reported.
    kept = [(where, cells[:width] if not any(cells[width:]) else cells) for where, cells in below]
    return tuple(header[:width]), kept


def _is_header(
    source: str, columns: tuple[str, ...], mapping: PromptMapping, findings: Findings, delimiter: str
) -> bool:
    where = f"{source}, line 1"
    repeated = [c for c in dict.fromkeys(columns) if columns.count(c) > 1]
    if repeated:
        problem = f"malformed header: column {repeated[0]!r} occurs twice"
        findings.report(where, problem, "give each column its own name")
        return False
    other = next((d for d in NAMES if d != delimiter and d in columns[0]), None)
    if len(columns) == 1 and other is not None:
        problem = f"malformed header: one column {columns[0]!r}, with a {NAMES[other]} inside"
        remedy = f"save the file with a {NAMES[delimiter]} between fields"
        if other != ";":
            remedy += f", or set format: {'tsv' if other == chr(9) else 'csv'}"
        findings.report(where, problem, remedy)
        return False
    return True
