"""`babelscope evaluate`: what a captured model can do in each language, and what of it is transferred."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from babelscope import workflows
from babelscope.cli import completion
from babelscope.cli.options import AsJson, Languages, Mode, Overwrite, Seed, beside, split_codes
from babelscope.cli.printing import show
from babelscope.cli.progress import note


def run(
    store: Annotated[Path, typer.Argument(help="Store of a capture with answers, as run.acts.")],
    source: Annotated[str | None, typer.Option(help="Transferred from. Default: en, else the first.")] = None,
    languages: Languages = None,
    by: Annotated[str, typer.Option(help="Item covariate of groups, or none.")] = "task",
    scoring: Annotated[
        str,
        typer.Option(
            help="What tells the answer: labels (or labels-bare, -spaced, -last), texts, texts-per-token, written.",
            autocompletion=completion.one_of(
                "labels", "labels-bare", "labels-spaced", "labels-last", "texts", "texts-per-token", "written"
            ),
        ),
    ] = "labels",
    chance: Annotated[
        Literal["uniform", "majority"], typer.Option(help="1 / options, or the share of the commonest.")
    ] = "uniform",
    mode: Mode = "both",
    comet: Annotated[str | None, typer.Option(help="Of translations: checkpoint file of COMET.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: STORE.evaluation.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy, transfer and consistency of what the model answered.

    Transfer (XLTR) stands beside what independent answers would give. Translations are scored by chrF and BLEU.
    """
    folder = out or beside(store, "evaluation")
    with workflows.new_folder(folder, overwrite=overwrite, parts=("tables",)) as building:
        found = workflows.evaluate(
            store, source=source, languages=split_codes(languages), by=None if by == "none" else by, scoring=scoring,
            chance=chance, mode=mode, comet=comet, seed=seed, note=note,
        )  # fmt: skip
        found.save(building / "tables")
    show(
        f"{found.summary()}\n{folder / 'tables'}",
        {"tables": found.shown(), "saved": folder / "tables"},
        as_json=as_json,
    )
