"""The help of a command on one screen: a line for each option, and an example that can be typed."""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from babelscope.cli.examples import EXAMPLES

WIDTH = 80

LEGEND = "default in brackets, + may be repeated"


class Command(TyperCommand):
    """A command whose help is laid out here."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        formatter.write("\n".join(_page(self, ctx)) + "\n")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for parameter in self.params:  # messages name an argument as the usage line does
            if isinstance(parameter, TyperArgument) and parameter.metavar is None:
                parameter.metavar = parameter.name.upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the name of the command in its usage line."""
        return _usage(self)


class Group(TyperGroup):
    """A command of commands whose help is laid out here."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help text."""
        formatter.write("\n".join(_page(self, ctx)) + "\n")

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the name of the command in its usage line."""
        return [*_usage(self), "COMMAND ..."]


def _usage(command: TyperCommand | TyperGroup) -> list[str]:
    return ["[OPTIONS]", *(_argument(p) for p in command.params if isinstance(p, TyperArgument))]


def _page(command: TyperCommand | TyperGroup, ctx: Any) -> Iterator[str]:
    yield f"Usage: {ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}"
    for paragraph in (command.help or "").split("\n\n"):
        yield ""
        yield from textwrap.wrap(" ".join(paragraph.split()), WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    arguments = [p for p in command.params if isinstance(p, TyperArgument)]
    yield from _section("Arguments:", [(str(p.metavar), p.help or "") for p in arguments])
    shown = [p for p in command.params if isinstance(p, TyperOption) and not p.hidden]
    yield from _section(f"Options ({LEGEND}):", [*map(_option_row, shown), ("--help", "Show this page.")])
    if isinstance(command, TyperGroup):
        rows = [(name, one.help or "") for name, one in command.commands.items() if not one.hidden]
        yield from _section("Commands:", [(name, text.partition("\n\n")[0]) for name, text in rows])
    program, *names = _path(ctx)
    line = f"{'python ' if program.endswith('.py') else ''}{program} {EXAMPLES[' '.join(names)]}"
    yield ""
    yield from [f"Example: {line}"] if len(line) + 9 <= WIDTH else ["Example:", f"  {line}"]


def _path(ctx: Any) -> list[str]:
    """The program, which may be several words, and the names of the commands."""
    return [*(_path(ctx.parent) if ctx.parent else []), ctx.info_name]


def _section(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and what they mean, in two columns."""
    listed = list(rows)
    if not listed:
        return
    yield from ("", title)
    width = max(len(name) for name, _ in listed)
    for name, text in listed:
        lines = textwrap.wrap(" ".join(text.split()), WIDTH - width - 4, break_on_hyphens=False) or [""]
        yield f"  {name:<{width}}  {lines[0]}".rstrip()
        yield from (" " * (width + 4) + line for line in lines[1:])


def _argument(parameter: TyperArgument) -> str:
    name = str(parameter.metavar) + ("..." if parameter.nargs != 1 and "..." not in str(parameter.metavar) else "")
    return name if parameter.required else f"[{name}]"


def _option_row(parameter: TyperOption) -> tuple[str, str]:
    name = ", ".join(sorted(parameter.opts, key=len))
    if parameter.is_flag:
        no = parameter.secondary_opts
        name = name.replace("--", "--[no-]", 1) if no else name
        default = ("on" if parameter.default else "off") if no else ""
    else:
        name += f" {_value(parameter)}" + ("+" if parameter.multiple else "")
        hidden = parameter.default is None or not parameter.show_default
        default = "" if hidden else str(parameter.default)
    mark = "required" if parameter.required else default
    return name, f"{parameter.help or ''} [{mark}]" if mark else parameter.help or ""


def _value(parameter: TyperOption) -> str:
    """What an option takes: choices where they are few letters, else a word for them."""
    if parameter.metavar:
        return parameter.metavar
    about = parameter.type_descriptor
    if about.is_choice:
        return "|".join(str(getattr(choice, "value", choice)) for choice in about.choices or ())
    kinds = {int: "N", float: "X"}
    return "PATH" if about.is_path else kinds.get(about.annotation, "NAME")
