"""`babelscope sweep`: how far a result depends on a threshold."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from babelscope.cli import analyze
from babelscope.cli.options import Languages, Metrics, Overwrite, Sites, Store


def run(
    store: Store,
    grid: Annotated[str, typer.Argument(help="Parameter and grid, as threshold=0.1:0.9:0.05.")],
    metric: Metrics = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and report. Default: STORE.sweep.")] = None,
    languages: Languages = None,
    site: Sites = None,
    by: Annotated[str, typer.Option(help="Item covariate that forms groups; auto or none.")] = "auto",
    mode: Annotated[Literal["corrected", "paper", "both"], typer.Option(help="Definitions to compute.")] = "both",
    seed: Annotated[int, typer.Option(help="Seed of permutations and bootstraps.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overwrite: Overwrite = False,
) -> None:
    """Analyze STORE at every value of GRID in one pass over the data."""
    analyze.run(
        store, metric or ["nao"], [grid], out or Path(f"{str(store).rstrip('/')}.sweep"), languages, site, None, by,
        mode, seed, jobs, overwrite,
    )  # fmt: skip
