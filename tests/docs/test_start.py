"""The pages that are read first are run as they stand."""

import pytest

from tests.docs.blocks import pages
from tests.docs.running import Reader


@pytest.mark.parametrize("page", ["README.md", *pages("concepts"), *pages("decisions")])
def test_every_block_of_a_page_runs(page: str, reader: Reader) -> None:
    reader.read(page)
