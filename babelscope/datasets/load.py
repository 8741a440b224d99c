"""Prompts by name or from files: generated datasets, and a researcher's own in any format that a loader reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from babelscope import plugins
from babelscope.datasets.fields import Entry, FieldError, entry_of, text_at
from babelscope.datasets.findings import Findings
from babelscope.datasets.language_files import PLACE, check_codes, is_code, is_other_language
from babelscope.datasets.mapping import ROW, PromptMapping, read_mapping
from babelscope.datasets.native import is_native, native_entry, write_prompts
from babelscope.datasets.parallel import compare_items, compare_languages, in_common_order, without_repeats
from babelscope.datasets.records import Loader, Record, Records
from babelscope.errors import BabelScopeError, unknown_name
from babelscope.schema import PromptSet

__all__ = ["load_prompts", "write_prompts"]


def load_prompts(
    source: str | Path,
    *,
    mapping: PromptMapping | Mapping[str, Any] | Path | str | None = None,
    languages: Sequence[str] | None = None,
) -> tuple[PromptSet, list[str]]:
    """Prompts of a generated dataset, of one file, or of one file per language.

    Parameters
    ----------
    source : str or Path
        Name of a generated dataset (`kfrd-arithmetic`), a file or folder, a path with `{language}` in it
        (`xquad.{language}.json`), or `hf:OWNER/NAME[/CONFIGURATION]`.
    mapping : PromptMapping, mapping, Path, str or None
        What the fields mean (see `read_mapping`). Without one, JSON Lines written by `write_prompts` are read
        back exactly, and other files need fields `item`, `language` and `text`.
    languages : sequence of str, optional
        Only these, in this order. Rows and files of others are not looked at.

    Returns
    -------
    PromptSet
        Rows by language, then by item, joined by key.
    list of str
        Notes: what was repaired in reading, and which items a language lacks.

    Raises
    ------
    BabelScopeError
        One for all problems found, ten at most shown, each by file and row with what to do.
    """
    check_codes(languages)
    name = str(source)
    if name.replace("_", "-") in plugins.names("dataset"):
        if mapping is not None:
            raise BabelScopeError(f"{name} is a generated dataset and has no columns to map", "leave out --mapping")
        return plugins.load("dataset", name)().generate(languages), []
    meaning = read_mapping(mapping)
    loader = _loader_of(name, meaning)
    findings = Findings()
    places = _places(name, meaning, loader, languages, findings)
    read = {code: loader.read(place, meaning, findings) for code, place in places.items()}
    tables = {code: table for code, table in read.items() if table is not None}
    rows = [row for table in tables.values() for row in table.rows]
    native = mapping is None and bool(rows) and name.endswith((".jsonl", ".ndjson")) and is_native(rows[0].fields)
    entries = [e for code, table in tables.items() for e in _entries(places[code], code, table, meaning,
                                                                     languages, findings, native=native)]  # fmt: skip
    if not entries:
        findings.refuse()
    if languages is not None and not findings.problems:
        _check_present(name, languages, _codes(entries), findings)
    by_place = without_repeats(entries, findings)
    codes = list(languages) if languages is not None else [*places] if PLACE in name else _codes(entries)
    _check_parallel(by_place, list(dict.fromkeys(codes)), meaning, findings)
    findings.refuse()
    origin: dict[str, Any] = {
        "files": [{"file": places[code], "sha256": table.sha256} for code, table in tables.items()],
        "mapping": meaning.model_dump(mode="json", exclude_defaults=True),
    }
    prompts = in_common_order(by_place, list(dict.fromkeys(codes)))
    return PromptSet(meaning.name or _name_of(name), prompts, origin), findings.notes


def _check_parallel(
    by_place: Mapping[tuple[str, str], Entry], codes: Sequence[str], meaning: PromptMapping, findings: Findings
) -> None:
    rows_read_well = not findings.problems
    compare_languages(by_place, findings)
    # An item that is missing because its row has a problem is not reported a second time.
    if rows_read_well:
        compare_items(by_place, codes, findings, strict=meaning.strict, by_row=meaning.key == ROW)


def _loader_of(source: str, mapping: PromptMapping) -> Loader:
    """The loader of a source, by `format`, by the end of its name, or by what the loader recognizes."""
    if mapping.format is not None:
        loader: Loader = plugins.load("loader", mapping.format)
        return loader
    loaders: list[Loader] = [plugins.load("loader", name) for name in plugins.names("loader")]
    for loader in loaders:
        if source.lower().endswith(loader.suffixes) or loader.accepts(source):
            return loader
    if PLACE in source:
        # A pattern of folders: what one of them is, all are.
        findings = Findings()
        for loader in loaders:
            if any(map(loader.accepts, loader.by_language(source, None, findings).values())):
                return loader
    path = Path(source)
    if path.is_dir():
        hint = f"name a file in it, or one per language, as {path}/prompts.{PLACE}.jsonl"
        raise BabelScopeError(f"{source} is a folder, and not a Hugging Face dataset", hint)
    if path.exists() or path.suffix or PLACE in source:
        suffixes = ", ".join(s for loader in loaders for s in loader.suffixes)
        raise BabelScopeError(f"{source}: the name does not tell the format", f"end it in {suffixes}, or set format")
    raise unknown_name("dataset or file", source, plugins.names("dataset"), "cli.py data ls")


def _places(
    source: str, mapping: PromptMapping, loader: Loader, languages: Sequence[str] | None, findings: Findings
) -> dict[str, str]:
    """Where the records of each language are; for one file of all languages the key is ""."""
    if PLACE not in source:
        return {"": source}
    if mapping.language is not None:
        raise BabelScopeError(
            f"{source}: both the path and the field {mapping.language!r} give the language",
            "remove `language` from the mapping, or name one file",
        )
    return loader.by_language(source, languages, findings)


def _entries(
    source: str,
    code: str,
    table: Records,
    mapping: PromptMapping,
    languages: Sequence[str] | None,
    findings: Findings,
    *,
    native: bool,
) -> Iterator[Entry]:
    """Entries of one file; rows that cannot be used are reported."""
    column = mapping.language or "language"
    if not table.rows and not findings.problems:
        findings.report(source, "there is no item in it", "check that it is the right file")
    if not native and not _has_fields(source, table, mapping, [] if code else [column], findings):
        return
    position: dict[str, int] = {}
    for row in table.rows:
        try:
            language = code or _language(row, column)
            position[language] = position.get(language, 0) + 1
            if languages is not None and language not in languages:
                continue
            said = row.fields.get(column)
            # A native row keeps its own code, so that it must be the very one.
            if code and isinstance(said, str) and (said != code if native else is_other_language(said, code)):
                problem = f"language is {said!r}, while the file is that of {code!r}"
                raise FieldError(problem, "correct the row or the name of the file")
            if native:
                entry = native_entry(row)
            else:
                item = str(position[language]) if mapping.key == ROW else text_at(row.fields, mapping.key)
                entry = entry_of(row, mapping, item, language)
        except FieldError as error:
            findings.report(row.where, error.problem, error.remedy)
            continue
        yield entry


def _language(row: Record, column: str) -> str:
    language = text_at(row.fields, column)
    if not is_code(language):
        raise FieldError(f"{language!r} is not a language code", "write it as en, sw, zh-Hant or pt_BR")
    return language


def _has_fields(source: str, table: Records, mapping: PromptMapping, more: Sequence[str], findings: Findings) -> bool:
    """Whether each mapped field is in some record; a missing one is reported once, with the columns found."""
    if not table.columns:
        return True
    there = {*table.columns}
    missing = [f for f in [*mapping.fields(), *more] if f not in there and f.split(".")[0] not in there]
    found = ", ".join(map(repr, table.columns[:20]))
    for field in missing:
        near = get_close_matches(field, table.columns, 1)
        remedy = f"map it, as {_role(field, mapping)}={near[0] if near else 'COLUMN'}"
        if field in more:
            remedy = f"map `language`, or have one file per language with {PLACE} in its path"
        elif not mapping.columns:
            remedy += ", or give `columns` if the file has no header"
        findings.report(source, f"there is no column {field!r}; columns found: {found}", remedy)
    if mapping.key == ROW and ROW in there:
        problem = "`key: row` joins by position, but there is a column 'row'"
        findings.report(source, problem, "rename the column and map `key` to it")
        return False
    return not missing


def _role(field: str, mapping: PromptMapping) -> str:
    roles: dict[str | None, str] = {
        mapping.key: "key",
        mapping.gold: "gold",
        mapping.truth: "truth",
        mapping.answer: "answer",
    }
    roles.update(dict.fromkeys(mapping.option_fields(), "options"))
    roles.update(dict.fromkeys(mapping.covariates.values(), "covariates"))
    roles.update(dict.fromkeys(mapping.same, "same"))
    return roles.get(field, "text")


def _codes(entries: Iterable[Entry]) -> list[str]:
    return list(dict.fromkeys(e.prompt.language for e in entries))


def _check_present(source: str, languages: Sequence[str], present: Sequence[str], findings: Findings) -> None:
    """Report languages that were asked for and are in no row."""
    missing = [code for code in dict.fromkeys(languages) if code not in present]
    if missing:
        there = f" (rows of those asked for: {', '.join(present)})" if present else ""
        findings.report(source, f"no row is in {', '.join(missing)}{there}", "check --languages")
        findings.refuse()


def _name_of(source: str) -> str:
    """Name of a prompt set after its file: `xquad` for `data/xquad.{language}.json`."""
    path = Path(source.removeprefix("hf:").replace(f"/{PLACE}", ""))
    return path.name.split(".")[0].replace(PLACE, "").strip("._- ") or "prompts"
