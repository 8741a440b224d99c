"""Commands run in the test's own process where another one is not the point: importing torch takes longer."""

from tests.cli.conftest import cli

__all__ = ["cli"]
