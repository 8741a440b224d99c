"""`babelscope classify`: what an encoder with a classifier answers."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import AsJson, Languages, Limit, Mapping, Overwrite, Prompts, split_codes
from babelscope.cli.printing import show
from babelscope.cli.progress import bar, note

PARTS = ("matrix.parquet", "matrix.csv", "matrix.json")


def run(
    model: Annotated[str, typer.Argument(help="Folder that train bitfit or full wrote, or hub id.")],
    prompts: Prompts = None,
    languages: Languages = None,
    limit: Limit = None,
    mapping: Mapping = None,
    by: Annotated[str | None, typer.Option(help="Item covariate that splits the table, as depth.")] = None,
    tables: Annotated[Path | None, typer.Option(help="Folder for the matrix of two languages.")] = None,
    out: Annotated[Path | None, typer.Option(help="CSV file of every answer.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy of a classifier, also in code-switched prompts."""
    if out is not None:
        workflows.check_output(out, overwrite=overwrite)
    if tables is not None:
        workflows.check_output(tables, overwrite=overwrite, parts=PARTS)
    with bar() as progress:
        answers = workflows.classify(
            model, prompts or (), languages=split_codes(languages), limit=limit, mapping=mapping, by=by,
            progress=progress, note=note,
        )  # fmt: skip
    if out is not None:
        partial = out.with_name(f".{out.name}.tmp")
        answers.to_csv(partial, index=False)
        partial.replace(out)
    matrix = workflows.matrix_of(answers, by)
    if tables is not None and matrix is None:
        note("no prompt is in two languages, so there is no matrix")
    elif tables is not None and matrix is not None:
        with workflows.new_folder(tables, overwrite=overwrite, parts=PARTS) as building:
            matrix.save(building)
    saved = tables if matrix is not None else None
    text = workflows.answers_text(answers, matrix, by)
    shown = {"accuracy": workflows.by_language(answers, by), **({} if matrix is None else {"matrix": matrix.table})}
    show(f"{text}\n{saved}" if saved else text, {"tables": shown, "saved": saved, "answers": out}, as_json=as_json)
