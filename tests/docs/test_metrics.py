"""The pages of metrics and recipes are run as they stand, and what they compute can be drawn."""

import pytest

from babelscope.workflows import Analysis
from tests.docs.blocks import pages
from tests.docs.running import Reader


@pytest.mark.parametrize("page", pages("metrics"))
def test_every_block_of_a_page_runs(page: str, reader: Reader) -> None:
    reader.read(page)
    for found in reader.names.values():
        if isinstance(found, Analysis) and any(len(result.table) for result in found.results):
            drawn = found.figures()
            assert drawn, "no section of the report draws this"
            assert all(figure.chart.to_dict() for figure in drawn)
