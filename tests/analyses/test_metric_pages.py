import dataclasses
from pathlib import Path

import pytest

from babelscope import plugins
from babelscope.schema import SITE_KINDS

PAGES = Path(__file__).parents[2] / "docs" / "metrics"


@pytest.mark.parametrize("name", plugins.names("metric"))
def test_every_metric_declares_itself_and_has_a_page(name):
    info = plugins.load("metric", name).info
    assert info.title
    assert info.source
    assert info.low < info.high
    assert info.reads <= set(SITE_KINDS)
    assert info.paper_site in {*info.reads, ""}
    check_page(name)


@pytest.mark.parametrize("name", plugins.names("recipe"))
def test_every_recipe_declares_itself_and_has_a_page(name):
    recipe = plugins.load("recipe", name)
    assert recipe.info.title
    assert recipe.info.question.endswith("?")
    assert recipe.info.source
    assert {site.split(".", 1)[-1] for site in recipe.info.reads} <= {kind.split(".", 1)[-1] for kind in SITE_KINDS}
    assert dataclasses.replace(recipe) == recipe
    check_page(name)


def check_page(name):
    page = (PAGES / f"{name}.md").read_text("utf-8")
    for heading in ("Formula", "What to expect", "When it misleads", "Example", "Literature"):
        assert f"\n## {heading}\n" in page
    assert "```python\n" in page.partition("\n## Example\n")[2]  # tests/docs runs it


def test_every_page_is_that_of_a_metric_or_recipe_and_the_index_lists_them():
    """The navigation of the site is made of these files."""
    names = {*plugins.names("metric"), *plugins.names("recipe")}
    assert {path.stem for path in PAGES.glob("*.md")} == {*names, "index"}
    index = (PAGES / "index.md").read_text("utf-8")
    assert all(f"]({name}.md)" in index for name in names)
