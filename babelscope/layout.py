"""Tables and facts as text that no terminal of 80 columns breaks.

A table that is too wide is narrowed in this order, each step only where the one before was not enough: names of columns
break at their spaces, a text that is the same throughout becomes a heading, the last words of a row (its verdict)
move to a line below, texts break inside their cells, columns that name things become headings from the left, and what
is still too wide is folded into blocks of columns.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, chop_cells

from babelscope.errors import printable

WIDTH = 80
DASH = "–"

# Columns called so, or so and more, end a row; their words are never broken.
ENDING = "verdict"
GAPS = (2, 1)  # between columns; the second where the first is too much
# Texts are broken to no less than this many cells, and words that are longer than so many, as paths may be.
NARROWEST, LONGEST_WORD = 12, 24

_NUMBER = re.compile(r"[-+\[]*(\d|\.\d)|undefined$|–$|inf|nan")
_BOUNDS = (("low", "high", "interval"),)

Row = Mapping[Any, object]


def cell(value: object, column: str = "") -> str:
    """A value as a reader wants it: three decimals, two digits of a p-value, a dash where there is none."""
    if isinstance(value, str):
        return printable(value) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(cell(v) for v in value) or DASH
    if str(value) in ("None", "nan", "<NA>", "NaT"):
        return DASH
    if str(value) in ("True", "False"):
        return "yes" if value else "no"
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return printable(str(value))
    if not isinstance(value, float) and number.is_integer() and "float" not in type(value).__name__:
        return str(value)
    if number.is_integer() and column.partition("_")[0] in ("n", "rows"):
        return f"{number:.0f}"  # a count is a float where another row of its column has none
    if column.rpartition("_")[2] in ("p", "q"):
        return f"{number:.2g}"
    ordinary = number == 0 or 5e-4 <= abs(number) < 1e6
    return f"{number:.3f}" if ordinary or math.isinf(number) else f"{number:.2e}"


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    cells: tuple[str, ...]
    numeric: bool

    @property
    def natural(self) -> int:
        """Cells of the widest text."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def narrow(self) -> int:
        """Cells of the widest text or word of the name."""
        return max(self.natural, *(cell_len(word) for word in _words(self.name)))

    @property
    def narrowest(self) -> int:
        """What the column can be broken to: at spaces and slashes, and within a word only where it is very long."""
        words = [cell_len(word) for text in self.cells for word in re.split(r" |(?<=/)", text)]
        return self.narrow if self.numeric else min(self.narrow, max(NARROWEST, *words), LONGEST_WORD)

    @property
    def ending(self) -> bool:
        return self.name.partition("_")[0] == ENDING

    @property
    def constant(self) -> bool:
        return not self.numeric and len(self.cells) > 1 and len(set(self.cells)) == 1


def table(rows: Iterable[Row], *, headings: Sequence[str] = ()) -> str:
    """Rows of named values as text, at most 80 cells wide.

    Bounds called `low` and `high` (or `x_low` and `x_high`) stand in one column.

    Parameters
    ----------
    rows : iterable of mapping
        Name of a column -> value, the same names in each row.
    headings : sequence of str
        Columns whose values stand above the rows that share them.
    """
    columns = _columns(list(rows))
    above = [c for c in columns if c.name in headings]
    columns = [c for c in columns if c.name not in headings]
    below: list[_Column] = []
    if _total(c.narrow for c in columns) > WIDTH:
        above += [c for c in columns if c.constant and not c.ending]
        columns = [c for c in columns if c not in above]
    if _total(c.narrow for c in columns) > WIDTH:
        below = [c for c in columns if c.ending]
        columns = [c for c in columns if not c.ending]
    texts = [c for c in columns if not c.numeric]
    # Without the first texts, or where that is not enough without all but the one that names the rows of each block.
    pulled = next((k for k in range(len(texts) + 1) if _fits(columns, texts[:k])), max(len(texts) - 1, 0))
    above += texts[:pulled]
    blocks = list(_folded([c for c in columns if c not in above]))
    return "\n\n".join(_block(above, block, below if block is blocks[0] else []) for block in blocks)


def facts(about: Mapping[str, str]) -> str:
    """Names and what is said of each, in two columns."""
    width = max(map(cell_len, about), default=0)
    return "\n".join(_hanging(_padded(name, width, right=False) + "  ", text) for name, text in about.items())


def bullets(texts: Iterable[str]) -> str:
    """Texts one under another, each behind a dash."""
    return "\n".join(_hanging("- ", text) for text in texts)


def _hanging(start: str, text: str) -> str:
    indent = cell_len(start)
    lines = wrapped(printable(text), WIDTH - indent)
    return "\n".join(f"{' ' * indent if k else start}{line}".rstrip() for k, line in enumerate(lines))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces; a longer word is broken anywhere."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        *full, rest = _broken(word, width)
        lines += [line, *full] if line else full
        line = rest
    return [*lines, line]


def _broken(word: str, width: int) -> list[str]:
    """A word in pieces of at most `width` cells, after a slash where there is one."""
    pieces = []
    while cell_len(word) > width:
        first = chop_cells(word, width)[0]
        first = first[: first.rfind("/") + 1] or first
        pieces.append(first)
        word = word[len(first) :]
    return [*pieces, word]


