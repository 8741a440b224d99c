"""`babelscope demo`: everything once, on the embedded model."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Overwrite
from babelscope.cli.progress import bar, note


def run(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    overwrite: Overwrite = False,
    limit: Annotated[int | None, typer.Option(min=8, help="Items per task. Default: 120.")] = None,
) -> None:
    """Capture the embedded model on parallel prompts in 14 languages, analyze, and write a report."""
    with bar() as progress:
        analysis = workflows.demo(
            out, overwrite=overwrite, items=limit or workflows.DEMO_ITEMS, progress=progress, note=note
        )
    print(analysis.summary())
    print(out / "report.html")
