import dataclasses
import re
from pathlib import Path

import pytest

from babelscope import plugins
from babelscope.schema import SITE_KINDS

PAGES = Path(__file__).parents[2] / "docs" / "metrics"


@pytest.mark.parametrize("name", plugins.names("metric"))
def test_every_metric_declares_itself_and_has_a_page_whose_examples_run(name, capsys):
    info = plugins.load("metric", name).info
    assert info.title
    assert info.source
    assert info.low < info.high
    assert info.reads <= set(SITE_KINDS)
    assert info.paper_site in {*info.reads, ""}
    check_page(name, capsys)


@pytest.mark.parametrize("name", plugins.names("recipe"))
def test_every_recipe_declares_itself_and_has_a_page_whose_examples_run(name, capsys):
    recipe = plugins.load("recipe", name)
    assert recipe.info.title
    assert recipe.info.question.endswith("?")
    assert recipe.info.source
    assert {site.split(".", 1)[-1] for site in recipe.info.reads} <= {kind.split(".", 1)[-1] for kind in SITE_KINDS}
    assert dataclasses.replace(recipe) == recipe
    check_page(name, capsys)


def check_page(name, capsys):
    page = (PAGES / f"{name}.md").read_text("utf-8")
    for heading in ("Formula", "What to expect", "When it misleads", "Example", "Literature"):
        assert f"\n## {heading}\n" in page
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, f"{name}.md", "exec"), {})
        assert capsys.readouterr().out
