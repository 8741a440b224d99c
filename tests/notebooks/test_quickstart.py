from pathlib import Path

import pytest

from tests.notebooks.running import NOTEBOOKS, QUIET, run

pytestmark = [pytest.mark.filterwarnings(w) for w in QUIET]


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    run("quickstart", tmp_path)


def test_every_notebook_has_a_test():
    tested = {p.stem.removeprefix("test_").replace("_", "-") for p in Path(__file__).parent.glob("test_*.py")}
    assert {p.stem for p in NOTEBOOKS.glob("*.ipynb")} == tested
