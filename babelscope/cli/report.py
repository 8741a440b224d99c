"""`babelscope report`: draw the report again from saved tables."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Overwrite, Store
from babelscope.errors import BabelScopeError


def run(
    store: Store,
    tables: Annotated[Path, typer.Argument(help="Folder that `analyze` wrote, or its tables.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    overwrite: Overwrite = False,
) -> None:
    """Write the report of saved TABLES of STORE as one HTML file."""
    if out.suffix not in (".html", ".htm"):
        raise BabelScopeError(f"{out}: reports are written as HTML", f"call it {out.with_suffix('.html')}")
    workflows.check_output(out, overwrite=overwrite)
    print(workflows.load_analysis(store, tables).report(out))
