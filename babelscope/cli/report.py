"""`babelscope report`: everything that was computed from a store, on one page."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Overwrite
from babelscope.cli.progress import bar, note
from babelscope.errors import BabelScopeError


def run(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Stores, and folders of tables: run.acts run.acts.analysis. Tables beside a "
            "store under their default names are found.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="HTML file to write; numbers and figures go beside it.")
    ] = Path("report.html"),
    figures: Annotated[
        list[str] | None, typer.Option(help="svg, pdf or png: each figure as a picture as well. Repeatable.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Where the model is now, whose tokenizer cuts single items. Default: as captured."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML file about stores: verdicts, data, figures with their answers; all numbers beside it."""
    if out.suffix not in (".html", ".htm"):
        raise BabelScopeError(f"{out}: reports are written as HTML", f"call it {out.with_suffix('.html')}")
    workflows.check_report(out, overwrite=overwrite)
    with bar() as progress:
        print(workflows.report(paths, out, model=model, figures=figures or (), progress=progress, note=note))
