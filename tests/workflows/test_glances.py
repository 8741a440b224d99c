"""What analyses, evaluations and probings show of themselves in a notebook."""

import subprocess
import sys

import numpy as np
import pytest

import babelscope as bs
from tests.analyses.planted import activations, write_store
from tests.analyses.test_transfer import store_of
from tests.schema.test_glance import check

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    values = activations(np.random.default_rng(0), 3, 24, 12, shared=1.0)
    facts = [{"rule": "ab"[i % 2]} for i in range(24)]
    demand = [EVIL if i % 2 else "none" for i in range(24)]
    path = tmp_path_factory.mktemp("g") / "s.acts"
    return write_store(path, {"resid.post": values[None]}, covariates=facts, demand=demand)


def test_an_analysis_shows_gap_null_and_n_of_every_group(store):
    analysis = bs.analyze(store, "cs")
    shown = check(analysis)
    assert {"gap", "null", "n", "verdict"} <= set(shown.texts)
    assert EVIL in shown.texts
    assert "cs (" in repr(analysis)
    for result in analysis.results:
        check(result)


def test_a_probing_shows_scores_beside_shuffled_labels(store):
    probing = bs.probe(store, "rule", permutations=39, n_boot=200)
    check(probing)
    assert "shuffled labels" in repr(probing)
    assert list(probing.means()["pairs"].unique()) == ["within", "across"]


def test_an_evaluation_shows_what_is_transferred(tmp_path):
    rng = np.random.default_rng(0)
    right = rng.random((2, 60)) < 0.6
    evaluation = bs.evaluate(store_of(tmp_path / "a.acts", dict(zip(("en", "de"), right.tolist(), strict=True))))
    assert {"excess", "null", "n_a"} <= set(check(evaluation).texts)


def test_nothing_of_it_loads_torch(store):
    script = (
        "import sys, babelscope as bs\n"
        f"store = bs.open({str(store.path)!r})\n"
        "for noun in (store, store.select('resid.post'), store.prompts, bs.analyze(store, 'cs')):\n"
        "    repr(noun), noun._repr_html_()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
