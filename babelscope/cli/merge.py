"""`babelscope merge`: the shards of several stores in one."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, DryRun, Overwrite
from babelscope.cli.printing import show
from babelscope.cli.progress import bar


def run(
    out: Annotated[Path, typer.Argument(help="Store folder to write.")],
    stores: Annotated[list[Path], typer.Argument(help="Stores of one plan.")],
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put the shards that several jobs of one plan captured in one store."""
    with bar(hidden=dry_run) as progress:
        merged = workflows.merge(out, stores, overwrite=overwrite, dry_run=dry_run, progress=progress)
    show(merged, merged, as_json=as_json)
