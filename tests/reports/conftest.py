"""A planted store whose every text is hostile, and its report; no model is needed."""

from pathlib import Path

import numpy as np
import pytest

from babelscope.workflows import Analysis, analyze
from tests.analyses.planted import activations, write_store

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    "\"quotes\" & 'apostrophes' \\u003c \u2028 \u2029 </pre>",
    "{{ 7 * 7 }} ]]> <!-- <svg onload=alert(1)>",
    "javascript:window.hacked=1 \u202egnp.exe\u2066 \x1b[2J",
)
ITEMS = (" ".join(HOSTILE), *(f"{HOSTILE[i % 5]}{i}" for i in range(1, 16)))
FREE, KNOWLEDGE = "knowledge-free", "knowledge</script><b>\u2028"
DEMANDS = tuple(FREE if i < 8 else KNOWLEDGE for i in range(16))
SWEEP = {"threshold": (0.2, 0.4, 0.6, 0.8)}


@pytest.fixture(scope="session")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    rng = np.random.default_rng(5)
    values = {
        "resid.post": np.stack([activations(rng, 3, 16, 24, shared=s) for s in (0.5, 1.0, 2.0)]),
        "mlp.act": np.stack([activations(rng, 3, 16, 24, shared=s) for s in (0.5, 1.0, 2.0)]),
    }
    path = tmp_path_factory.mktemp("planted") / "<b>run<b>.acts"
    store = write_store(path, values, demand=DEMANDS, items=ITEMS)
    return analyze(store, ("cs", "nao"), sweep=SWEEP)


@pytest.fixture(scope="session")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return analysis.report(tmp_path_factory.mktemp("report") / "report.html")
