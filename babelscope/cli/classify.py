"""`babelscope classify`: what an encoder with a classifier answers."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Languages, Limit, Mapping, Overwrite, Prompts, split_codes
from babelscope.cli.progress import bar, note


def run(
    model: Annotated[str, typer.Argument(help="Folder that train bitfit or train full wrote, or hub id.")],
    prompts: Prompts = None,
    languages: Languages = None,
    limit: Limit = None,
    mapping: Mapping = None,
    out: Annotated[Path | None, typer.Option(help="CSV file of every answer.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Accuracy of a classifier in each language, and in code-switched prompts.

    Example: cli.py classify tuned --prompts ruletaker --languages en,fr,en-fr
    """
    if out is not None:
        workflows.check_output(out, overwrite=overwrite)
    with bar() as progress:
        answers = workflows.classify(
            model, prompts or (), languages=split_codes(languages), limit=limit, mapping=mapping, progress=progress,
            note=note,
        )  # fmt: skip
    if out is not None:
        partial = out.with_name(f".{out.name}.tmp")
        answers.to_csv(partial, index=False)
        partial.replace(out)
    print(workflows.by_language(answers).round(3).to_string(index=False))
