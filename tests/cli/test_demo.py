"""`demo` writes everything or nothing, here on a tiny model; the embedded one has its own tests."""

import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import babelscope as bs
from babelscope.errors import BabelScopeError
from babelscope.workflows import demonstration
from tests.cli.conftest import Finished


@pytest.fixture
def few_languages(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    """Three of the fourteen languages, and a model of two layers: a demo of seconds."""
    real = demonstration.capture

    def capture(*arguments: object, **options: object) -> object:
        return real(*arguments, **{**options, "languages": ["en", "de", "sw"], "model": str(tiny_model)})

    monkeypatch.setattr(demonstration, "capture", capture)


@pytest.mark.usefixtures("few_languages")
def test_the_demo_leaves_store_tables_and_report(cli: Callable[..., Finished]) -> None:
    done = cli("demo", "--limit", 24)
    assert done.code == 0, done.err
    beside = ("html", "json", "figures")
    left = {f"{name}.{ending}" for name in ("report", "report-within-rule") for ending in beside}
    assert {p.name for p in Path("demo").iterdir()} == left | {"run.acts", "tables", "within-rule"}
    assert [p.name for p in Path().iterdir()] == ["demo"]
    plain, within = done.out.split("null: different items of the same group and rule\n")
    assert plain.startswith("null: different items of the same group\n")
    assert plain.rstrip().endswith("demo/report.html")
    assert within.endswith("demo/report-within-rule.html\n")
    assert bs.load_analysis("demo/run.acts", "demo/tables").summary() in plain
    assert bs.load_analysis("demo/run.acts", "demo/within-rule").summary() in within
    # The contrast, whose name takes two lines of its cell.
    assert all("\nknowledge-free -" in text for text in (plain, within))
    assert pd.read_parquet("demo/within-rule/cs.parquet")["mode"].eq("corrected").all()
    assert bs.open("demo/run.acts").progress == (3, 3)
    assert len(pd.read_parquet("demo/tables/accuracy.parquet")) == 6
    again = cli("demo", "--limit", 24)
    assert again.code == 1
    assert "--overwrite" in again.err
    assert cli("demo", "--limit", 24, "--overwrite").out == done.out


def test_a_demo_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BabelScopeError, match="does not exist"):
        bs.demo(tmp_path / "demo", model="./no/model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few_languages")
def test_a_demo_that_is_stopped_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "babelscope.workflows.captures.QUEUE", 0
    )  # three blocks would all be run before the first is told

    def interrupt(done: int, total: int, what: str) -> None:
        if what.startswith("capture") and done == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(BabelScopeError, match="the demo was stopped"):
        bs.demo(tmp_path / "demo", items=8, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
