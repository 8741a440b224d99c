"""The pages of errors provoke what they explain."""

import re

import pytest

from tests.docs.blocks import ROOT, pages
from tests.docs.running import Reader
from tests.docs.test_messages import said

# Nothing of ours can fill a memory or stop a process in passing: these pages show what is done about it.
WITHOUT = ("too-large", "stopped", "other", "index")


@pytest.mark.parametrize("page", pages("errors"))
def test_the_example_of_a_page_gives_one_of_its_messages(page: str, reader: Reader) -> None:
    reader.read(page)
    text = (ROOT / page).read_text("utf-8")
    if not page.endswith(tuple(f"/{name}.md" for name in WITHOUT)):
        given = text.partition("\n## Example\n")[2] + "\n" + reader.capsys.readouterr().out
        patterns = [".*".join(map(re.escape, message.split("…"))) for message in said(text)]
        assert any(re.search(rf"^(babelscope: )?{pattern}$", given, re.MULTILINE) for pattern in patterns)
