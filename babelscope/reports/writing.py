"""A report on the disk: the page, every number as JSON, the rows of each figure as CSV, figures for papers."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import vl_convert

from babelscope.errors import BabelScopeError, unknown_name
from babelscope.reports.attention_view import AttentionView
from babelscope.reports.card import Card, data_card
from babelscope.reports.drawn import Drawn, draw
from babelscope.reports.html import MOST_JSON_ROWS, page
from babelscope.reports.source import Source
from babelscope.reports.verdicts import verdicts

# Pixels per unit of a chart: 300 dots per inch at the width of a column.
SCALE = 3.0
EXPORTS: Mapping[str, Callable[[dict[str, Any]], bytes]] = {
    "svg": lambda spec: vl_convert.vegalite_to_svg(spec).encode("utf-8"),
    "pdf": lambda spec: bytes(vl_convert.vegalite_to_pdf(spec)),
    "png": lambda spec: bytes(vl_convert.vegalite_to_png(spec, scale=SCALE)),
}


def report_files(path: Path) -> tuple[Path, Path]:
    """What stands beside a page: the JSON of every number, and the folder with the rows of its figures."""
    return path.with_suffix(".json"), path.with_suffix(".figures")


def write_report(
    path: Path, sources: Sequence[Source], views: Sequence[AttentionView] = (), formats: Sequence[str] = ()
) -> Path:
    """Write a report: `NAME.html`, `NAME.json`, and `NAME.figures/` with a CSV per figure.

    Each file appears whole or not at all, the page last; what an earlier report left in the folder is removed.

    Parameters
    ----------
    path : Path
        Of the page.
    sources : sequence of Source
        Each with its store.
    views : sequence of AttentionView
    formats : sequence of str
        Of `EXPORTS`: each figure as a picture as well, as it looks before anything is clicked.

    Raises
    ------
    BabelScopeError
        For an unknown format, or a folder of that name that holds something else.
    """
    for name in formats:
        if name not in EXPORTS:
            raise unknown_name("format of figures", name, EXPORTS)
    drawn = draw(sources)
    cards = [data_card(source.store) for source in sources if source.store is not None]
    claims = verdicts(sources)
    html = page(path, sources, drawn, cards, claims, views)
    files = {path.name: html.encode("utf-8", "backslashreplace")}  # prompts may hold half a character
    pictures = {one.file: one.figure.table.to_csv(index=False).encode("utf-8", "backslashreplace") for one in drawn}
    pictures |= {f"{one.name}.{name}": _exported(one, name) for one in drawn for name in formats}
    record = _numbers(sources, cards, claims, drawn) | {"files": sorted(pictures)}
    text = json.dumps(record, ensure_ascii=False, default=str, allow_nan=False)
    numbers, folder = report_files(path)
    files[numbers.name] = text.encode("utf-8", "backslashreplace")
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as staged:
        for name, content in (files | pictures).items():
            (Path(staged) / name).write_bytes(content)
        # All is written, so moving it is all that is left.
        _clear(folder, numbers)
        folder.mkdir(exist_ok=True)
        for name in pictures:
            (Path(staged) / name).replace(folder / name)
        for place in (numbers, path):
            (Path(staged) / place.name).replace(place)
    return path


def _clear(folder: Path, numbers: Path) -> None:
    """Remove the files of an earlier report, those that its JSON names, and nothing else."""
    if not folder.is_dir() or not numbers.is_file():
        return
    try:
        earlier = json.loads(numbers.read_text("utf-8")).get("files", [])
    except (ValueError, AttributeError):
        return
    for name in earlier:
        if Path(str(name)).name == name:
            (folder / name).unlink(missing_ok=True)


def _exported(one: Drawn, name: str) -> bytes:
    try:
        return EXPORTS[name](one.figure.chart.to_dict())
    except ValueError as error:
        raise BabelScopeError(
            f"{one.title} cannot be drawn as {name}: {str(error).splitlines()[0]}", "leave --figures away"
        ) from None


def _numbers(
    sources: Sequence[Source], cards: Sequence[Card], claims: pd.DataFrame, drawn: Sequence[Drawn]
) -> dict[str, Any]:
    return {
        "babelscope": version("babelscope"),
        "verdicts": _records(claims),
        "sources": [
            {
                "store": source.name,
                "fingerprint": source.store.fingerprint if source.store is not None else None,
                "card": _records(card.table),
                "flags": list(card.flags),
                "results": {
                    r.name: {"provenance": _finite(dict(r.provenance)), "rows": _rows(r.table)} for r in source.results
                },
            }
            for source, card in zip(sources, cards, strict=True)
        ],
        "figures": [
            {"file": d.file, "title": d.title, "mode": d.figure.mode, "answer": d.figure.answer,
             "caption": d.figure.caption}
            for d in drawn
        ],
    }  # fmt: skip


def _rows(table: pd.DataFrame) -> list[dict[str, Any]] | str:
    if len(table) > MOST_JSON_ROWS:
        return f"{len(table)} rows: see the saved table"
    return _records(table)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows at full precision; what is undefined is null."""
    records = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(k): _plain(v) for k, v in row.items()} for row in records]


def _finite(value: Any) -> Any:
    """A nested record in which what is undefined is null, as in rows."""
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return _plain(value) if isinstance(value, float) else value


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value
