"""`babelscope train`: the models that are worth probing."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from babelscope import layout, workflows
from babelscope.cli import completion
from babelscope.cli.options import AsJson, Overwrite
from babelscope.cli.printing import show
from babelscope.cli.progress import bar, note
from babelscope.cli.screen import Command, Group

app = typer.Typer(help="Train a model to probe.", no_args_is_help=True, cls=Group)


Out = Annotated[Path, typer.Argument(help="Model folder to write.")]
Config = Annotated[
    str,
    typer.Option("--config", "-c", help="YAML, or preset (cli.py train presets).", autocompletion=completion.presets),
]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=X", help="A field, as optimization.batch=4.")]
Limit = Annotated[int | None, typer.Option(min=1, help="First items of each source, to try it out.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print examples, tokens, steps and parameters, and stop.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")]


@app.callback()
def methods() -> None:
    """Train a model to probe."""


METHODS = {
    "lora": "Low-rank adapters beside frozen weights; no loss on prompts.",
    "bitfit": "Biases alone, and the head of a classifier.",
    "full": "All weights.",
    "qcross": "Cross-lingual queries alone, on texts in two languages.",
}


def _command(method: str) -> Callable[..., None]:
    def run(
        out: Out, config: Config, changes: Changes = None, limit: Limit = None, dry_run: DryRun = False,
        resume: Resume = False, overwrite: Overwrite = False, as_json: AsJson = False,
    ) -> None:  # fmt: skip
        how = {"dry_run": dry_run, "resume": resume, "overwrite": overwrite, "as_json": as_json}
        _train(method, out, config, changes, limit, **how)

    return run


for name, about in METHODS.items():
    app.command(name, help=about, cls=Command)(_command(name))


@app.command(cls=Command)
def ablation(
    out: Out,
    config: Config,
    part: Annotated[str, typer.Option(metavar="K/N", help="As 1/2: the first half of the seeds.")] = "1/1",
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a grid with several seeds, into one table.

    A grid that was interrupted goes on with the same command.
    """
    share = workflows.part_of(part)
    with bar() as progress:
        done = workflows.ablate(
            config, out, part=(share.number, share.count), limit=limit, dry_run=dry_run, progress=progress, note=note
        )
    if isinstance(done, workflows.Ablation):
        found = {"tables": done.shown(), "saved": out / "table.csv"}
        show(f"{done.summary()}\n{out / 'table.csv'}", found, as_json=as_json)
    else:
        show(layout.table(done.to_dict("records")), {"tables": {"runs": done}}, as_json=as_json)


@app.command(cls=Command)
def chain(out: Out, config: Config, limit: Limit = None, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Train models that start from each other, as a ladder.

    A chain that was interrupted goes on with the same command.
    """
    with bar() as progress:
        done = workflows.train_chain(config, out, limit=limit, dry_run=dry_run, progress=progress, note=note)
    show("\n".join(f"{name}\n{made}" if dry_run else str(made) for name, made in done.items()), done, as_json=as_json)


@app.command(cls=Command)
def presets(as_json: AsJson = False) -> None:
    """List the presets."""
    found = workflows.presets()
    show(layout.facts(found), found, as_json=as_json)


def _train(
    method: str, out: Path, config: str, changes: list[str] | None, limit: int | None, *, dry_run: bool, resume: bool,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    read, silent = workflows.read_config(config, method, changes or ()), workflows.is_silent()
    with bar(hidden=silent) as progress:
        done = workflows.train(
            read, out, limit=limit, dry_run=dry_run, resume=resume, overwrite=overwrite, progress=progress,
            note=(lambda _: None) if silent else note,
        )  # fmt: skip
    if not silent:
        show(done, done if dry_run else {"model": done}, as_json=as_json)


@app.command(cls=Command)
def organism(
    out: Out,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts of each phase, to try it out.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data, initialization and order.")] = 0,
    resume: Resume = False,
) -> None:
    """Train the embedded decoder from nothing."""
    workflows.train_organism(out, limit=limit, seed=seed, resume=resume, note=note)
    print(out)


@app.command("encoder-organism", cls=Command)
def encoder_organism(
    out: Out,
    limit: Annotated[int | None, typer.Option(min=1, help="Most prompts of each phase, to try it out.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data, initialization and order.")] = 0,
    resume: Resume = False,
) -> None:
    """Train the embedded encoder from nothing."""
    workflows.train_organism(out, kind="encoder-organism", limit=limit, seed=seed, resume=resume, note=note)
    print(out)
