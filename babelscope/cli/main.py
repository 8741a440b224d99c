"""The `babelscope` command."""

import sys

import typer

from babelscope.cli import analyze, capture, data, demo, inspect, ls, report, sweep, train
from babelscope.errors import BabelScopeError

app = typer.Typer(
    name="babelscope",
    help="Does a multilingual transformer think in the same way in every language?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (capture, analyze, sweep, report, inspect, ls, demo):
    app.command(command.__name__.rpartition(".")[2])(command.run)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")


def main() -> None:
    """Run the command line: exit 0 when done, 1 for a problem the user can fix, 2 for wrong usage."""
    try:
        app()
    except BabelScopeError as error:
        print(f"babelscope: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("babelscope: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
