"""`babelscope probe`: what can be read off a layer, in one language and across languages."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli import completion
from babelscope.cli.options import (
    AsJson,
    Jobs,
    Languages,
    Marked,
    Overwrite,
    Seed,
    Sites,
    beside,
    settings_of,
    split_codes,
)
from babelscope.cli.printing import show
from babelscope.cli.progress import bar, note


def run(
    store: Annotated[Path, typer.Argument(help="Store, as run.acts.")],
    target: Annotated[str, typer.Option(help="language, script, correct, or a covariate.")],
    probe: Annotated[str, typer.Option(help="cli.py ls probes.", autocompletion=completion.plugin("probe"))] = "ridge",
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=X", help="Parameter of the probe, as C=0.1.")
    ] = None,
    site: Sites = None,
    position: Annotated[
        list[str] | None,
        typer.Option(help="Stored position. Default: last.", autocompletion=completion.positions),
    ] = None,
    languages: Languages = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="raw, centered, erased. Default: the first two.",
            autocompletion=completion.one_of("raw", "centered", "erased"),
        ),
    ] = None,
    group: Annotated[str | None, typer.Option(help="Items that share this covariate stay together.")] = None,
    control: Annotated[str | None, typer.Option(help="Covariate of the control task, none. Default: rule.")] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of items.")] = 5,
    permutations: Annotated[int, typer.Option(min=39, help="Shuffled labels, fitted anew.")] = 99,
    mdl: Annotated[bool, typer.Option("--mdl", help="Description lengths as well.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: STORE.probes.")] = None,
    marked: Marked = "refuse",
    seed: Seed = 0,
    jobs: Jobs = 2,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Probe every layer in one language, and test in all, on unseen items."""
    folder = out or beside(store, "probes")
    with workflows.new_folder(folder, overwrite=overwrite, parts=("tables", "probes.npz", "probes.json")) as building:
        with bar() as progress:
            found = workflows.probe(
                store, target, probe=probe, settings=settings_of(setting), sites=site, positions=position,
                languages=split_codes(languages), variants=variant, group=group, control=control, folds=folds,
                permutations=permutations, mdl=mdl, marked=marked, seed=seed, jobs=jobs, progress=progress, note=note,
            )  # fmt: skip
        found.save(building)
    show(
        f"{found.summary()}\n{folder / 'tables'}",
        {"tables": found.shown(), "saved": folder / "tables"},
        as_json=as_json,
    )
