"""`babelscope import`: a store of what another tool has captured."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli import completion
from babelscope.cli.options import AsJson, DryRun, Overwrite
from babelscope.cli.printing import show
from babelscope.cli.progress import bar


def run(
    out: Annotated[Path, typer.Argument(help="Store folder to write.")],
    source: Annotated[Path, typer.Argument(help="File or folder, as docs/exchange.md describes it.")],
    kind: Annotated[
        str,
        typer.Option("--from", help="transformer-lens, saelens or npy.", autocompletion=completion.plugin("importer")),
    ],
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a store of what another tool has captured.

    Its provenance says that no model was run here.
    """
    with bar(hidden=dry_run) as progress:
        found = workflows.import_store(out, source, kind=kind, overwrite=overwrite, dry_run=dry_run, progress=progress)
    show(found, found, as_json=as_json)
