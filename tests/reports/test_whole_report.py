"""The report of a captured model with everything that is cheap to compute, in a dark browser without a network."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer

import babelscope as bs
from babelscope import plugins
from babelscope.cli.main import app
from babelscope.reports.sections import SECTIONS
from babelscope.reports.source import Part
from babelscope.workflows.attention_views import attention_views
from tests.reports.conftest import opened

PARTS = [part for section in SECTIONS for part in section.parts]
RECIPES = ("null-ladder", "variance-budget", "language-neurons", "head-profiles")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    store = bs.capture(
        folder / "run.acts", model="organism", prompts=["kfrd-arithmetic", "knowledge"], languages=["en", "de", "ar"],
        limit=12, sites=["resid.post@1,4", "mlp.act@1,4", "attn.mass@1,4", "attn.pattern@1,4"], self_test=False,
    )  # fmt: skip
    settings = {"metrics": "cs", "within": "rule"}
    analysis = bs.analyze(
        store, ["cs", "nao", "attention-stability", "mexa"], recipes=RECIPES, settings=settings,
        sweep={"threshold": [0.2, 0.4]},
    )  # fmt: skip
    analysis.save(folder / "run.acts.analysis" / "tables")
    bs.evaluate(store, source="en").save(folder / "run.acts.evaluation" / "tables")
    bs.probe(store, "gold-letter", sites=["resid.post"], permutations=39, variants=["raw", "erased"]).save(
        folder / "run.acts.probes"
    )
    return bs.report([folder / "run.acts"], folder / "report.html", figures=["svg"])


@pytest.fixture(scope="module")
def numbers(report: Path) -> dict:
    return json.loads(report.with_suffix(".json").read_text("utf-8"))


@pytest.fixture(scope="module")
def page(report: Path) -> Iterator[object]:
    with opened(report, color_scheme="dark") as page:
        yield page


def test_tables_beside_a_store_are_found_and_each_figure_has_its_rows(numbers: dict, report: Path) -> None:
    results = numbers["sources"][0]["results"]
    assert {"cs", "accuracy", "transfer", "probe", "erasure", "variance_budget_layers"} <= results.keys()
    folder = report.with_suffix(".figures")
    assert sorted(p.name for p in folder.iterdir()) == numbers["files"]
    for figure in numbers["figures"]:
        with (folder / figure["file"]).open(newline="", encoding="utf-8") as file:
            assert len(list(csv.reader(file))) > 1, figure["file"]
        assert (folder / figure["file"].replace(".csv", ".svg")).read_text("utf-8").startswith("<svg")


def test_the_json_holds_every_row_of_every_table(numbers: dict, report: Path) -> None:
    tables = {p.stem: p for p in report.parent.glob("run.acts.*/tables/*.parquet")}
    for name, result in numbers["sources"][0]["results"].items():
        table = pd.read_parquet(tables[name])
        assert len(result["rows"]) == len(table)
        assert list(result["rows"][0]) == list(table.columns)


def test_every_figure_that_was_tested_has_an_answer_with_its_n(numbers: dict) -> None:
    answers = {figure["title"]: figure["answer"] for figure in numbers["figures"]}
    assert "n = 12" in answers["CS, raw: by layer"]
    assert "From which parts of an item a layer reads, knowledge" in answers
    assert "q = " in answers["CS, raw: by layer"]
    assert all("n = " in figure["answer"] + figure["caption"] for figure in numbers["figures"])


def test_nothing_is_fetched_and_nothing_complained_about(page: object, report: Path, numbers: dict) -> None:
    assert page.complaints == [report.as_uri()]
    assert page.evaluate("document.documentElement.dataset.drawn") == str(len(numbers["figures"]))
    assert page.evaluate("document.querySelectorAll('svg.marks').length") == len(numbers["figures"])


def test_a_dark_page_has_light_letters_in_its_figures(page: object) -> None:
    fill = "getComputedStyle(document.querySelector('.role-axis-label text')).fill"
    assert min(int(v) for v in page.evaluate(fill).strip("rgb()").split(", ")) > 150


def test_one_item_is_read_in_two_languages_from_the_side_that_it_is_written_from(page: object) -> None:
    view = "document.querySelector('#attention')"
    page.evaluate(f"(() => {{ const s = {view}.querySelectorAll('select')[3]; s.value = 2; "
                  "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    boxes = page.evaluate(f"[...{view}.querySelectorAll('.attended')[0].querySelectorAll('p')].map(p => [p.lang, "
                          "p.matches(':dir(rtl)'), p.textContent])")  # fmt: skip
    assert [(lang, rtl) for lang, rtl, _ in boxes] == [("en", False), ("ar", True)]
    assert "A)" in boxes[0][2]
    shades = f"[...{view}.querySelectorAll('span')].map(s => s.style.background).join()"
    before = page.evaluate(shades)
    page.evaluate(f"(() => {{ const s = {view}.querySelectorAll('select')[1]; s.value = 1; "
                  "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert page.evaluate(shades) != before


def test_the_shown_weights_are_those_of_the_store_layer_by_layer_and_language_by_language(report: Path) -> None:
    store = bs.open(report.parent / "run.acts")
    answers, exact = store.answers.set_index(["item", "language"]), 0
    for view in attention_views(store):
        assert view.layers == (1, 4)
        for k, layer in enumerate(view.layers):
            for text in view.texts:
                block = store.select(f"attn.pattern@{layer}", languages=[text.language], items=[view.item])
                stored = block.numpy()[0, 0]  # (head, key)
                np.testing.assert_allclose(text.weights[k].sum(axis=-1), 1, atol=1e-4)  # no weight is lost
                n_tokens = int(answers.loc[(view.item, text.language), "n_tokens"])
                np.testing.assert_allclose(text.weights[k][:, 0], stored[:, 0], atol=1e-6)
                if len(text.pieces) == n_tokens:  # no letter is cut into several tokens
                    np.testing.assert_allclose(text.weights[k], stored[:, :n_tokens], atol=1e-6)
                    exact += 1
                assert "".join(text.pieces) == next(
                    p.text for p in store.prompts.of(text.language) if p.item == view.item
                )
    assert exact >= 4  # two groups in English alone, at two layers


def test_clicking_a_head_shows_its_language_pairs(page: object) -> None:
    heading = "[...document.querySelectorAll('h3')].find(h => h.textContent.includes('head by head'))"
    figure = f"{heading}.nextElementSibling"
    marks = f"[...{figure}.querySelectorAll('.concat_1_group .mark-symbol path, .concat_1_group path')].map(p => "
    drawn = marks + "p.getAttribute('transform') || p.getAttribute('d')).join()"
    before = page.evaluate(drawn)
    assert before
    seen = set()
    for k in (1, 2):  # one of them may be the head that is shown at first
        cell = page.evaluate_handle(
            f"[...{figure}.querySelectorAll('.concat_0_group .mark-rect.role-mark path')].at(-{k})"
        )
        cell.as_element().click()
        page.wait_for_timeout(300)
        seen.add(page.evaluate(drawn))
    assert seen - {before}


def test_paper_gets_everything_unfolded(page: object) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def test_what_is_missing_names_the_command_that_supplies_it(report: Path) -> None:
    text = report.read_text("utf-8")
    assert "Neuron by neuron: not analyzed yet" not in text
    assert "Heads that matter: not captured: needs --site attn.heads, then cli.py analyze run.acts" in text
    assert "Logit lens: not analyzed yet: cli.py analyze run.acts --recipe latent-language" in text


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.title)
def test_the_command_of_a_part_exists_with_its_options(part: Part) -> None:
    words = part.command.replace("NAME", "cs").split()
    command = typer.main.get_command(app).commands[words[0]]
    context = command.make_context(words[0], words[1:], resilient_parsing=False)
    for kind in ("metric", "recipe"):
        for name in context.params.get(kind) or ():
            info = plugins.load(kind, name).info
            if kind == "recipe" and part.sites and info.reads:
                assert set(info.reads) & set(part.sites), part.title


def test_every_recipe_has_a_part() -> None:
    commands = " ".join(part.command for part in PARTS)
    assert [name for name in plugins.names("recipe") if f"--recipe {name}" not in commands] == []


def test_a_store_that_is_named_twice_is_reported_once(report: Path, tmp_path: Path) -> None:
    store = report.parent / "run.acts"
    again = bs.report([store, store / ".." / "run.acts"], tmp_path / "report.html")
    numbers = json.loads(again.with_suffix(".json").read_text("utf-8"))
    assert [source["store"] for source in numbers["sources"]] == ["run.acts"]


def test_stores_of_one_name_are_told_apart_by_their_paths(report: Path, tmp_path: Path) -> None:
    first, other = report.parent / "run.acts", tmp_path / "run.acts"
    shutil.copytree(first, other)
    tables = report.parent / "run.acts.evaluation"
    page = bs.report([first, other, tables], tmp_path / "report.html")
    numbers = json.loads(page.with_suffix(".json").read_text("utf-8"))
    assert [source["store"] for source in numbers["sources"]] == [str(first), str(other)]
