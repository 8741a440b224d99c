"""What the commands print and write, and that Python gives the same."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import babelscope as bs
from babelscope.analyses.grid import parse_sweep
from tests.cli import tiny
from tests.cli.conftest import Finished

Cli = Callable[..., Finished]


@pytest.fixture(scope="module")
def captured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that holds `run.acts`, captured by a process, and what that printed in `run.out`."""
    folder = tmp_path_factory.mktemp("captured")
    done = tiny.process("capture", "run.acts", "--model", tiny_model, *tiny.ARGUMENTS, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "run.out").write_text(done.stdout)
    (folder / "run.err").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def store(captured: Path) -> Path:
    """What the process wrote, here in place of the store of the other files; to be left as it is."""
    return captured / "run.acts"


def test_a_process_and_python_write_the_same_shards(store: Path, tiny_model: Path, tmp_path: Path) -> None:
    tiny.capture(tmp_path / "run.acts", tiny_model)
    written = {str(p.relative_to(tmp_path / "run.acts")): p.read_bytes() for p in tmp_path.rglob("*.h5")}
    assert len(written) == 9 + 1  # and items.h5
    assert written == {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*.h5")}


@pytest.fixture(scope="module")
def analyzed(store: Path, captured: Path) -> Path:
    """What `analyze` with a sweep wrote and printed, as a process."""
    done = tiny.process("analyze", "run.acts", "--metric", "cs", "--metric", "nao", "--sweep", tiny.GRID, cwd=captured)
    assert done.returncode == 0, done.stderr
    (captured / "analyze.out").write_text(done.stdout)
    return captured / "run.acts.analysis"


def test_capture_prints_the_store_and_shows_progress_on_stderr_alone(captured: Path) -> None:
    out, err = (captured / "run.out").read_text(), (captured / "run.err").read_text()
    assert "12 items x 3 languages (en, de, sw)" in out
    assert "9 of 9 shards, 0 failed prompts" in out
    assert "9/9" in err
    assert "9/9" not in out


def test_the_command_line_and_python_give_the_same_numbers_to_the_last_digit(store: Path, analyzed: Path) -> None:
    analysis = bs.analyze(store, ["cs", "nao"], sweep=dict([parse_sweep(tiny.GRID)]))
    assert [r.name for r in analysis.results] == ["accuracy", "cs", "nao", "contrast", "sweep_summary"]
    for result in analysis.results:
        saved = pd.read_parquet(analyzed / "tables" / f"{result.name}.parquet")
        pd.testing.assert_frame_equal(saved, result.table, check_exact=True)
        about = json.loads((analyzed / "tables" / f"{result.name}.json").read_text())
        assert about == json.loads(json.dumps(dict(result.provenance), default=str))
    assert analysis.summary() in (analyzed.parent / "analyze.out").read_text()


def test_the_tables_hold_every_threshold_group_and_language_pair(analyzed: Path) -> None:
    nao = pd.read_parquet(analyzed / "tables" / "nao.parquet")
    overall = nao[(nao["mode"] == "corrected") & nao["layer"].isna() & (nao["language_a"] == "*")]
    assert list(dict.fromkeys(overall["group"])) == ["knowledge-free", "knowledge"]
    for _, part in overall.groupby("group"):
        assert part["threshold"].tolist() == [0.1, 0.3, 0.5, 0.7, 0.9]
    pairs = nao[nao["language_a"] != "*"][["language_a", "language_b"]].drop_duplicates()
    assert len(pairs) == 3


def test_a_report_drawn_from_saved_tables_is_the_report(cli: Cli, store: Path, analyzed: Path) -> None:
    Path("again").mkdir()
    done = cli("report", store, analyzed, "-o", "again/report.html")
    assert done.code == 0, done.err
    for name in ("report.html", "report.json"):
        assert Path("again", name).read_bytes() == (analyzed / name).read_bytes()
    drawn = {p.name: p.read_bytes() for p in Path("again", "report.figures").iterdir()}
    assert drawn
    assert drawn == {p.name: p.read_bytes() for p in (analyzed / "report.figures").iterdir()}


def test_tables_of_another_store_are_refused(cli: Cli, store: Path, analyzed: Path) -> None:
    about = Path("tables")
    about.mkdir()
    for path in (analyzed / "tables").iterdir():
        content = path.read_bytes()
        if path.name == "cs.json":
            content = json.dumps(json.loads(content) | {"store": "0" * 64}).encode()
        (about / path.name).write_bytes(content)
    done = cli("report", store, about)
    assert done.code == 1
    assert "another store" in done.err
    assert not Path("report.html").exists()


def test_the_published_definitions_alone_have_a_headline_and_a_report(cli: Cli, store: Path) -> None:
    done = cli("analyze", store, "--mode", "paper", "--out", "paper", "--jobs", 1)
    assert done.code == 0, done.err
    assert "99 % interval" in done.out
    assert "95 % interval" not in done.out
    for variant in ("mean_over_pairs", "macro_layer", "pooled"):
        assert variant in done.out
    text = Path("paper/report.html").read_text("utf-8")
    assert "cs: by layer (" in text
    assert "by language pair (" not in text  # a published definition has no rows of pairs


def test_sweep_is_analyze_with_a_grid(cli: Cli, store: Path, analyzed: Path) -> None:
    done = cli("sweep", store, tiny.GRID, "--out", "swept", "--jobs", 1)
    assert done.code == 0, done.err
    swept, whole = (pd.read_parquet(f / "tables" / "nao.parquet") for f in (Path("swept"), analyzed))
    pd.testing.assert_frame_equal(swept, whole, check_exact=True)


def test_a_null_is_restricted_by_the_covariates_named(cli: Cli, store: Path) -> None:
    options = ["--by", "none", "--within", "task", "--within", "depth"]
    done = cli("analyze", store, *options, "--out", "within")
    assert done.code == 0, done.err
    assert done.out.startswith("null: different items of the same group, task and depth\n")
    analysis = bs.analyze(store, by=None, within=["task", "depth"])
    assert analysis.summary() in done.out
    swept = cli("sweep", store, tiny.GRID, *options, "--out", "within-swept")
    assert swept.code == 0, swept.err
    for folder in ("within", "within-swept"):
        about = json.loads(Path(folder, "tables", "nao.json").read_text())
        assert about["within"] == ["task", "depth"]
        assert about["mode"] == "corrected"
        assert "items of the same group, task and depth" in Path(folder, "report.html").read_text("utf-8")
    saved = pd.read_parquet("within/tables/cs.parquet")
    pd.testing.assert_frame_equal(saved, analysis["cs"].table, check_exact=True)


def test_the_gold_letter_restricts_a_null_like_any_covariate(store: Path) -> None:
    analysis = bs.analyze(store, "nao", by=None, within="gold")  # 12 items, 4 letters: some letter has three
    letters = bs.open(store).covariates["gold"].value_counts()
    assert analysis["nao"].table["n"].max() == letters[letters >= 3].sum()
    assert analysis.null == "different items of the same group and gold"


def test_the_languages_of_an_analysis_are_those_of_its_accuracy(store: Path) -> None:
    analysis = bs.analyze(store, "cs", languages=["sw", "en"], mode="corrected")
    assert set(analysis["accuracy"].table["language"]) == {"en", "sw"}


def test_probe_writes_what_python_finds(cli: Cli, store: Path) -> None:
    options = ["--target", "task", "--probe", "mass-mean", "--folds", 3, "--permutations", 39, "--jobs", 1]
    done = cli("probe", store, *options, "--variant", "raw", "--out", "probed")
    assert done.code == 0, done.err
    found = bs.probe(store, "task", probe="mass-mean", folds=3, permutations=39, variants=["raw"])
    assert found.summary() in done.out
    saved = pd.read_parquet("probed/tables/probe.parquet")
    pd.testing.assert_frame_equal(saved, found["probe"].table, check_exact=True)
    assert bs.load_probes(Path("probed")).classes == found.fitted.classes
    again = cli("probe", store, *options, "--out", "probed")
    assert again.code == 1
    assert "exists already" in again.err


def test_probe_names_what_is_wrong_and_leaves_nothing_behind(cli: Cli, store: Path) -> None:
    done = cli("probe", store, "--target", "tsk", "--out", "probed")
    assert done.code == 1
    assert "did you mean task" in done.err
    assert not Path("probed").exists()


def test_inspect_tells_accuracy_and_provenance(cli: Cli, store: Path) -> None:
    done = cli("inspect", store, "--accuracy", "--provenance")
    assert done.code == 0, done.err
    assert "resid.post x 2, mlp.act x 2 at last, float32" in done.out
    assert "arithmetic" in done.out
    versions = json.loads(done.out[done.out.index("{\n") :])["versions"]
    assert {"babelscope", "torch", "transformers"} <= versions.keys()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("metrics", "nao"), ("similarities", "cosine"), ("sites", "resid.post"), ("positions", "segment"),
        ("datasets", "kfrd-arithmetic"), ("loaders", "jsonl"), ("backends", "torch"), ("models", ""),
        ("probes", "mass-mean"),
    ],
)  # fmt: skip
def test_ls_prints_one_name_a_line(cli: Cli, kind: str, expected: str) -> None:
    done = cli("ls", kind)
    assert done.code == 0, done.err
    assert expected in [line.split()[0] for line in done.out.splitlines()] or not expected


