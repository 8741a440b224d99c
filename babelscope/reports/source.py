"""What a report is drawn from, and what it consists of: sections of parts, each part of figures."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from babelscope.schema import Result
from babelscope.schema.site import split_site

if TYPE_CHECKING:
    from babelscope.activations_store import ActivationStore


@dataclass(frozen=True, slots=True)
class Source:
    """A store and the results that were computed from it.

    Parameters
    ----------
    results : tuple of Result
    store : ActivationStore or None
        None where figures are drawn from tables alone.
    label : str
        What tells it from other sources of a report; "" for the name of the store.
    """

    results: tuple[Result, ...]
    store: "ActivationStore | None" = None
    label: str = ""

    @property
    def name(self) -> str:
        """What tells it from other sources of a report."""
        return self.label or self.typed

    @property
    def typed(self) -> str:
        """The store as a path to type."""
        return self.store.path.name if self.store is not None else "STORE"

    def table(self, name: str) -> pd.DataFrame | None:
        """Rows of a result; None where there is none, or an empty one."""
        for result in self.results:
            if result.name == name and len(result.table):
                return result.table
        return None

    def similarities(self) -> Iterator[Result]:
        """Results of metrics: similarities of languages beside their null."""
        for result in self.results:
            if {"matched", "null", "layer", "threshold", "language_a"} <= set(result.table.columns):
                yield result


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, and the sentences that say what it shows and how to read it.

    Parameters
    ----------
    kind : str
        What sort of figure it is, as `layers`.
    mode : {"corrected", "paper"}
    title, caption : str
    chart : altair chart
    table : DataFrame
        The numbers that it shows, at full precision.
    answer : str
        What its numbers say, one sentence made of test results; "" where nothing was tested.
    """

    kind: str
    mode: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    table: pd.DataFrame = field(repr=False)
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of one analysis.

    Parameters
    ----------
    title : str
    command : str
        What supplies its tables, with STORE for the store, as `analyze STORE --metric cs`.
    tables : tuple of str
        Names of results, of which it draws those that are there.
    draw : callable
        Source -> figures; called where one of the tables is there.
    sites : tuple of str
        Names of sites, of which the store must hold one for the command to work; none if it reads answers alone.
    prompts : str
        What prompts the capture must hold beyond parallel ones, as `languages that are paraphrases of others`.
    """

    title: str
    command: str
    tables: tuple[str, ...]
    draw: Callable[[Source], list[Figure]]
    sites: tuple[str, ...] = ()
    prompts: str = ""

    def is_in(self, source: Source) -> bool:
        """Whether there is a table to draw; True for parts that name none and look for themselves."""
        return not self.tables or any(source.table(name) is not None for name in self.tables)

    def missing(self, source: Source) -> str:
        """What to do to have it, as a sentence."""
        does = f"cli.py {self.command.replace('STORE', source.typed)}"
        for option in ("--recipe", "--metric"):  # beside an earlier analysis, which stays; `report` finds both
            name = does.partition(f"{option} ")[2].split(" ")[0]
            does += f" --out {source.typed}.{name}" if name and "--out" not in does else ""
        held = {split_site(name)[1] for name in source.store.sites} if source.store is not None else set()
        if self.sites and held.isdisjoint(self.sites):
            return f"not captured: needs --site {self.sites[0]}, then {does}"
        if self.prompts:
            return f"needs {self.prompts}: {does}"
        return f"not analyzed yet: {does}"


@dataclass(frozen=True, slots=True)
class Section:
    """A question, and the parts that answer it, in the order in which they are read."""

    title: str
    question: str
    parts: tuple[Part, ...]
