"""Every mistake costs one problem and one hint, exit code 1, no traceback and nothing half-written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from babelscope import plugins
from babelscope.errors import BabelScopeError
from tests.cli import tiny
from tests.cli.conftest import Finished

Cli = Callable[..., Finished]


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def assert_one_problem(done: Finished, problem: str, hint: str) -> None:
    assert done.code == 1, (done.out, done.err)
    assert "Traceback" not in done.err
    assert done.err.count("babelscope: ") == 1
    assert done.err.count("hint: ") == 1
    said, hinted = done.err.split("hint: ")
    assert problem in said
    assert hint in hinted
    assert done.out == ""


@pytest.mark.parametrize(
    ("change", "problem", "hint"),
    [
        (["--site", "resid.pots"], "no site called 'resid.pots'", "did you mean resid.post"),
        (["--site", "mlp.act@9"], "'9' is not one of the 2 layers", "0 to 1"),
        (["--languages", "en,xx"], "'xx'", "en"),
        (["--languages", ","], "names no language", "en,de,sw"),
        (["--position", "lsat"], "no position called 'lsat'", "last"),
        (["--position", "segment:qustion"], "segment called 'qustion'", "question"),
        (["--backend", "tourch"], "no backend called 'tourch'", "torch"),
        (["--dtype", "float8"], "no dtype 'float8'", "float16"),
        (["--device", "tpu9"], "no device 'tpu9'", "cpu"),
        (["--prompts", "missing.jsonl"], "missing.jsonl", ""),
        (["--prompts", "kfrd-arithmetik"], "'kfrd-arithmetik'", "kfrd-arithmetic"),
        (["--prompts", "empty.jsonl"], "empty.jsonl", ""),
        (["--model", "nowhere/at/all"], "nowhere/at/all does not exist", "hub id"),
        (["--model", "no-config"], "no config.json", "save_pretrained"),
        (["--model", "no-tokenizer"], "no tokenizer files", "tokenizer.save_pretrained"),
        (["--model", "short-context"], "allows 16", "shorten"),
        (["--resume", "--overwrite"], "contradict", "one of them"),
    ],
)
def test_a_capture_that_cannot_be_leaves_nothing(
    cli: Cli, tiny_model: Path, change: list[str], problem: str, hint: str
) -> None:
    Path("empty.jsonl").write_text("")
    broken = dict.fromkeys(change[1:], "")
    if "no-config" in broken:
        Path("no-config").mkdir()
    if "no-tokenizer" in broken:
        shutil.copytree(tiny_model, "no-tokenizer", ignore=shutil.ignore_patterns("tokenizer*"))
    if "short-context" in broken:
        shutil.copytree(tiny_model, "short-context")
        config = json.loads(Path("short-context/config.json").read_text())
        Path("short-context/config.json").write_text(json.dumps(config | {"max_position_embeddings": 16}))
    before = left(Path())
    arguments = ["--model", tiny_model, "--prompts", "knowledge", "--languages", "en,sw", "--limit", 4]
    if change[0] == "--prompts":
        arguments = ["--model", tiny_model]
    # The last of two equal options counts, but --site is repeatable: an unknown one spoils the command as well.
    done = cli("capture", "run.acts", *arguments, *change)
    assert_one_problem(done, problem, hint)
    assert left(Path()) == before


def test_no_prompts_are_a_problem_before_a_model_is_loaded(cli: Cli) -> None:
    assert_one_problem(cli("capture", "run.acts", "--model", "nowhere"), "no prompts were named", "--prompts")


@pytest.mark.parametrize("place", ["/proc/run.acts", "not-there/run.acts"])
def test_a_store_in_a_folder_that_cannot_be_written_is_refused(cli: Cli, tiny_model: Path, place: str) -> None:
    done = cli("capture", place, "--model", tiny_model, "--prompts", "knowledge", "--languages", "en,sw", "--limit", 4)
    assert_one_problem(done, str(Path(place).parent), "")
    assert left(Path()) == []


def test_an_existing_store_is_neither_touched_nor_ignored(cli: Cli, store: Path, tiny_model: Path) -> None:
    before = left(store)
    done = cli("capture", store, "--model", tiny_model, *tiny.ARGUMENTS)
    assert_one_problem(done, "exists already", "--resume to continue it or --overwrite")
    assert left(store) == before


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_folder_that_is_no_store_is_neither_resumed_nor_replaced(cli: Cli, tiny_model: Path, flag: str) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("years of work")
    done = cli("capture", "mine", "--model", tiny_model, *tiny.ARGUMENTS, flag)
    assert_one_problem(done, "no", "")
    assert Path("mine/thesis.txt").read_text() == "years of work"


def test_a_capture_is_not_resumed_under_another_plan(cli: Cli, store: Path, tiny_model: Path) -> None:
    before = left(store)
    done = cli("capture", store, "--model", tiny_model, *tiny.ARGUMENTS, "--site", "mlp.out", "--resume")
    assert_one_problem(done, "another plan: sites", "repeat the first command")
    assert left(store) == before


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (["--metric", "css"], "no metric called 'css'", "did you mean cs"),
        (["--site", "attn.out"], "holds no site attn.out", "capture again with --site attn.out"),
        (["--site", "mlp.act@7"], "'7' is not one of", "0 to 1"),
        (["--metric", "nao", "--site", "resid.post"], "metric nao reads", "--site mlp.act"),
        (["--languages", "en,fr"], "'fr'", "en"),
        (["--languages", "en"], "one language cannot be compared", "--languages en,de"),
        (["--position", "mean"], "holds no position mean", "--position last"),
        (["--by", "ruel"], "'ruel'", "rule"),
        (["--within", "ruel"], "'ruel'", "rule"),
        (["--within", "rule"], "share rule, so none has a null", "--within"),
        (["--within", "task", "--mode", "paper"], "no null within task", "--mode corrected"),
        (["--sweep", "treshold=0.1:0.9:0.1"], "'treshold'", "threshold"),
        (["--sweep", "threshold"], "not a parameter and its grid", "threshold=0.1:0.9:0.05"),
        (["--sweep", "threshold=0.9:0.1:0.1"], "below the first", "threshold=0.1:0.9:0.05"),
        (["--sweep", "threshold=0.1:0.9:0"], "not positive", "threshold=0.1:0.9:0.05"),
        (["--sweep", "threshold=low"], "'low' is not a number", "threshold=0.1:0.9:0.05"),
        (["--sweep", "threshold=0.1", "--sweep", "threshold=0.2"], "more than once", "one grid"),
        (["--out", "not-there/analysis"], "is no folder", "make it first"),
        (["--out", "/proc/analysis"], "cannot be written", "check the folder"),
    ],
)
def test_an_analysis_that_cannot_be_leaves_nothing(
    cli: Cli, store: Path, arguments: list[str], problem: str, hint: str
) -> None:
    options = arguments if "--out" in arguments else [*arguments, "--out", "analysis"]
    assert_one_problem(cli("analyze", store, *options, "--jobs", 1), problem, hint)
    assert left(Path()) == []


@pytest.mark.parametrize("command", [["analyze"], ["inspect"], ["sweep"], ["report"]])
def test_what_is_no_store_is_not_read(cli: Cli, command: list[str]) -> None:
    Path("other.acts").mkdir()
    Path("other.acts/store.json").write_text('{"schema": "of somebody else"}')
    more = {"sweep": [tiny.GRID], "report": ["tables"]}.get(command[0], [])
    done = cli(*command, "other.acts", *more)
    assert_one_problem(done, "other.acts is no BabelScope store", "capture one")
    assert left(Path()) == ["other.acts", "other.acts/store.json"]


def test_an_analysis_is_replaced_on_request_alone_and_never_with_other_files(cli: Cli, store: Path) -> None:
    Path("analysis/tables").mkdir(parents=True)
    Path("analysis/report.html").write_text("old")
    options = ["--metric", "cs", "--mode", "corrected", "--out", "analysis"]
    assert_one_problem(cli("analyze", store, *options), "exists already", "--overwrite")
    Path("analysis/notes.txt").write_text("mine")
    assert_one_problem(cli("analyze", store, *options, "--overwrite"), "'notes.txt'", "move it away")
    # A mistake that is found late leaves the old output where it was.
    Path("analysis/notes.txt").unlink()
    assert_one_problem(cli("analyze", store, *options, "--overwrite", "--by", "ruel"), "'ruel'", "rule")
    assert Path("analysis/report.html").read_text() == "old"
    assert left(Path()) == ["analysis", "analysis/report.html", "analysis/tables"]


def test_a_report_needs_tables_of_its_own_store(cli: Cli, store: Path) -> None:
    assert_one_problem(cli("report", store, "nowhere"), "nowhere is no store and holds no tables", "analyze")
    assert_one_problem(cli("report", store, "nowhere", "--out", "thesis.txt"), "written as HTML", "thesis.html")
    Path("tables").mkdir()
    Path("tables/cs.parquet").write_bytes(b"no parquet")
    assert_one_problem(cli("report", store, "tables"), "cs.parquet", "analyze")


@pytest.mark.parametrize(
    ("arguments", "problem", "hint"),
    [
        (["generate", "knowlege", "x.jsonl"], "'knowlege'", "knowledge"),
        (["generate", "knowledge", "x.txt"], "JSON Lines", "x.jsonl"),
        (["generate", "knowledge", "taken.jsonl"], "exists already", "--overwrite"),
        (["generate", "knowledge", "x.jsonl", "--items", "100000"], "100000 items", ""),
        (
            ["generate", "kfrd-arithmetic", "x.jsonl", "--items", "3000"],
            "would repeat a problem",
            "1102 items or fewer",
        ),
        (["generate", "knowledge", "x.jsonl", "--languages", "xx"], "'xx'", ""),
        (["generate", "knowledge", "x.jsonl", "--max-depth", "2"], "knowledge has no parameter 'max_depth'", "it has:"),
        (["generate", "kfrd-logical", "x.jsonl", "--max-depth", "90"], "chains of depth 90", "max_depth from 1 to"),
        (["generate", "knowledge", "gone/x.jsonl"], "is no folder", "make it first"),
        (["show", "nowhere.csv"], "nowhere.csv", ""),
        (["show", "taken.jsonl"], "taken.jsonl", ""),
        (["audit", "nowhere"], "'nowhere'", ""),
    ],
)
def test_prompts_that_cannot_be_had_leave_nothing(cli: Cli, arguments: list[str], problem: str, hint: str) -> None:
    Path("taken.jsonl").write_text("not JSON\n")
    assert_one_problem(cli("data", *arguments), problem, hint)
    assert left(Path()) == ["taken.jsonl"]
    assert Path("taken.jsonl").read_text() == "not JSON\n"


def test_an_unknown_similarity_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(BabelScopeError, match="no similarity called 'cosin'") as caught:
        plugins.load("similarity", "cosin")
    assert "cosine" in caught.value.hint


@pytest.mark.parametrize(
    "arguments", [["capture"], ["analyse", "x"], ["capture", "x", "--model", "m", "--limit", "0"], ["ls", "nothing"]]
)
def test_wrong_usage_is_exit_code_2(cli: Cli, arguments: list[str]) -> None:
    done = cli(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_a_problem_ends_the_process_with_code_1_and_two_lines(tmp_path: Path) -> None:
    done = tiny.process("inspect", "nowhere.acts", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["babelscope", "hint"]
