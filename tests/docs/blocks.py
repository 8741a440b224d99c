"""The fenced blocks of a page, with what a comment above one says of how it is checked.

A block is run, or checked in the way of its language, unless the comment above it says otherwise:

- `<!-- checked: parsed, WHY -->`: it takes minutes, a GPU, a hub or a cluster; commands, options and names must exist.
- `<!-- checked: run with --limit 8 -->`: its commands get these options as well, where they have them.
- `<!-- checked: by tests/x.py -->`: that test runs it.
- `<!-- first: python cli.py ... -->`: a command that is run before the block, and that a reader has run already.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
COMMENT = re.compile(r"<!--\s*(checked|first):\s*(.*?)\s*-->\Z", re.DOTALL)
FENCE = re.compile(r"( *)(```+)(.*)\Z")


@dataclass(frozen=True)
class Block:
    """One fenced block; `where` is for failures."""

    language: str
    text: str
    where: str
    checked: str = ""
    first: tuple[str, ...] = ()


def pages(folder: str) -> list[str]:
    """Pages of one folder of the documentation, by path from the checkout."""
    return sorted(str(path.relative_to(ROOT)) for path in (DOCS / folder).glob("*.md"))


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks in the order of the page.

    Raises
    ------
    ValueError
        For a block that does not end, and for a comment that says how to check and stands above no block.
    """
    lines = page.read_text("utf-8").split("\n")
    checked, first, i = "", [], 0
    while i < len(lines):
        where = f"{page.name}:{i + 1}"
        fence = FENCE.match(lines[i])
        if fence is not None:
            end = next((j for j in range(i + 1, len(lines)) if lines[j].strip() == fence[2]), None)
            if end is None:
                raise ValueError(f"{where}: the block does not end")
            text = "\n".join(line.removeprefix(fence[1]) for line in lines[i + 1 : end]) + "\n"
            yield Block(fence[3].strip(), text, where, checked, tuple(first))
            checked, first, i = "", [], end
        elif lines[i].lstrip().startswith("<!--"):
            end = next(j for j in range(i, len(lines)) if "-->" in lines[j])
            comment = COMMENT.match("\n".join(lines[i : end + 1]).strip())
            if comment is not None and comment[1] == "checked":
                checked = comment[2]
            elif comment is not None:
                first += comment[2].split("\n")
            i = end
        elif lines[i].strip() and (checked or first):
            raise ValueError(f"{where}: a comment that says how a block is checked stands above none")
        i += 1
    if checked or first:
        raise ValueError(f"{page.name}: a comment that says how a block is checked stands above none")
