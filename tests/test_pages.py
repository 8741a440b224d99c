"""The examples of the pages that are no metric's are run as they stand."""

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["positions", "answers", "interventions"])
def test_the_example_of_a_page_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / f"{name}.md").read_text("utf-8"), re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, f"{name}.md", "exec"), names)
    assert capsys.readouterr().out
