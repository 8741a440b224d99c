"""`babelscope inspect`: what a store holds and where it comes from."""

import json
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Store
from babelscope.errors import printable


def run(
    store: Store,
    provenance: Annotated[bool, typer.Option("--provenance", help="Also print where every number came from.")] = False,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Also print accuracy per language and task.")] = False,
) -> None:
    """Print model, languages, items, sites, size and progress of STORE."""
    opened = workflows.open_store(store)
    print(opened)
    if accuracy:
        print(workflows.accuracy(opened).table.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    if provenance:
        print(printable(json.dumps(opened.provenance, indent=1, ensure_ascii=False, default=str)))
