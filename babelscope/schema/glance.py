"""What a noun shows of itself: a few lines of text, and compact HTML for notebooks."""

import html
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from babelscope.errors import printable

COLUMNS, LINES = 80, 12
LABEL = 38  # columns of what a row is about
LONG = 60  # letters from which on a cell in a notebook has several lines
MOST = 300  # columns of any text in a notebook

# No colors: the text keeps that of the notebook, light or dark.
_SCROLL = "overflow:auto;max-height:22em;margin:.4em 0"
_CELL = "padding:.1em .7em .1em 0;text-align:start;vertical-align:top"
_LINE, _PARAGRAPH = "white-space:nowrap", "white-space:normal;min-width:32em"


@dataclass(frozen=True, slots=True)
class Sample:
    """The first rows of a table as texts.

    Parameters
    ----------
    columns : tuple of str
    rows : tuple of tuple of str
        One text per column.
    total : int
        How many rows there are in all.
    common : str
        What all rows have in common.
    n_keys : int
        How many columns say what a row is about; in plain text they are joined to one.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    total: int
    common: str = ""
    n_keys: int = 1

    def caption(self, shown: int) -> str:
        """How many of the rows are shown, and what they have in common."""
        more = f"first {shown} of {self.total:,}" if shown < self.total else ""
        return "; ".join(part for part in (more, f"all: {self.common}" if self.common else "") if part)


@dataclass(frozen=True, slots=True)
class Glance:
    """A title, facts, and samples of what there is.

    Parameters
    ----------
    title : str
        What kind of thing, and its name.
    facts : mapping
        Name -> text; what is "" is left out.
    samples : tuple of Sample
        The first one is shown in plain text too, as far as it fits.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()

    def text(self) -> str:
        """At most `LINES` lines of `COLUMNS` columns; what does not fit ends in an ellipsis."""
        wide = max((len(name) for name in self._known), default=0)
        lines = [self.title, *(f"{name:<{wide}}  {text}" for name, text in self._known.items())]
        for sample in self.samples[:1]:
            lines += _rows(sample, LINES - len(lines))
        return "\n".join(shortened(line, COLUMNS).rstrip() for line in lines[:LINES])

    def html(self) -> str:
        """Compact HTML: every text escaped, its direction its own, tables that scroll."""
        facts = "".join(f'<tr><th style="{_CELL}">{_safe(n)}</th>{_cell(t)}</tr>' for n, t in self._known.items())
        parts = [f"<strong>{_safe(self.title)}</strong>", f"<table>{facts}</table>" if facts else ""]
        return f"<div>{''.join(parts)}{''.join(map(_table, self.samples))}</div>"

    @property
    def _known(self) -> dict[str, str]:
        return {name: text for name, text in self.facts.items() if text}


def shortened(text: str, columns: int) -> str:
    """A text in one line and with nothing unprintable, cut to so many columns; East Asian letters take two."""
    flat = printable(" ".join(text.split()) if "\n" in text or "\t" in text else text)
    marked = 4 * columns  # marks take no column, and there may be any number of them
    if _width(flat) <= columns and len(flat) <= marked:
        return flat
    used, kept = 1, list[str]()
    for letter in flat:
        used += _width(letter)
        if used > columns or len(kept) == marked:
            break
        kept.append(letter)
    return "".join(kept) + "…"


def listed(names: Sequence[object], most: int = 8) -> str:
    """Names with commas, as many as one takes in at a glance, and how many more there are."""
    shown = ", ".join(map(str, names[:most]))
    return f"{shown}, and {len(names) - most} more" if len(names) > most else shown


def counted(n: int, noun: str) -> str:
    """`1 item`, `2 items`."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def ranged(numbers: Sequence[int | None]) -> str:
    """Layers as a person writes them: `0-5`, `0, 2, 4`; "" for a site that has none."""
    known = [n for n in numbers if n is not None]
    if len(known) > 2 and known == list(range(known[0], known[-1] + 1)):
        return f"{known[0]}-{known[-1]}"
    return listed(known)


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def _rows(sample: Sample, lines: int) -> Iterator[str]:
    """Columns as far as they fit into the width, rows as far as they fit into the lines, then the caption."""
    most = lines - 1 - bool(sample.caption(max(0, lines - 2)))
    if most < 1 or not sample.rows:
        return
    rows, k = [sample.columns, *sample.rows[:most]], sample.n_keys
    joined = [(shortened(" ".join(part for part in row[:k] if part != "–"), LABEL), *row[k:]) for row in rows]
    cells = [[shortened(text, COLUMNS) for text in row] for row in joined]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    # One column more than fits is begun where it is the last thing to be read, as texts are.
    fit = sum(sum(widths[: at + 1]) + 2 * at <= COLUMNS for at in range(len(widths)))
    fit += fit < len(widths) and widths[fit] > LABEL
    for row in cells:
        yield "  ".join(c + " " * (w - _width(c)) for c, w in zip(row[:fit], widths[:fit], strict=True)).rstrip()
    if caption := sample.caption(len(rows) - 1):
        yield caption


def _table(sample: Sample) -> str:
    head = "".join(f'<th style="{_CELL}">{_safe(name)}</th>' for name in sample.columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in sample.rows)
    text = sample.caption(len(sample.rows))
    caption = f'<div dir="auto" style="opacity:.7">{_safe(text)}</div>' if text else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div style="{_SCROLL}">{table}</div>{caption}'


def _cell(text: str) -> str:
    lines = _PARAGRAPH if len(text) > LONG else _LINE
    return f'<td dir="auto" style="{_CELL};{lines}">{_safe(text)}</td>'


def _safe(text: str) -> str:
    return html.escape(shortened(text, MOST))
