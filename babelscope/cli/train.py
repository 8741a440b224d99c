"""`babelscope train`: the models that are worth probing."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.progress import note

app = typer.Typer(help="Train a model to probe.", no_args_is_help=True)


@app.callback()
def methods() -> None:
    """Train a model to probe."""


@app.command()
def organism(
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts of each phase, to try it out.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data, initialization and order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")] = False,
) -> None:
    """Train the small multilingual decoder from nothing, with its tokenizer and its model card."""
    workflows.train_organism(out, limit=limit, seed=seed, resume=resume, note=note)
    print(out)
