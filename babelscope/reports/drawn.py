"""Figures of all sources in their order, each with the name that it has in the page and on the disk."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from babelscope.reports.figures import of_part
from babelscope.reports.sections import SECTIONS
from babelscope.reports.source import Figure, Section, Source


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure in its place.

    Parameters
    ----------
    key : str
        Its name in the page.
    name : str
        Its name on the disk, without a suffix.
    section : Section
    title : str
        With the name of the store where there are several.
    figure : Figure
    folded : bool
        Whether it is unfolded by a click: all but the first of an analysis.
    """

    key: str
    name: str
    section: Section
    title: str
    figure: Figure
    folded: bool

    @property
    def file(self) -> str:
        """Where its rows are."""
        return f"{self.name}.csv"


def draw(sources: Sequence[Source]) -> list[Drawn]:
    """All figures of all sources, section by section and part by part."""
    found: list[Drawn] = []
    for section in SECTIONS:
        for part in section.parts:
            for source in sources:
                for i, figure in enumerate(of_part(part, source)):
                    title = f"{figure.title} ({source.name})" if len(sources) > 1 else figure.title
                    k = len(found)
                    found.append(Drawn(f"figure-{k}", f"{k + 1:02d}-{_slug(title)}", section, title, figure, i > 0))
    return found


def _slug(title: str) -> str:
    """Letters and digits of a title, short enough for any file system."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80].rstrip("-")
