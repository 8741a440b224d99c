"""Commands as they stand on a page: taken apart, run in this process, or only looked up."""

import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer

from babelscope import plugins
from babelscope.analyses.recipe import chosen_recipes
from babelscope.cli.main import app, main
from babelscope.cli.options import settings_of, sweep_grids
from babelscope.schema.site import split_site
from babelscope.training.yaml_files import presets
from tests.docs.blocks import ROOT

# What a reader puts in, and what stands for it here.
PLACEHOLDERS = {"PATH_OR_HUB_ID": "organism", "MODEL": "organism"}
# What readers do in their own shells, and nothing of ours can be checked in it.
SHELL = {"cd", "export", ".", "source", "git", "sbatch", "#!/bin/bash", "mkdir", "pip", "make", "h5dump", "sha256sum"}
# How a page shows that a command fails, and what it says.
PROBLEM = "babelscope: "
# The working folder of a reader, and above the checkout, where a page shows an absolute path.
HOME = "/home/me"


@dataclass(frozen=True)
class Line:
    """A command, and what the page says that it prints."""

    words: tuple[str, ...]
    printed: str = ""


def lines(text: str) -> Iterator[Line]:
    """Commands of a block: every line, or those behind `$ ` with what stands below them."""
    text = text.replace("\\\n", " ")
    prompted = any(line.startswith("$ ") for line in text.split("\n"))
    command, printed = "", []
    for line in text.rstrip("\n").split("\n"):
        if prompted and not line.startswith("$ "):
            printed.append(line)
            continue
        if command:
            yield from _taken_apart(command, printed)
        command, printed = line.removeprefix("$ "), []
    yield from _taken_apart(command, printed)


def _taken_apart(command: str, printed: list[str]) -> Iterator[Line]:
    for name, value in PLACEHOLDERS.items():
        command = re.sub(rf"\b{name}\b", value, command)
    parts = [
        # What a shell does with the output is nothing of ours.
        list(takewhile(lambda word: word not in ("|", ">"), shlex.split(part, comments=True)))
        for part in command.split(" && ")
    ]
    for part in parts[:-1]:
        yield Line(tuple(part))
    if parts[-1]:
        yield Line(tuple(parts[-1]), "\n".join(printed).strip("\n"))


def ours(words: Sequence[str]) -> list[str] | None:
    """Arguments of `cli.py` or `babelscope` in a command, or None where it is another program that is known."""
    for i, word in enumerate(words):
        if Path(word).name in ("cli.py", "babelscope"):
            return list(words[i + 1 :])
    if tuple(words[:2]) == ("python", "-m") or words[0] in SHELL:
        _check_other(words)
        return None
    raise AssertionError(f"nothing is known of the program in {shlex.join(words)!r}")


def _check_other(words: Sequence[str]) -> None:
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), words
    if words[0] == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
        named = re.findall(r"(?:babelscope|\.)\[([a-z,]+)\]", " ".join(words))
        assert {extra for group in named for extra in group.split(",")} <= set(extras), words


def look_up(arguments: Sequence[str]) -> None:
    """The command, its options and the names that it is given exist."""
    rest, command = list(arguments), typer.main.get_command(app)
    if rest[0].startswith("--"):  # of the program itself
        assert rest[0] in {name for parameter in command.params for name in parameter.opts}, rest[0]
        return
    while hasattr(command, "commands"):
        name = rest.pop(0)
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    values = command.make_context(command.name, rest).params
    for kind, option in (("metric", "metric"), ("recipe", "recipe"), ("probe", "estimator"), ("backend", "backend")):
        for name in _listed(values.get(option)):
            plugins.load(kind, name)
    for expression in _listed(values.get("site")):
        split_site(expression)
    sweep_grids(values.get("sweep"))
    if values.get("recipe"):
        chosen_recipes(values["recipe"], settings_of(values.get("settings")))
    if config := values.get("config"):
        assert config.endswith(".yaml") or config in presets(), config
    for source in _listed(values.get("prompts")):
        assert "." in source or "/" in source or source in plugins.names("dataset"), source


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def with_options(arguments: list[str], more: Sequence[str], flags: Sequence[str]) -> list[str]:
    """The arguments, and each `--option value` of `more` and each flag that the command has and was not given."""
    command, rest = typer.main.get_command(app), list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts} - set(arguments)
    pairs = [*zip(more[::2], more[1::2], strict=True), *((flag,) for flag in flags)]
    return [*arguments, *(word for pair in pairs if pair[0] in known for word in pair)]


def run(arguments: Sequence[str], printed: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command of ours in this process, and compare what it prints with what the page says."""
    patch.setattr(sys, "argv", ["babelscope", *arguments])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    found = capsys.readouterr()
    said = shlex.join(arguments)
    if printed.startswith(PROBLEM):
        assert code == 1, f"{said} was to fail, and did not"
        err = found.err.strip("\n").replace(str(Path.cwd()), HOME).replace(str(ROOT), f"{HOME}/babelscope")
        assert err.endswith(printed), f"{said} says\n{found.err}"
        return
    assert code == 0, f"{said}:\n{found.err}"
    if printed:
        assert _masked(found.out) == _masked(printed), f"{said} prints\n{found.out}"


def _masked(text: str) -> str:
    # Fingerprints hold the versions of libraries, sizes the records of runs with command and host.
    text = re.sub(r"\b[0-9a-f]{16}\b", "FINGERPRINT", text)
    text = re.sub(r"\b\d+\.\d MB\b", "SIZE", text)
    text = re.sub(r"^made .*$", "made", text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))