def test_the_version_is_that_of_the_package(cli: Cli) -> None:
    assert cli("--version").out.split() == ["babelscope", bs.__version__]


def test_generated_prompts_are_read_back_by_every_command(cli: Cli) -> None:
    made = cli("data", "generate", "knowledge", "facts.jsonl", "--languages", "en,sw,zh", "--items", 40)
    assert made.code == 0, made.err
    assert "40 items x 3 languages" in made.out
    shown = cli("data", "show", "facts.jsonl", "--languages", "zh")
    assert shown.out.count("---") == 1
    assert "[zh]" in shown.out
    audited = cli("data", "audit", "facts.jsonl", "--languages", "en")
    assert "options_only" in audited.out
    assert "kfrd-logical" in cli("data", "ls").out
    again = cli("data", "generate", "knowledge", "facts.jsonl", "--languages", "en,sw,zh", "--items", 40, "--overwrite")
    assert again.out == made.out


def test_statements_are_exported_as_published_and_read_back_as_pairs(cli: Cli) -> None:
    out = "rt/{language}/original/depth-5/test.jsonl"
    made = cli("data", "export", "ruletaker", out, "--layout", "ruletaker", "--languages", "en,fr,en-fr", "--limit", 6)
    assert made.code == 0, made.err
    assert made.out.split() == [out.format(language=g) for g in ("en", "fr", "en-fr")]
    switched = cli("data", "show", out, "--mapping", "ruletaker", "--languages", "en-fr", "--limit", 6)
    Path("rt/en-fr/original/depth-5/test.jsonl").unlink()
    again = cli("data", "show", out, "--mapping", "ruletaker", "--languages", "en-fr", "--limit", 6)
    assert again.out == switched.out
    assert again.out.count("[en-fr]") == 6
    assert cli("data", "export", "ruletaker", out, "--layout", "ruletaker", "--languages", "en").code == 1


