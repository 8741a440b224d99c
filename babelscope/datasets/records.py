"""Records: what every loader makes of a file before a mapping says what the fields mean."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from babelscope.datasets.findings import Findings
from babelscope.datasets.language_files import files_by_language
from babelscope.datasets.mapping import PromptMapping


@dataclass(frozen=True, slots=True)
class Record:
    """Fields of one row and where it stands: `prompts.csv, line 7`."""

    where: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """All rows of one file, the names of their fields, and the sha256 of the file ("" where it has none)."""

    columns: tuple[str, ...]
    rows: tuple[Record, ...]
    sha256: str = ""


Read: TypeAlias = Callable[[str, PromptMapping, Findings], Records | None]
ByLanguage: TypeAlias = Callable[[str, Sequence[str] | None, Findings], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Loader:
    """How one format is read; a module in `loaders/` that defines `loader` is the format named as the file is.

    Parameters
    ----------
    title : str
        One line for listings.
    read : callable
        (source, mapping, findings) to Records. A file that cannot be read is reported to findings and gives None.
    suffixes : tuple of str
        Endings of file names that mean this format.
    accepts : callable
        Whether a source that no suffix tells is of this format.
    by_language : callable
        (pattern with `{language}`, languages or None, findings) to the source of each language.
    """

    title: str
    read: Read
    suffixes: tuple[str, ...] = ()
    accepts: Callable[[str], bool] = field(default=lambda source: False)
    by_language: ByLanguage = files_by_language


def columns_of(rows: Sequence[Record]) -> tuple[str, ...]:
    """Names of all fields in order of first mention."""
    return tuple(dict.fromkeys(name for row in rows for name in row.fields))


def read_bytes(source: str, findings: Findings) -> bytes | None:
    """The bytes of a file; None, and a problem, when it cannot be read."""
    try:
        return Path(source).read_bytes()
    except OSError as error:
        findings.report(source, f"cannot be read: {error.strerror or error}", "check the path and its permissions")
        return None


def read_text(source: str, findings: Findings) -> tuple[str, str] | None:
    """Text of a UTF-8 file and its sha256; a byte-order mark and CRLF are taken out and noted.

    Returns
    -------
    tuple of str, or None
        None, and a problem, when the file is missing or is not UTF-8.
    """
    data = read_bytes(source, findings)
    if data is None:
        return None
    sha256 = hashlib.sha256(data).hexdigest()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        remedy = f"convert it: iconv -f UTF-16 -t UTF-8 {source}"
        findings.report(source, "the encoding is UTF-16, expected UTF-8", remedy)
        return None
    if data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
        findings.note(f"{source}: byte-order mark (BOM) at the start ignored")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        findings.report(
            f"{source}, line {line}",
            f"not UTF-8 (byte 0x{data[error.start]:02x}), so the encoding is another one",
            f"convert the file, as iconv -f WINDOWS-1252 -t UTF-8 {source}, with the encoding it was saved in",
        )
        return None
    if "\r\n" in text:
        findings.note(f"{source}: Windows line ends (CRLF) read as LF")
        text = text.replace("\r\n", "\n")
    return text, sha256
