"""`babelscope pack`: a store as one file."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, Overwrite, Store
from babelscope.cli.printing import show
from babelscope.cli.progress import bar


def run(
    store: Store,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write. Default: packed.h5 inside of STORE.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Accept a store that lacks shards.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a store to one HDF5 file, which every command reads as well."""
    with bar() as progress:
        packed = workflows.pack(store, out, partial=partial, overwrite=overwrite, progress=progress)
    show(packed, packed, as_json=as_json)
