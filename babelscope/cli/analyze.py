"""`babelscope analyze`: metrics of a store against their nulls, as tables and a report."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import (
    By,
    Jobs,
    Languages,
    Marked,
    Metrics,
    Mode,
    Overwrite,
    ReadPosition,
    Seed,
    Sites,
    Store,
    Sweep,
    Within,
    beside,
    split_codes,
    sweep_grids,
)  # fmt: skip
from babelscope.cli.progress import bar, note


def run(
    store: Store,
    metric: Metrics = None,
    sweep: Sweep = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and report. Default: STORE.analysis.")] = None,
    languages: Languages = None,
    site: Sites = None,
    position: ReadPosition = None,
    by: By = "auto",
    within: Within = None,
    mode: Mode = "both",
    marked: Marked = "refuse",
    seed: Seed = 0,
    jobs: Jobs = 2,
    overwrite: Overwrite = False,
) -> None:
    """Compare languages in STORE: every number beside its null, its interval and its n."""
    folder, grids = out or beside(store, "analysis"), sweep_grids(sweep)
    opened = workflows.open_store(store)
    with workflows.new_folder(folder, overwrite=overwrite, parts=("tables", "report.html")) as building:
        with bar() as progress:
            analysis = workflows.analyze(
                opened, metric, sweep=grids, sites=site, languages=split_codes(languages),
                position=position, by=None if by == "none" else by, within=within or (), mode=mode, marked=marked,
                seed=seed, jobs=jobs, progress=progress, note=note,
            )  # fmt: skip
        analysis.save(building / "tables")
        analysis.report(building / "report.html")
    print(f"null: {analysis.null}")
    print(analysis.summary())
    print(folder / "report.html")