def test_inference_pairs_and_mixed_corpora_are_written_as_prompts(cli: Cli) -> None:
    for language in ("en", "fr"):
        row = {"premise": f"{language} a.", "hypothesis": f"{language} b.", "label": 0}
        Path(f"nli.{language}.jsonl").write_text(json.dumps(row) + "\n")
        Path(f"text.{language}.txt").write_text(f"{language} one.\n{language} two.\n\n{language} three.\n")
    paired = cli("data", "pairs", "nli.{language}.jsonl", "pairs.jsonl", "--languages", "fr-en", "--hypothesis")
    assert "1 texts in fr-en" in paired.out, paired.err
    assert "fr a.\nen b." in cli("data", "show", "pairs.jsonl").out
    mapping = ("--mapping", "key=row text=text")
    mixed = cli("data", "mix", "text.{language}.txt", "mixed.jsonl", "--unit", "sentence", *mapping)
    assert "2 documents" in mixed.out, mixed.err
    shown = cli("data", "show", "mixed.jsonl", "--limit", 2).out
    assert all(f" {word}." in shown for word in ("one", "two", "three"))


def test_a_pair_of_languages_is_captured_like_any_other(cli: Cli, tiny_model: Path) -> None:
    asked = ("--prompts", "kfrd-arithmetic", "--languages", "en,de,en-de", "--limit", 6, "--site", "resid.post@1")
    done = cli("capture", "run.acts", "--model", tiny_model, *asked, "--position", "segment:question")
    assert done.code == 0, done.err
    with bs.open("run.acts") as store:
        assert store.languages == ("en", "de", "en-de")
    analyzed = cli("analyze", "run.acts", "--out", "result", "--metric", "cs")
    assert analyzed.code == 0, analyzed.err
    table = pd.read_parquet("result/tables/accuracy.parquet")
    assert set(table["language"]) == {"en", "de", "en-de"}


