"""One tiny model and one small capture of it for all tests of the command line."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from babelscope.cli.main import main
from tests.cli import tiny


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def store(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tiny.ARGUMENTS` capture, to be left as it is."""
    return tiny.capture(tmp_path_factory.mktemp("captured") / "run.acts", tiny_model)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Runs a command in this process, in an empty folder; far cheaper than starting Python and torch each time."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Finished:
        monkeypatch.setattr(sys, "argv", ["babelscope", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return run
