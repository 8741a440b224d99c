"""The verb `compare`: the same items in several stores, as before and after training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from babelscope import analyses, reports
from babelscope.errors import BabelScopeError
from babelscope.schema import Result
from babelscope.workflows.analysis import open_store
from babelscope.workflows.outputs import reported
from babelscope.workflows.signals import Note, Progress

# What a reader sees first of `change`.
SHOWN = ("after", "metric", "variant", "site", "group", "threshold", "n", "gap_before", "gap_after", "change", "low",
         "high", "q", "verdict")  # fmt: skip


def compare(
    stores: Sequence[str | Path] | Mapping[str, str | Path],
    metrics: Sequence[str] | str | None = None,
    *,
    progress: Progress | None = None,
    note: Note = lambda _: None,
    **options: Any,
) -> "Comparison":
    """What changed between the first store and each other one, item by item.

    Parameters
    ----------
    stores : sequence of path, or mapping of name to path
        The one that the others are compared with first.
    metrics, options
        As in `analyze`.
    progress, note : callable, optional
        Called with (done, total, what), and with lines for a log.

    Raises
    ------
    BabelScopeError
        For anything that the user can fix.
    """
    named = dict(stores) if isinstance(stores, Mapping) else _named([Path(s) for s in stores])
    opened = {name: open_store(path) for name, path in named.items()}
    for store in opened.values():
        done, planned = store.progress
        if done < planned:
            note(f"{store.path} is unfinished: {done} of {planned} shards; only items found everywhere count")
    within = options.get("within") or ()
    options["within"] = [within] if isinstance(within, str) else within
    wanted = [metrics] if isinstance(metrics, str) else metrics
    results = analyses.compare(opened, wanted, progress=progress, **options)
    if not results[0].provenance["same_prompts"]:
        note("the stores were captured from different sets of prompts; items are taken to be the same by their names")
    return Comparison(tuple(results))


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Paths by their stems, or by as much of the path as tells them apart."""
    names = [p.stem for p in paths]
    if len(set(names)) < len(names):
        names = [str(p) for p in paths]
    if len(set(names)) < len(names):
        raise BabelScopeError("a store is named twice", "name different stores")
    return dict(zip(names, paths, strict=True))


@dataclass(frozen=True, slots=True)
class Comparison:
    """The tables of one `compare`: `change`, and `accuracy_change` where the models answered."""

    results: tuple[Result, ...]

    def __getitem__(self, name: str) -> pd.DataFrame:
        tables = {result.name: result.table for result in self.results}
        if name not in tables:
            raise BabelScopeError(f"no table {name!r} in this comparison", f"it has {', '.join(tables)}")
        return tables[name]

    def headline(self) -> pd.DataFrame:
        """Changes over all layers by the corrected definitions, or by the published ones where there are no others."""
        table = self["change"]
        table = table[table["layer"].isna()]
        corrected = table["mode"] == "corrected"
        return table[corrected if corrected.any() else ~corrected][list(SHOWN)].reset_index(drop=True)

    def summary(self) -> str:
        """The headline, and changes of accuracy, as text."""
        return reports.texts(self.shown())

    def shown(self) -> dict[str, pd.DataFrame]:
        """The tables that `summary` prints, with every digit."""
        return {"change": self.headline(), **{r.name: r.table for r in self.results if r.name == "accuracy_change"}}

    def save(self, folder: str | Path) -> list[Path]:
        """Write every table as Parquet, CSV and JSON provenance."""
        with reported(Path(folder)):
            return [path for result in self.results for path in result.save(Path(folder))]
