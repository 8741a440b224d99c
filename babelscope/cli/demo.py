"""`babelscope demo`: everything once, on the embedded model."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, Overwrite
from babelscope.cli.printing import show
from babelscope.cli.progress import bar, note


def run(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    overwrite: Overwrite = False,
    limit: Annotated[int | None, typer.Option(min=24, help="Items per task. Default: 120.")] = None,
    as_json: AsJson = False,
) -> None:
    """Everything once: capture the embedded model, analyze, report."""
    with bar() as progress:
        analyses = workflows.demo(
            out, overwrite=overwrite, items=limit or workflows.DEMO_ITEMS, progress=progress, note=note
        )
    made = dict(zip((out / "report.html", out / "report-within-rule.html"), analyses, strict=True))
    texts = [f"null: {analysis.null}\n{analysis.summary()}\n{report}" for report, analysis in made.items()]
    found = [{"null": a.null, "tables": a.shown(), "report": report} for report, a in made.items()]
    show("\n\n".join(texts), found, as_json=as_json)
