"""Each message of an error is explained on one page, and each page explains messages that there are."""

import re
from collections import Counter

from tests.docs.blocks import DOCS
from tests.docs.messages import messages

PAGES = sorted(path for path in (DOCS / "errors").glob("*.md") if path.stem != "index")


def listed() -> Counter[str]:
    return Counter(line for page in PAGES for line in said(page.read_text("utf-8")))


def said(page: str) -> list[str]:
    return re.findall(r"\A```text\n(.*?)```", page.partition("\n## What it says\n\n")[2], re.DOTALL)[0].split("\n")[:-1]


def test_every_message_of_the_code_is_on_a_page() -> None:
    """A new one is added to the page of its kind, or to other.md."""
    assert sorted({message.text for message in messages()} - set(listed())) == []


def test_every_message_on_a_page_is_one_of_the_code() -> None:
    assert sorted(set(listed()) - {message.text for message in messages()}) == []


def test_no_message_is_on_two_pages() -> None:
    assert [text for text, count in listed().items() if count > 1] == []


def test_every_page_says_why_what_to_do_and_how_to_provoke_it() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        if page.stem != "other":
            assert all(f"\n## {heading}\n" in text for heading in ("Why", "What to do", "Example")), page


def test_a_template_has_an_ellipsis_for_what_is_filled_in() -> None:
    texts = {message.text for message in messages()}
    assert "no prompts were named" in texts
    assert "model folder … has no tokenizer files" in texts
