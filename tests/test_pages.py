"""What the README and the page of data sets say is so; tests/docs runs what they show."""

import re
from pathlib import Path

import typer

from babelscope.cli.main import app
from babelscope.datasets.facts import facts
from babelscope.workflows import generate

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs"


def readme():
    return (ROOT / "README.md").read_text("utf-8")


def test_the_readme_names_every_command_and_only_options_that_exist():
    commands = typer.main.get_command(app).commands
    table = readme().partition("## Commands")[2].partition("## ")[0]
    for name in commands:
        assert f"`{name}" in table, name
    options = {o for name in ("capture", "analyze") for parameter in commands[name].params for o in parameter.opts}
    named = set(re.findall(r"`(--[a-z-]+)`", table))
    assert {"--adapter", "--device-map", "--chat-template", "--backend", "--position", "--answers", "--part"} <= named
    assert named <= options


def test_the_readme_links_to_files_that_exist():
    links = re.findall(r"\]\(([^)#:]+)\)", readme())
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readme_repeats_the_accuracies_of_the_card():
    def rows(text):
        return re.findall(r"^\| [a-z]{2} \| .*$", text, re.MULTILINE)

    card = (ROOT / "babelscope" / "models" / "organism" / "README.md").read_text("utf-8")
    assert len(rows(readme())) == 14
    assert rows(readme()) == rows(card)


def test_the_page_of_data_sets_counts_the_facts_as_they_are():
    told = " ".join((PAGES / "datasets.md").read_text("utf-8").split())
    asked = len(generate("knowledge", languages=["en"], items=0).prompts)
    assert f"One pass asks {asked} of the {len(facts())} facts." in told
    assert f"| {len(facts())} facts in nine relations, {asked} of them in a pass," in told
    assert f"the first {len(generate('knowledge', languages=['en']).prompts)} of a pass" in told
