"""The `babelscope` command."""

import io
import os
import sys
from importlib.metadata import PackageNotFoundError
from typing import Annotated, NoReturn

import typer

from babelscope import __version__
from babelscope.cli import (
    analyze,
    capture,
    classify,
    data,
    demo,
    doctor,
    evaluate,
    export,
    import_,
    inspect,
    ls,
    merge,
    pack,
    probe,
    repair,
    report,
    sweep,
    train,
    unpack,
    verify,
)
from babelscope.cli.printing import PLAIN
from babelscope.cli.screen import Command, Group
from babelscope.errors import BabelScopeError

app = typer.Typer(
    name="babelscope",
    help="Does a multilingual transformer think in the same way in every language?",
    no_args_is_help=True,
    cls=Group,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    capture, analyze, sweep, probe, evaluate, classify, report, inspect, verify, repair, pack, unpack, merge, export,
    import_, doctor, ls, demo,
)  # fmt: skip
for command in COMMANDS:
    app.command(command.__name__.rpartition(".")[2].rstrip("_"), cls=Command)(command.run)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"babelscope {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Tell the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line: exit 0 when done, 1 for a problem the user can fix, 2 for wrong usage.

    130 or 143 where Ctrl-C or SIGTERM stopped a capture.
    """
    # Read by HDF5 when it starts: no filter is ever loaded from a folder of plugins.
    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)  # a terminal may lack the letters of a prompt
    # The shell completes the command that is on its PATH, also where a launcher is asked for the script.
    asked = {"--install-completion", "--show-completion"} & set(sys.argv[1:])
    try:
        app(prog_name="babelscope" if asked else None)
    except BabelScopeError as error:
        _fail(str(error), error.exit_code)
    except PackageNotFoundError as error:  # tables and stores name the versions that made them
        _fail(f"{error.name} is not installed in this Python\n  hint: pip install --editable . in the checkout")
    except OSError as error:  # a full disk, a missing permission: never a reason for a traceback
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}\n  hint: check the file, its permissions and the free space")


def _fail(text: str, code: int = 1) -> NoReturn:
    print(f"babelscope: {text}", file=sys.stderr)
    raise SystemExit(code) from None
