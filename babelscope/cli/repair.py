"""`babelscope repair`: damaged shards are moved aside, and nothing else."""

from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, Store
from babelscope.cli.printing import show
from babelscope.cli.progress import bar
from babelscope.errors import BabelScopeError, printable


def run(
    store: Store,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be moved, and move nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move damaged shards to the folder quarantine of their store.

    The capture, with --resume, computes them again.
    """
    with bar() as progress:
        done = workflows.repair(store, dry_run=dry_run, progress=progress)
    show(printable(str(done)), done, as_json=as_json)
    if done.left:
        raise BabelScopeError(
            f"{store}: {len(done.left)} findings that moving a shard does not mend", "they are listed above"
        )
