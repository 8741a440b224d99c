"""`babelscope verify`: whether a store is what was written."""

from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, Store
from babelscope.cli.printing import show
from babelscope.cli.progress import bar
from babelscope.errors import BabelScopeError, printable


def run(
    store: Store,
    full: Annotated[bool, typer.Option("--full", help="Read every byte, and check each sha256.")] = False,
    untrusted: Annotated[
        bool, typer.Option("--untrusted", help="In a process with little memory and time; nothing is written.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print everything that is wrong with a store; exit 1 if anything is."""
    with bar() as progress:
        found = workflows.verify(store, full=full, untrusted=untrusted, progress=progress)
    show(printable(str(found)), found, as_json=as_json)
    if not found:
        raise BabelScopeError(
            f"{store} is not as it was written: {len(found.findings)} findings",
            "pack the store again, or fetch the file again"
            if store.is_file()
            else f"cli.py repair {store} moves damaged shards aside, so that capture --resume computes them again",
        )