def _columns(rows: Sequence[Row]) -> list[_Column]:
    found = []
    for name in rows[0] if rows else ():
        start, underscore, bound = str(name).rpartition("_")
        pairs = [title for low, high, title in _BOUNDS if bound == low and f"{start}{underscore}{high}" in rows[0]]
        if pairs:
            title = f"{start} {pairs[0]}".strip()
            ends = (name, f"{start}{underscore}high")
            cells = tuple(_interval([cell(row[end], str(end)) for end in ends]) for row in rows)
        elif bound == "high" and f"{start}{underscore}low" in rows[0]:
            continue
        else:
            title, cells = str(name), tuple(cell(row[name], str(name)) for row in rows)
        found.append(_Column(title, cells, all(_NUMBER.match(text) for text in cells)))
    return found


def _interval(bounds: Sequence[str]) -> str:
    return DASH if DASH in bounds else f"[{', '.join(bounds)}]"


def _words(name: str) -> list[str]:
    return re.split(r"[ _]", name)


def _total(widths: Iterable[int], gap: int = GAPS[0]) -> int:
    listed = list(widths)
    return sum(listed) + gap * (len(listed) - 1)


def _fits(columns: Sequence[_Column], without: Sequence[_Column] = ()) -> bool:
    return _total((c.narrowest for c in columns if c not in without), GAPS[-1]) <= WIDTH


def _folded(columns: Sequence[_Column]) -> Iterator[list[_Column]]:
    """Blocks of columns that fit, each behind the first column where that one names the rows."""
    label = [c for c in columns[:1] if not c.numeric or c.name in ("layer", "step", "threshold")]
    block: list[_Column] = []
    for column in columns:
        if block and not _fits([*block, column]):
            yield block
            block = list(label)
        block.append(column)
    if block:
        yield block


def _widened(columns: Sequence[_Column], gap: int) -> list[int]:
    """Widths to print: what is left goes to texts first, then to the names of columns."""
    widths = [c.narrowest for c in columns]
    for k, column in enumerate(columns):
        widths[k] += min(column.narrow - widths[k], WIDTH - _total(widths, gap))
    for k, column in enumerate(columns):
        named = max(column.narrow, cell_len(column.name)) - widths[k]
        widths[k] += named if named <= WIDTH - _total(widths, gap) else 0
    return widths


def _block(above: Sequence[_Column], columns: Sequence[_Column], below: Sequence[_Column]) -> str:
    gap = next((g for g in GAPS if _total((c.narrowest for c in columns), g) <= WIDTH), GAPS[-1])
    widths = _widened(columns, gap)
    right = [c.numeric for c in columns]

    def line(texts: Iterable[str]) -> list[str]:
        return _line([wrapped(text, width) for text, width in zip(texts, widths, strict=True)], widths, right, gap)

    lines = line(" ".join(_words(c.name)) for c in columns)
    headed = [(_heading(above, i), i) for i in _grouped(above, len(columns[0].cells))]
    spaced = len({heading for heading, _ in headed}) < len(headed)
    said = ""
    for heading, i in headed:
        if heading != said:
            lines += ["", *wrapped(heading, WIDTH)] if spaced and said else wrapped(heading, WIDTH)
            said = heading
        row = line(c.cells[i] for c in columns)
        for column in (c for c in below if c.cells[i] != DASH):
            named = "" if column.name == ENDING else f"{' '.join(_words(column.name))}: "
            row = _ended(row, named + column.cells[i], _total(widths, gap))
        lines += row
    return "\n".join(line.rstrip() for line in lines)


def _grouped(above: Sequence[_Column], n: int) -> list[int]:
    """Rows in the order in which their headings first come."""
    keys = [tuple(c.cells[i] for c in above) for i in range(n)]
    order = {key: place for place, key in reversed(list(enumerate(keys)))}
    return sorted(range(n), key=lambda i: order[keys[i]])


def _heading(above: Sequence[_Column], i: int) -> str:
    said = [(c.name, c.cells[i], c.numeric or c.cells[i] in ("yes", "no")) for c in above if c.cells[i] != DASH]
    return ", ".join(f"{name} {text}" if named else text for name, text, named in said)


def _line(cells: Sequence[list[str]], widths: Sequence[int], right: Sequence[bool], gap: int) -> list[str]:
    """Lines of one row, whose cells hold one or more each."""
    height = max(map(len, cells))
    filled = [texts + [""] * (height - len(texts)) for texts in cells]
    return [
        (" " * gap).join(_padded(texts[k], w, right=r) for texts, w, r in zip(filled, widths, right, strict=True))
        for k in range(height)
    ]


def _ended(row: list[str], ending: str, total: int) -> list[str]:
    """The lines of a row with its ending at the right of the first line below the numbers that has room for it."""
    for k, line in enumerate([*row[1:], ""], start=1):
        free = max(total, cell_len(ending)) - cell_len(line.rstrip()) - cell_len(ending)
        if free >= GAPS[0] or not line:
            return [*row[:k], line.rstrip() + " " * free + ending, *row[k + 1 :]]
    return row


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
