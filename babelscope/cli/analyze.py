"""`babelscope analyze`: metrics of a store against their nulls, as tables and a report."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from babelscope import workflows
from babelscope.cli import completion
from babelscope.cli.options import (
    AsJson,
    By,
    Jobs,
    Languages,
    Marked,
    Metrics,
    Mode,
    Overwrite,
    ReadPosition,
    Recipes,
    Seed,
    Settings,
    Sites,
    Sweep,
    Within,
    beside,
    settings_of,
    split_codes,
    sweep_grids,
)  # fmt: skip
from babelscope.cli.printing import show
from babelscope.cli.progress import bar, note
from babelscope.errors import BabelScopeError


def run(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE [OTHER]...", help="Store, as run.acts; each OTHER is compared with it."),
    ],
    metric: Metrics = None,
    recipe: Recipes = None,
    setting: Settings = None,
    model: Annotated[
        str | None,
        typer.Option(help="For recipes that run it. Default: as captured.", autocompletion=completion.models),
    ] = None,
    baseline: Annotated[
        Literal["none", "random-init"], typer.Option(help="random-init: the floor of every gap.")
    ] = "none",
    sweep: Sweep = None,
    out: Annotated[Path | None, typer.Option(help="Folder. Default: STORE.analysis or .comparison.")] = None,
    languages: Languages = None,
    site: Sites = None,
    position: ReadPosition = None,
    by: By = "auto",
    within: Within = None,
    mode: Mode = "both",
    marked: Marked = "refuse",
    seed: Seed = 0,
    jobs: Jobs = 2,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare languages: every number beside its null and interval.

    With another store of the same items: what changed, item by item. With a folder of training steps: every metric at
    each step.
    """
    store, grids = stores[0], sweep_grids(sweep)
    options: dict[str, Any] = {
        "sweep": grids, "sites": site, "languages": split_codes(languages), "position": position,
        "by": None if by == "none" else by, "within": within or (), "mode": mode, "marked": marked, "seed": seed,
        "jobs": jobs,
    }  # fmt: skip
    if (len(stores) > 1 or workflows.is_steps(store)) and (recipe or setting or model or baseline != "none"):
        raise BabelScopeError(
            "--recipe, --set, --model and --baseline are for one store", "analyze each store by itself"
        )
    if len(stores) > 1:
        _compare(stores, metric, out or beside(store, "comparison"), options, overwrite=overwrite, as_json=as_json)
        return
    folder = out or beside(store, "analysis")
    if workflows.is_steps(store):
        _analyze_steps(store, metric, folder, options, overwrite=overwrite, as_json=as_json)
        return
    opened = workflows.open_store(store)
    with workflows.new_folder(folder, overwrite=overwrite, parts=workflows.ANALYSIS_PARTS) as building:
        with bar() as progress:
            analysis = workflows.analyze(
                opened, metric, recipes=recipe or (), settings=settings_of(setting), model=model,
                baseline=baseline, progress=progress, note=note, **options,
            )  # fmt: skip
        analysis.save(building / "tables")
        analysis.report(building / "report.html")
    null = analysis.null if metric or not recipe else None
    text = "\n".join([*([f"null: {null}"] if null else []), analysis.summary(), str(folder / "report.html")])
    show(text, {"null": null, **_written(analysis, folder)}, as_json=as_json)


def _written(found: Any, folder: Path) -> dict[str, Any]:
    """What is printed, and where all of it is, for JSON."""
    report = {"report": folder / "report.html"} if (folder / "report.html").exists() else {}
    return {"tables": found.shown(), "saved": folder / "tables", **report}


def _analyze_steps(
    store: Path, metric: list[str] | None, folder: Path, options: dict[str, Any], *, overwrite: bool, as_json: bool
) -> None:
    with workflows.new_folder(folder, overwrite=overwrite, parts=workflows.ANALYSIS_PARTS) as building:
        with bar() as progress:
            analysis = workflows.analyze_steps(store, metric, progress=progress, note=note, **options)
        analysis.save(building / "tables")
        analysis.report(building / "report.html")
    show(f"{analysis.summary()}\n{folder / 'report.html'}", _written(analysis, folder), as_json=as_json)


def _compare(
    stores: list[Path],
    metric: list[str] | None,
    folder: Path,
    options: dict[str, Any],
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    with workflows.new_folder(folder, overwrite=overwrite, parts=("tables",)) as building:
        with bar() as progress:
            comparison = workflows.compare(stores, metric, progress=progress, note=note, **options)
        comparison.save(building / "tables")
    show(f"{comparison.summary()}\n{folder / 'tables'}", _written(comparison, folder), as_json=as_json)
