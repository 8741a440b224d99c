"""`babelscope unpack`: the files of a packed store again."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, Overwrite
from babelscope.cli.printing import show
from babelscope.cli.progress import bar


def run(
    packed: Annotated[Path, typer.Argument(help="File that `pack` wrote.")],
    out: Annotated[Path, typer.Argument(help="Store folder to write.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write the files of a packed store, byte by byte as they were."""
    with bar() as progress:
        store = workflows.unpack(packed, out, overwrite=overwrite, progress=progress)
    show(store, store, as_json=as_json)
