"""`babelscope analyze`: metrics of a store against their nulls, as tables and a report."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from babelscope import workflows
from babelscope.cli.options import Languages, Metrics, Overwrite, Sites, Store, Sweep, split_codes, sweep_grids
from babelscope.cli.progress import bar, note
from babelscope.cli.tables import print_summary


def run(
    store: Store,
    metric: Metrics = None,
    sweep: Sweep = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and report. Default: STORE.analysis.")] = None,
    languages: Languages = None,
    site: Sites = None,
    position: Annotated[str | None, typer.Option(help="Stored position to read.")] = None,
    by: Annotated[str, typer.Option(help="Item covariate that forms groups; auto or none.")] = "auto",
    mode: Annotated[Literal["corrected", "paper", "both"], typer.Option(help="Definitions to compute.")] = "both",
    seed: Annotated[int, typer.Option(help="Seed of permutations and bootstraps.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    overwrite: Overwrite = False,
) -> None:
    """Compare languages in STORE: every number beside its null, its interval and its n."""
    folder = out or Path(f"{str(store).rstrip('/')}.analysis")
    workflows.check_folder(folder, overwrite=overwrite)
    with bar() as progress:
        analysis = workflows.analyze(
            store, metric or ("cs", "nao"), sweep=sweep_grids(sweep), sites=site, languages=split_codes(languages),
            position=position, by=None if by == "none" else by, mode=mode, seed=seed, jobs=jobs, progress=progress,
        )  # fmt: skip
    analysis.save(folder / "tables")
    analysis.report(folder / "report.html")
    print_summary(analysis)
    note(f"tables in {folder / 'tables'}")
    print(folder / "report.html")
