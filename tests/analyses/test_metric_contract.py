"""What every metric has to do with data at its limits: a defined result, or an error that says what to do."""

import numpy as np
import pytest

from babelscope import plugins
from babelscope.analyses import analyze
from babelscope.analyses.statistics import NOT_TESTABLE
from babelscope.errors import BabelScopeError
from babelscope.schema.results import COLUMNS

from .planted import activations, write_store

# attention-stability reads summaries of attention, which need a store of their own: test_attention_stability.py
NAMES = [name for name in plugins.names("metric") if name != "attention-stability"]
N = 16


def site_of(name):
    reads = plugins.load("metric", name).info.reads
    return "resid.post" if "resid.post" in reads else "mlp.act"


def tables(path, name, x, **options):
    store = write_store(path / "run.acts", {site_of(name): x.astype(np.float32)})
    results = analyze(store, [name], n_boot=50, n_perm=49, marked="keep", **options)
    return results[0].table


def planted(seed=0, shared=1.5):
    return activations(np.random.default_rng(seed), 3, N, 24, shared=shared)[None]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_stands_beside_its_null_interval_and_n(name, tmp_path):
    table = tables(tmp_path, name, planted())
    assert list(table.columns) == list(COLUMNS)
    defined = table[table["matched"].notna()]
    assert len(defined)
    assert defined[["null", "gap", "gap_low", "gap_high", "p", "q"]].notna().all().all()
    assert (defined["n"] == N).all()
    assert (defined["gap_low"] <= defined["gap"] + 1e-9).all()
    assert (defined["gap_high"] >= defined["gap"] - 1e-9).all()
    assert (defined["verdict"] != "").all()


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_part_of_the_items_is_found(name, tmp_path):
    table = tables(tmp_path, name, 0.2 * planted(shared=3.0), mode="corrected")
    means = table[(table["language_a"] == "*") & table["layer"].isna()]
    assert (means["gap_low"] > 0).any()
    assert (means["p"] <= 0.02).any()


@pytest.mark.parametrize("name", NAMES)
def test_without_a_common_part_nothing_is_established(name, tmp_path):
    table = tables(tmp_path, name, planted(seed=6, shared=0.0), mode="corrected")
    means = table[(table["language_a"] == "*") & table["layer"].isna()]
    assert means["p"].min() > 0.02


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_items_that_are_not_finite_are_undefined_and_counted(name, bad, tmp_path):
    x = planted()
    x[0, 1, 4, 3] = bad
    table = tables(tmp_path, name, x)
    touched = table[(table["language_a"] == "*") & table["layer"].notna()]
    assert touched["n_undefined"].min() >= 1
    assert touched["matched"].notna().all()
    assert np.isfinite(table["matched"].dropna()).all()
    assert np.isfinite(table["gap"].dropna()).all()


@pytest.mark.parametrize("name", NAMES)
def test_identical_languages_are_as_alike_as_the_metric_can_say(name, tmp_path):
    x = np.repeat(planted()[:, :1], 3, axis=1)
    table = tables(tmp_path, name, x, mode="corrected")
    means = table[(table["language_a"] == "*") & table["layer"].isna()]
    highest = plugins.load("metric", name).measures({})[0].similarity.highest
    assert means["matched"].iloc[0] == pytest.approx(highest, abs=1e-6)
    assert (means["matched"] > means["null"]).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_activations_establish_nothing(name, value, tmp_path):
    table = tables(tmp_path, name, np.full((1, 3, N, 24), value), mode="corrected")
    assert not (table["gap"].abs() > 1e-6).any()
    assert not (table["verdict"] == "supported").any()
    undefined = table[table["gap"].isna()]
    assert (undefined["verdict"] == NOT_TESTABLE).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_item_and_one_language_are_refused_with_the_next_step(name, tmp_path):
    store = write_store(tmp_path / "run.acts", {site_of(name): planted()[:, :, :1].astype(np.float32)})
    with pytest.raises(BabelScopeError, match="fewer than 4"):
        analyze(store, [name])
    with pytest.raises(BabelScopeError, match="one language cannot be compared"):
        analyze(store, [name], languages=["en"])
