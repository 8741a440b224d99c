"""`babelscope export`: a part of a store for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli import completion
from babelscope.cli.options import AsJson, DryRun, Languages, Overwrite, ReadPosition, Sites, Store, split_codes
from babelscope.cli.printing import show
from babelscope.cli.progress import bar


def run(
    store: Store,
    out: Annotated[Path, typer.Argument(help="File or folder to write.")],
    format: Annotated[
        str,
        typer.Option(
            "--format", help="safetensors, zarr, numpy or arrow.", autocompletion=completion.plugin("exporter")
        ),
    ],
    site: Sites = None,
    languages: Languages = None,
    position: ReadPosition = None,
    layer: Annotated[str | None, typer.Option("--layer", help="Layers of all sites, as 0,3 or 2:6.")] = None,
    float32: Annotated[bool, typer.Option("--float32", help="Widen bfloat16, which loses nothing.")] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Write a part of a store for other tools.

    Items, languages, layers and position stand beside the numbers.
    """
    with bar(hidden=dry_run) as progress:
        found = workflows.export(
            store, out, format=format, sites=site, languages=split_codes(languages), layers=layer, position=position,
            float32=float32, overwrite=overwrite, dry_run=dry_run, progress=progress,
        )  # fmt: skip
    show(found, found, as_json=as_json)
