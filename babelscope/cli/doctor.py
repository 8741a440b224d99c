"""`babelscope doctor`: what was found in a model, and whether it is what its name says."""

import json
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Anatomy
from babelscope.errors import BabelScopeError


def run(
    model: Annotated[str, typer.Argument(help="Local folder, hub id, or embedded model (cli.py ls models).")],
    anatomy: Anatomy = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the parts of MODEL, the errors of the laws that prove them, and the self-test; exit 1 if any fails."""
    found = workflows.doctor(model, anatomy=anatomy, revision=revision, dtype=dtype, device=device)
    print(json.dumps(found.to_json(), ensure_ascii=False) if as_json else found)
    if found.problems:
        raise BabelScopeError(
            f"{found.architecture}: {found.problems[0]}",
            "sites that are listed can be captured; name missing parts in a file (--anatomy, see docs/anatomy.md)",
        )
