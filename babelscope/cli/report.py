"""`babelscope report`: draw the report again from saved tables."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Overwrite, Store


def run(
    store: Store,
    tables: Annotated[Path, typer.Argument(help="Folder with the tables of `analyze`.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    overwrite: Overwrite = False,
) -> None:
    """Write the report of saved TABLES of STORE as one HTML file."""
    workflows.check_folder(out, overwrite=overwrite)
    print(workflows.load_analysis(store, tables).report(out))
