import pytest

from tests.notebooks.running import QUIET, run

pytestmark = [pytest.mark.filterwarnings(w) for w in QUIET]


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    run("thresholds", tmp_path)
