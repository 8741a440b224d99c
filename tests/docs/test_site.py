"""The site has every page, and its lists are those of the folders."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import babelscope as bs
from tests.docs import blocks
from tests.docs.blocks import DOCS, ROOT

SITE = runpy.run_path(str(DOCS / "site.py"))
FOLDERS = ("", "concepts", "decisions", "errors", "how-to", "metrics")


@pytest.mark.parametrize("folder", SITE["INDEXED"])
def test_the_index_of_a_folder_lists_its_pages(folder: str) -> None:
    """After a page was added: python docs/site.py."""
    assert (DOCS / folder / "index.md").read_text("utf-8") == SITE["index"](folder)


def test_every_page_stands_in_a_folder_whose_blocks_are_run() -> None:
    read = {page for folder in FOLDERS for page in blocks.pages(folder)}
    assert {str(path.relative_to(ROOT)) for path in DOCS.rglob("*.md")} == read


def test_the_site_opened_from_its_folder_finds_a_word_and_leads_to_pages(tmp_path: Path) -> None:
    """Browsers refuse workers and fetches there, and show the files of a folder instead of its page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine; CI has one")
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=quiet, check=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto((tmp_path / "site" / "index.html").as_uri())
        page.locator("input.md-search__input").click()
        page.keyboard.type("ridge")
        page.locator("a.md-search-result__link[href*='probing.html']").first.wait_for()
        page.keyboard.press("Escape")
        page.locator(".md-tabs__link", has_text="Concepts").click()
        assert page.title().startswith("Concepts")
        browser.close()


def test_the_page_of_the_api_has_every_public_name_once() -> None:
    lines = (DOCS / "api.md").read_text("utf-8").split("\n")
    named = [line.removeprefix("::: babelscope.") for line in lines if line.startswith(":::")]
    assert sorted(named) == sorted(bs.__all__)


def test_a_block_that_does_not_end_or_a_comment_above_none_is_a_mistake(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint()\n")
    with pytest.raises(ValueError, match="does not end"):
        list(blocks.blocks(page))
    page.write_text("<!-- checked: parsed, no reason -->\ntext\n")
    with pytest.raises(ValueError, match="stands above none"):
        list(blocks.blocks(page))


def test_a_block_of_a_language_that_nothing_checks_fails(reader: "object") -> None:
    with pytest.raises(AssertionError, match="nothing checks"):
        reader.take(blocks.Block("ruby", "puts 1", "here"))  # type: ignore[attr-defined]


def test_an_option_that_is_not_there_fails_where_it_is_only_parsed(reader: "object") -> None:
    block = blocks.Block("bash", "python cli.py analyze run.acts --no-such-option", "here", "parsed, to see it fail")
    with pytest.raises(Exception, match="no-such-option"):
        reader.take(block)  # type: ignore[attr-defined]


def test_citation_and_changes_name_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == bs.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    urls = {reference["url"].rpartition("/")[2] for reference in citation["references"]}
    assert urls == {"2406.16655", "2406.16135", "2310.15258"}
    assert f"\n## [{bs.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
