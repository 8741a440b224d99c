"""`babelscope sweep`: how far a result depends on a threshold."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope.cli import analyze
from babelscope.cli.options import (
    AsJson,
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
    Within,
    beside,
)  # fmt: skip


def run(
    store: Store,
    grid: Annotated[str, typer.Argument(help="Parameter and grid, as threshold=0.1:0.9:0.05.")],
    metric: Metrics = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: STORE.sweep.")] = None,
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
    as_json: AsJson = False,
) -> None:
    """Analyze a store at every value of a grid. Default metric: nao.

    The store is read once. The published nao costs little more than at one value; corrected pairs, which are
    compared anew at every value, cost nearly as many times more as GRID has values (--mode paper leaves them out).
    """
    analyze.run(
        [store], metric=metric or ["nao"], sweep=[grid], out=out or beside(store, "sweep"), languages=languages,
        site=site, position=position, by=by, within=within, mode=mode, marked=marked, seed=seed, jobs=jobs,
        overwrite=overwrite, as_json=as_json,
    )  # fmt: skip
