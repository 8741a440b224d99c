"""MMLU as published: a folder of CSV files without a header, `SUBJECT_test.csv`: question, four options, letter."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from babelscope.datasets.delimited import read_delimited
from babelscope.datasets.findings import Findings
from babelscope.datasets.mapping import ROW, PromptMapping
from babelscope.datasets.records import Loader, Record, Records

LETTERS = ("A", "B", "C", "D")
COLUMNS = ("question", *LETTERS, "answer")
# Called so while a file is read, since a header that is there is told by its cells, and shown in errors.
_CELLS = ("the question", *(f"option {letter}" for letter in LETTERS), "the right letter")
_FILE = re.compile(r"(?P<subject>.+)_(?P<split>test|dev|val|train)\.csv")


def accepts(source: str) -> bool:
    """Whether a source is a folder with files of MMLU."""
    return bool(_files(source))


def read_mmlu(source: str, mapping: PromptMapping, findings: Findings) -> Records | None:
    """Records of all subjects of a folder, or of one file, in order of the subjects; every cell stays text.

    Fields: question, A, B, C, D, answer, subject, split, `item` (subject/split/row, rows from 1), and what a prompt
    needs around these: `header`, which names the subject, `listed`, the options behind their letters, and `cue`.

    Hendrycks et al. (2021), arXiv:2009.03300, have no header. A first row whose last cell is no letter of an option,
    and whose others name columns, is one, and is left out and noted.
    """
    found = _files(source)
    if not found:
        findings.report(
            source, "there is no file SUBJECT_test.csv", "name the folder with the files of one split, as mmlu/en/test"
        )
        return None
    splits = sorted({split for _, split, _ in found})
    if len(splits) > 1:
        findings.report(source, f"files of {' and '.join(splits)} are in one folder", "have a folder for each split")
        return None
    meaning = mapping.model_copy(update={"columns": _CELLS, "key": ROW})
    rows: list[Record] = []
    sums = hashlib.sha256()
    for subject, split, path in found:
        table = read_delimited(str(path), meaning, findings, ",")
        if table is not None:
            rows += _records(path, subject, split, table, findings)
            sums.update(table.sha256.encode())
    return Records((*COLUMNS, "subject", "split", "item", "header", "listed", "cue"), tuple(rows), sums.hexdigest())


def _files(source: str) -> list[tuple[str, str, Path]]:
    """Subject, split and path of each file."""
    path = Path(source)
    there = sorted(path.glob("*.csv")) if path.is_dir() else [path] if path.is_file() else []
    return [(m["subject"], m["split"], p) for p in there if (m := _FILE.fullmatch(p.name))]


def _records(path: Path, subject: str, split: str, table: Records, findings: Findings) -> Iterator[Record]:
    rows = list(table.rows)
    if rows and _is_header(list(rows[0].fields.values())):
        findings.note(f"{path}: the first row is a header and was left out")
        rows = rows[1:]
    for number, row in enumerate(rows, start=1):
        fields = dict(zip(COLUMNS, row.fields.values(), strict=True))
        yield Record(row.where, fields | {
            "subject": subject, "split": split, "item": f"{subject}/{split}/{number}",
            "header": f"Multiple-choice questions about {subject.replace('_', ' ')}, each with its answer.",
            "listed": "\n".join(f"{letter}. {fields[letter]}" for letter in LETTERS), "cue": "Answer:",
        })  # fmt: skip


def _is_header(cells: list[str]) -> bool:
    names = [cell.strip().casefold() for cell in cells]
    return names[-1] not in ("a", "b", "c", "d") and (names[0] == "question" or names[1:5] == ["a", "b", "c", "d"])


loader = Loader("MMLU, a folder of SUBJECT_test.csv without headers", read_mmlu, accepts=accepts)
