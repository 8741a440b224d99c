import re
from pathlib import Path

import pytest

from babelscope import plugins
from babelscope.schema import SITE_KINDS

PAGES = Path(__file__).parents[2] / "docs" / "metrics"


@pytest.mark.parametrize("name", plugins.names("metric"))
def test_every_metric_declares_itself_and_has_a_page_whose_examples_run(name, capsys):
    metric = plugins.load("metric", name)
    info = metric.info
    assert info.title
    assert info.source
    assert info.low < info.high
    assert info.reads <= set(SITE_KINDS)
    assert info.paper_site in info.reads
    page = (PAGES / f"{name}.md").read_text("utf-8")
    for heading in ("Formula", "What to expect", "When it misleads", "Example", "Literature"):
        assert f"\n## {heading}\n" in page
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, f"{name}.md", "exec"), {})
        assert capsys.readouterr().out