def test_depth_and_steps_are_options_of_the_datasets_that_have_them(cli: Cli) -> None:
    for name, option, deepest in (("kfrd-logical", "--max-depth", 8), ("kfrd-symbolic", "--max-steps", 5),
                                  ("ruletaker", "--max-depth", 5)):  # fmt: skip
        made = cli("data", "generate", name, f"{name}.jsonl", "--languages", "en", "--items", 26, option, deepest)
        assert made.code == 0, made.err
        depths = {json.loads(line)["covariates"]["depth"] for line in Path(f"{name}.jsonl").read_text().splitlines()}
        assert max(depths) == deepest


def test_a_limit_beyond_the_default_number_of_items_is_kept() -> None:
    prompts, _ = bs.prompts("kfrd-arithmetic", languages=["en"], limit=250)
    fewer, _ = bs.prompts("kfrd-arithmetic", languages=["en"], limit=20)
    assert len(prompts.items) == 250
    assert prompts.prompts[:20] == fewer.prompts


def test_a_dry_run_writes_nothing(cli: Cli, tiny_model: Path) -> None:
    done = cli("capture", "run.acts", "--model", tiny_model, *tiny.ARGUMENTS, "--dry-run")
    assert done.code == 0, done.err
    assert "36 prompts, 12 items x 3 languages" in done.out
    assert list(Path().iterdir()) == []


def test_overwrite_replaces_a_store_and_texts_can_be_left_out(cli: Cli, tiny_model: Path) -> None:
    options = [
        "--model",
        tiny_model,
        "--prompts",
        "knowledge",
        "--languages",
        "en,sw",
        "--limit",
        4,
        "--answers",
        "none",
    ]
    assert cli("capture", "run.acts", *options).code == 0
    done = cli("capture", "run.acts", *options, "--overwrite", "--no-texts", "--position", "mean", "--no-self-test")
    assert done.code == 0, done.err
    opened = bs.open("run.acts")
    assert not opened.has_texts
    assert [str(p) for p in opened.plan.positions] == ["mean"]
    assert "self-test" not in json.dumps(opened.provenance["self_test"])
    analyzed = cli("analyze", "run.acts", "--mode", "corrected", "--by", "none", "--jobs", 1)
    assert analyzed.code == 0, analyzed.err
    assert not Path("run.acts.analysis/tables/accuracy.csv").exists()


def test_neither_help_nor_reading_a_store_loads_torch(store: Path, tmp_path: Path) -> None:
    code = """
import sys
from babelscope.cli.main import main
for command in (["--help"], ["capture", "--help"], ["ls", "backends"], ["ls", "metrics"], ["ls", "models"],
                ["data", "ls"], ["inspect", sys.argv[1]],
                ["analyze", sys.argv[1], "--metric", "cs", "--mode", "corrected", "--out", "analysis"]):
    sys.argv[0:] = ["babelscope", *command]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, command
    assert not {"torch", "transformers"} & sys.modules.keys(), command
    if command[-1] == "--help":
        assert not {"pandas", "scipy", "altair"} & sys.modules.keys(), command
    sys.argv[1:] = [STORE]
""".replace("STORE", repr(str(store)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tiny.ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, str(store)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False, env=env)
    assert done.returncode == 0, done.stderr


def test_the_help_of_sweep_promises_no_more_than_the_benchmark_measures(cli: Cli) -> None:
    told = " ".join(cli("sweep", "--help").out.split())
    assert "The store is read once" in told
    assert "corrected pairs, which are compared anew at every value" in told
    assert "one pass" not in told


def test_the_facade_lists_only_what_exists() -> None:
    for name in bs.__all__:
        assert getattr(bs, name) is not None
    # `babelscope.models` is the package of embedded models; a function of that name would be shadowed by it.
    assert "models" not in bs.__all__
    assert callable(bs.capture)
