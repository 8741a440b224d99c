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
    limit: Annotated[int | None, typer.Option(min=24, help="Items per task. Default: 120.")] = None,
) -> None:
    """Everything once: capture the embedded model, analyze, report."""
    with bar() as progress:
        analyses = workflows.demo(
            out, overwrite=overwrite, items=limit or workflows.DEMO_ITEMS, progress=progress, note=note
        )
    for analysis, report in zip(analyses, ("report.html", "report-within-rule.html"), strict=True):
        print(f"null: {analysis.null}")
        print(analysis.summary())
        print(out / report)
