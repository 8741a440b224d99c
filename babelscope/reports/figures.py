"""Every figure that tables allow, in the order of the report."""

from collections.abc import Iterable
from typing import Any, cast

import altair as alt

from babelscope.errors import BabelScopeError
from babelscope.reports.sections import SECTIONS
from babelscope.reports.source import Figure, Part, Source
from babelscope.schema import Result

__all__ = ["Figure", "figures", "of_part", "stacked"]


def figures(results: Iterable[Result]) -> list[Figure]:
    """Every figure that the tables allow: section by section, the published definitions last in each part."""
    source = Source(tuple(results))
    return [figure for section in SECTIONS for part in section.parts for figure in of_part(part, source)]


def of_part(part: Part, source: Source) -> list[Figure]:
    """Figures of one part, the corrected ones before those of the published definitions."""
    drawn = part.draw(source) if part.is_in(source) else []
    return sorted(drawn, key=lambda f: f.mode == "paper")


def stacked(results: Iterable[Result]) -> alt.TopLevelMixin:
    """All figures one above the other, for notebooks."""
    charts: list[Any] = [cast(Any, f.chart).properties(title=f.title) for f in figures(results)]
    if not charts:
        raise BabelScopeError("these tables hold nothing to draw", "analyze with a metric, as cs or nao")
    chart: alt.TopLevelMixin = alt.vconcat(*charts).resolve_scale(color="independent", strokeDash="independent")
    return chart
