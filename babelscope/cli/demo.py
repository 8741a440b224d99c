"""`babelscope demo`: everything once, on the embedded model."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Overwrite
from babelscope.cli.progress import bar, note
from babelscope.cli.tables import print_summary


def run(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    overwrite: Overwrite = False,
    limit: Annotated[int, typer.Option(min=8, help="Items per task.")] = workflows.DEMO_ITEMS,
) -> None:
    """Capture the embedded model on parallel prompts in 14 languages, analyze, and write a report."""
    with bar() as progress:
        analysis = workflows.demo(out, overwrite=overwrite, items=limit, progress=progress, note=note)
    print_summary(analysis)
    print(out / "report.html")
