"""What is printed: tables of 80 cells for people, one JSON document with the same numbers for programs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

import babelscope as bs
from babelscope.cli.printing import plain
from tests.cli import tiny
from tests.cli.conftest import Finished

Cli = Callable[..., Finished]

# Commands that print tables: what they are asked, and what of the printed numbers is where in the document.
TABLES = {
    "inspect": ["inspect", "run.acts", "--accuracy"],
    "inspect values": ["inspect", "run.acts", "--values"],
    "analyze": ["analyze", "run.acts", "--sweep", tiny.GRID, "--overwrite", "--jobs", "1"],
    "recipe": ["analyze", "run.acts", "--recipe", "null-ladder", "--overwrite", "--jobs", "1"],
    "paper": ["analyze", "run.acts", "--mode", "paper", "--overwrite", "--jobs", "1"],
    "compare": ["analyze", "run.acts", "again.acts", "--metric", "cs", "--overwrite", "--jobs", "1"],
    "sweep": ["sweep", "run.acts", tiny.GRID, "--overwrite", "--jobs", "1"],
    "probe": ["probe", "run.acts", "--target", "task", "--probe", "mass-mean", "--folds", "3", "--permutations", "39",
              "--overwrite", "--jobs", "1"],
    "evaluate": ["evaluate", "run.acts", "--overwrite"],
    "verify": ["verify", "run.acts", "--full"],
    "repair": ["repair", "run.acts", "--dry-run"],
    "ls metrics": ["ls", "metrics"],
    "ls sites": ["ls", "sites"],
    "data ls": ["data", "ls"],
    "data audit": ["data", "audit", "knowledge", "--languages", "zh", "--limit", "40"],
    "data show": ["data", "show", "knowledge", "--languages", "zh"],
    "data mix-choice": ["data", "mix-choice", "kfrd-arithmetic", "mixed.jsonl", "--languages", "en,sw", "--limit", "4",
                        "--overwrite"],
    "doctor": ["doctor", "tiny"],
    "capture": ["capture", "new.acts", "--model", "tiny", *tiny.ARGUMENTS, "--dry-run"],
    "export": ["export", "run.acts", "rows.npz", "--format", "numpy", "--site", "resid.post", "--dry-run"],
    "merge": ["merge", "merged.acts", "run.acts", "--dry-run"],
    "pack": ["pack", "run.acts", "--out", "run.h5", "--overwrite"],
    "train presets": ["train", "presets"],
}  # fmt: skip


@pytest.fixture
def here(cli: Cli, store: Path, tiny_model: Path) -> Cli:
    """An empty folder but for the store, once more under another name, and the model."""
    for name, target in (("run.acts", store), ("again.acts", store), ("tiny", tiny_model)):
        Path(name).symlink_to(target)
    return cli


def strict(text: str) -> object:
    """A document as JSON has them: no NaN, no Infinity."""

    def refuse(name: str) -> object:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [x for one in value.values() for x in numbers(one)]
    if isinstance(value, list):
        return [x for one in value for x in numbers(one)]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.mark.parametrize("name", TABLES)
def test_what_is_printed_fits_80_cells_and_is_also_one_document(here: Cli, name: str) -> None:
    done = here(*TABLES[name])
    assert done.code == 0, done.err
    # Prompts are printed as the model reads them, and the way to an output stays in one piece.
    lines = [line for line in done.out.splitlines() if name != "data show" and not Path(line).exists()]
    assert max(map(cell_len, lines), default=0) <= 80, max(lines, key=cell_len)
    asked = here(*TABLES[name], "--json")
    assert asked.code == 0, asked.err
    assert asked.out.count("\n") == 1
    document = strict(asked.out)
    assert document
    printed = set(re.findall(r"(?<![\w.@/-])-?\d+\.\d{3}(?![\w.])", done.out))
    known = {f"{x:.3f}" for x in numbers(document)}
    assert printed <= known, sorted(printed - known)[:5]


@pytest.mark.parametrize("name", ["inspect", "analyze", "evaluate", "data audit", "doctor"])
@pytest.mark.parametrize("environment", [{"COLUMNS": "40"}, {"COLUMNS": "200", "NO_COLOR": "1"}, {"TERM": "dumb"},
                                         {"PYTHONIOENCODING": "ascii"}], ids=str)  # fmt: skip
def test_no_terminal_changes_what_is_printed(here: Cli, store: Path, name: str, environment: dict[str, str]) -> None:
    done = tiny.process(*TABLES[name], cwd=Path(), env=os.environ | {"PYTHONPATH": str(tiny.ROOT)} | environment)
    assert done.returncode == 0, done.stderr
    assert max(cell_len(x) for x in done.stdout.splitlines() if not Path(x).exists()) <= 80
    assert "\x1b" not in done.stdout + done.stderr
    if environment.get("PYTHONIOENCODING") == "ascii":
        assert done.stdout.isascii()
        assert "\\u2013" not in done.stdout  # a dash is a dash


def test_the_document_of_an_analysis_holds_its_tables_to_the_last_digit(here: Cli, store: Path) -> None:
    done = here("analyze", "run.acts", "--metric", "cs", "--json", "--jobs", 1)
    document = strict(done.out)
    assert document["null"] == "different items of the same group"
    assert document["report"] == "run.acts.analysis/report.html"
    analysis = bs.load_analysis("run.acts", document["saved"])
    shown = pd.DataFrame(document["tables"]["headline"])
    rows = analysis.headline()
    assert list(shown) == list(rows)
    for name in ("matched", "null", "gap", "gap_low", "gap_high", "q"):
        np.testing.assert_array_equal(shown[name].astype(float), rows[name].astype(float))
    assert shown["stability"].isna().all()  # NaN is null


def test_inspect_tells_which_value_is_how_large_where(here: Cli, store: Path) -> None:
    document = strict(here("inspect", "run.acts", "--values", "--json").out)
    rows = pd.DataFrame(document["values"])
    values = np.abs(bs.open(store).select("resid.post@1").numpy())  # (language, item, dim)
    row = rows[(rows["site"] == "resid.post") & (rows["layer"] == 1)].iloc[0]
    language, item, unit = np.unravel_index(values.argmax(), values.shape)
    assert (row["unit"], row["n"], row["rows"]) == (str(unit), values.size, values.shape[0] * values.shape[1])
    assert (row["item"], row["language"]) == (bs.open(store).items[item], bs.open(store).languages[language])
    assert row["largest"] == values.max()
    assert row["median"] == pytest.approx(np.median(values), rel=4e-3)
    assert row["leads"] == pytest.approx((values.argmax(axis=2) == unit).mean())
    assert document["store"]["items"] == 12
    beside = pd.DataFrame(strict(here("inspect", "run.acts", "--json").out)["rows"])
    assert beside["largest"].tolist() == rows["largest"].tolist()


def test_a_document_of_findings_comes_with_the_exit_code(here: Cli, store: Path) -> None:
    Path("bad.acts").mkdir()
    for path in store.rglob("*"):
        target = Path("bad.acts") / path.relative_to(store)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    next(Path("bad.acts").rglob("shards/*/*.h5")).write_bytes(b"no shard")
    done = here("verify", "bad.acts", "--json")
    assert done.code == 1
    assert strict(done.out)["findings"]
    assert "Traceback" not in done.err


@pytest.mark.parametrize("command", [["ls", "sites"], ["inspect", "run.acts"], ["data", "show", "knowledge", "--limit",
                                                                                "200"]], ids=str)  # fmt: skip
def test_a_reader_that_leaves_early_costs_no_traceback(here: Cli, command: list[str]) -> None:
    process = subprocess.Popen([sys.executable, str(tiny.ROOT / "cli.py"), *command], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(tiny.ROOT)})  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.wait()
    process.stderr.close()
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_values_become_what_json_holds() -> None:
    frame = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [np.float32(0.5), np.nan]})
    assert plain({"t": frame, 1: np.int64(2), "x": np.array([np.inf, 1.0]), "p": Path("a/b"), "n": pd.NA}) == {
        "t": [{"a": 1, "b": 0.5}, {"a": None, "b": None}], "1": 2, "x": [None, 1.0], "p": "a/b", "n": None,
    }  # fmt: skip
