"""`babelscope probe`: what can be read off a layer, in one language and across languages."""

from pathlib import Path
from typing import Annotated

import typer

from babelscope import workflows
from babelscope.cli.options import Jobs, Languages, Marked, Overwrite, Seed, Sites, beside, settings_of, split_codes
from babelscope.cli.progress import bar, note


def run(
    store: Annotated[Path, typer.Argument(help="Store, as run.acts.")],
    target: Annotated[
        str, typer.Option(help="language, script, correct, or an item covariate, as gold-letter, rule, depth.")
    ],
    probe: Annotated[str, typer.Option(help="cli.py ls probes.")] = "ridge",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Parameter of the probe, as C=0.1. Repeatable.")
    ] = None,
    site: Sites = None,
    position: Annotated[list[str] | None, typer.Option(help="Stored position. Repeatable. Default: last.")] = None,
    languages: Languages = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="raw, centered, erased. Repeatable. Default: raw and centered.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Item covariate, as fact: items that share it are never split.")
    ] = None,
    control: Annotated[
        str | None, typer.Option(help="Item covariate: types of the control task, or none. Default: rule.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds of items.")] = 5,
    permutations: Annotated[int, typer.Option(min=39, help="Shuffled labels, fitted anew.")] = 99,
    mdl: Annotated[bool, typer.Option("--mdl", help="Description lengths as well, by the online code.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for tables and probes. Default: STORE.probes.")] = None,
    marked: Marked = "refuse",
    seed: Seed = 0,
    jobs: Jobs = 2,
    overwrite: Overwrite = False,
) -> None:
    """Fit a probe in every layer and language, and test it in all languages on items that it has not seen.

    Example: cli.py probe run.acts --target gold-letter --site resid.post
    """
    folder = out or beside(store, "probes")
    with workflows.new_folder(folder, overwrite=overwrite, parts=("tables", "probes.npz", "probes.json")) as building:
        with bar() as progress:
            found = workflows.probe(
                store, target, probe=probe, settings=settings_of(setting), sites=site, positions=position,
                languages=split_codes(languages), variants=variant, group=group, control=control, folds=folds,
                permutations=permutations, mdl=mdl, marked=marked, seed=seed, jobs=jobs, progress=progress, note=note,
            )  # fmt: skip
        found.save(building)
    print(found.summary())
    print(folder / "tables")
