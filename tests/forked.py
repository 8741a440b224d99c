"""Processes that begin with torch and transformers imported: to be killed, interrupted or raced.

Importing them takes longer than most of what is run. That `cli.py` starts from nothing is tested in tests/cli.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from babelscope.cli.main import main

# The server imports and computes nothing, so it has no threads when it forks.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["transformers.trainer", "peft", "babelscope.workflows", "babelscope.hooks.models"])


class Forked:
    """A call in a process of its own; `is_alive`, `join`, `kill` and `exitcode` are those of the process."""

    def __init__(self, call: Callable[..., object], arguments: tuple[object, ...], cwd: Path, said: Path) -> None:
        self._said = said
        self._process = SERVER.Process(target=_begin, args=(call, arguments, cwd, said))
        self._process.start()
        self.pid = self._process.pid
        self.is_alive, self.join, self.kill = self._process.is_alive, self._process.join, self._process.kill

    @property
    def exitcode(self) -> int | None:
        return self._process.exitcode

    @property
    def said(self) -> str:
        """What it has written so far, to stdout and stderr."""
        return self._said.read_text("utf-8")

    def interrupt(self, signal: int) -> None:
        os.kill(self.pid, signal)


def _begin(call: Callable[..., object], arguments: tuple[object, ...], cwd: Path, said: Path) -> None:
    os.chdir(cwd)
    with said.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    call(*arguments)


def babelscope(*arguments: str) -> None:
    """The command line."""
    sys.argv = ["babelscope", *arguments]
    main()


@contextmanager
def forked(call: Callable[..., object], *arguments: object, cwd: Path) -> Iterator[Forked]:
    """A call at work in `cwd`; whoever leaves the block leaves no process behind."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        said.touch()
        process = Forked(call, arguments, cwd, said)
        try:
            yield process
        finally:
            process.kill()
            process.join()
